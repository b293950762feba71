"""Settings of the dynamics and the table of named sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple


class Size(NamedTuple):
    """Shape of a transformer: model width M, number of layers, attention heads."""

    width: int
    depth: int
    heads: int


SIZES: dict[str, Size] = {
    "debug": Size(16, 2, 2),
    "nano": Size(96, 4, 3),
    "micro": Size(128, 4, 4),
    "tiny": Size(192, 6, 4),
    "small": Size(256, 6, 4),
    "medium": Size(320, 8, 5),
    "base": Size(512, 12, 8),
}


@dataclass
class DynamicsConfig:
    """The dynamics and how they are trained.

    kind "dit" is the Diffusion Transformer and uses all fields but `mixtures`. kind "mdn_rnn" (Ha & Schmidhuber 2018)
    uses `mixtures`; `belief_size`, which is the LSTM's hidden size; `window`, where it only bounds how many frames a
    dream starts from; and what tells how it is trained. kind "video_gpt" (Yan et al. 2021) uses `size`, `window`,
    `belief_size` and what tells how it is trained; the tokenizer's kind must be "vq".
    """

    kind: str = "dit"  # "dit", "mdn_rnn" or "video_gpt"
    size: str = "tiny"
    """Width and layers: "debug" (16, 2), "nano" (96, 4), "micro" (128, 4), "tiny" (192, 6), "small" (256, 6), "medium"
    (320, 8) or "base" (512, 12).
    """
    window: int = 12  # frames that a layer over time sees, itself included
    clip_frames: int = 20  # length of training clips, longer than the window, so that training meets a full one
    time_every: int = 2  # every n-th layer attends over time as well
    registers: int = 1  # extra tokens per frame; the first carries the belief
    belief_size: int = 128  # numbers of the belief, the vector of what came before
    mixtures: int = 5  # normal components of each number of an mdn_rnn's next frame
    context_noise: float = 0.1  # share of noise in the frames in memory, 1 - tau
    noise_scale: float = 1.0
    """Standard deviation of the noise that a sampler starts from, in root mean squares of an innovation (what a frame
    has that the one before it does not tell). With 1 a sampler of four steps leaves out nearly all futures that are
    rare and large, however well the network knows them (benchmarks/rare_futures.py).
    """
    finest_steps: int = 4
    """A power of two, the finest sampling schedule trained; with 1 a dream shows the mean of what may come, which soon
    is no possible frame.
    """
    shortcut_fraction: float = 0.0  # of the rows, trained on larger steps; without any, dreams take the finest
    sampling_steps: int = 4  # denoising steps of a dreamt frame
    distillation_steps: int = 0
    """After the last round's training, steps in which a smaller network learns to sample in `sampling_steps` as the
    trained one does in `finest_steps` (`worldsim.distillation`); 0: the trained one samples.
    """
    change_weight: float = 6.0
    """Tokens weigh 1 + change_weight * clamp(mean squared change since the last frame / change_scale, 0, 1), so that
    small moving things count.
    """
    change_scale: float = 0.5  # the change that has the whole weight
    self_context_fraction: float = 0.0  # of the rows, whose memory holds frames that the model made itself
    reward_weight: float = 0.1  # of the reward's loss
    termination_weight: float = 0.5  # of the loss of endings
    steps: int = 10_000  # of training, in each round
    batch_clips: int = 16  # clips in each training step
    optimizer: str = "muon"  # "muon" or "adamw"
    learning_rate: float = 5e-3  # peak; cosine decay to a tenth
    weight_decay: float = 0.01  # of matrices only
    warmup_steps: int = 200  # of the learning rate
    ema_decay: float = 0.999  # of the averaged weights, which are the result
    ending_fraction: float = 0.25  # share of the clips of a batch that end with an episode, as far as there are any
    reward_bins: int = 65  # of the two-hot symlog head (DreamerV3)
    head_dropout: float = 0.2  # of the belief and of the hidden units of the heads

    def undistilled(self) -> DynamicsConfig:
        """Settings of dynamics that sample themselves, in the finest steps if these settings leave that to others."""
        if not self.distillation_steps:
            return self
        return replace(self, distillation_steps=0, sampling_steps=self.finest_steps)
