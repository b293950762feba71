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
    uses `mixtures`, normal components a number; belief_size, which is the LSTM's hidden size; window, where it only
    bounds how many frames a dream starts from; and what tells how it is trained. kind "video_gpt" (Yan et al. 2021)
    uses size, window, belief_size and what tells how it is trained; the tokenizer's kind must be "vq".

    size: a key of SIZES. window: frames a time layer sees, itself included. clip_frames: length of training clips
    (longer than the window, so that training meets a full window). time_every: every n-th layer also attends over time.
    registers: extra tokens per frame; the first carries the belief. belief_size: width of the belief vector.
    context_noise: 1 - tau of the frames in memory. noise_scale: standard deviation of the noise that a sampler starts
    from, in root mean squares of an innovation; with 1 a sampler of four steps leaves out nearly all futures that are
    rare and large, however well the network knows them (benchmarks/rare_futures.py). finest_steps: a power of two, the
    finest sampling schedule trained; with 1 a dream shows the mean of what may come, which soon is no possible frame.
    shortcut_fraction: share of rows trained on larger steps; without any, dreams take the finest. sampling_steps: steps
    used in dreams. distillation_steps: after the last round's training, steps in which a smaller network learns to
    sample in `sampling_steps` as the trained one does in `finest_steps` (`worldsim.distillation`); 0: the trained one
    samples. change_weight, change_scale: tokens weigh 1 + change_weight * clamp(mean squared change since the last
    frame / change_scale, 0, 1), so that small moving things count. self_context_fraction: share of rows whose memory
    holds frames that the model made itself. head_dropout: of the belief and of the hidden units of the heads.
    termination_weight, reward_weight: factors on the losses of the heads.
    """

    kind: str = "dit"  # "dit", "mdn_rnn" or "video_gpt"
    size: str = "tiny"  # "debug", "nano", "micro", "tiny", "small", "medium" or "base"
    window: int = 12
    clip_frames: int = 20
    time_every: int = 2
    registers: int = 1
    belief_size: int = 128
    mixtures: int = 5
    context_noise: float = 0.1
    noise_scale: float = 1.0
    finest_steps: int = 4
    shortcut_fraction: float = 0.0
    sampling_steps: int = 4
    distillation_steps: int = 0
    change_weight: float = 6.0
    change_scale: float = 0.5
    self_context_fraction: float = 0.0
    reward_weight: float = 0.1
    termination_weight: float = 0.5
    steps: int = 10_000
    batch_clips: int = 16  # clips in each training step
    optimizer: str = "muon"  # "muon" or "adamw"
    learning_rate: float = 5e-3  # peak; cosine decay to a tenth
    weight_decay: float = 0.01  # of matrices only
    warmup_steps: int = 200  # of the learning rate
    ema_decay: float = 0.999  # of the averaged weights, which are the result
    ending_fraction: float = 0.25  # share of the clips of a batch that end with an episode, as far as there are any
    reward_bins: int = 65  # of the two-hot symlog head (DreamerV3)
    head_dropout: float = 0.2

    def undistilled(self) -> DynamicsConfig:
        """Settings of dynamics that sample themselves, in the finest steps if these settings leave that to others."""
        if not self.distillation_steps:
            return self
        return replace(self, distillation_steps=0, sampling_steps=self.finest_steps)
