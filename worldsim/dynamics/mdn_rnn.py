"""The dynamics of Ha & Schmidhuber (2018), "World models", arXiv 1803.10122: an LSTM with a mixture density output.

h_t, c_t = LSTM([z_{t-1}, a_t], h_{t-1}, c_{t-1}), where a_t is the action that led to frame t, and p(z_t | h_t) is a
mixture of normal distributions for each number of the latents, independent given h_t. The belief is h_t, so a
controller sees [z_t, h_t] as the paper's does. Reward and termination are read from h_t too: it knows the frame before
the step and the action, and nothing after.

Two differences to the paper: the latents that it learns from are the tokenizer's means, without the noise of their
posterior, and reward and termination have a small network instead of a linear layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worldsim.distributed import shared_count
from worldsim.dynamics.config import DynamicsConfig
from worldsim.dynamics.heads import OutcomeHead
from worldsim.dynamics.mixture import LOG_STD_RANGE, Mixture
from worldsim.dynamics.protocol import Dynamics, LatentClip, Outcome

FORGET_BIAS = 1.0  # a fresh memory keeps (Gers et al. 2000, "Learning to forget")


@dataclass(frozen=True)
class MdnRnnState:
    """latents: (B, N, D), the newest frame. hidden, cell: (B, belief_size) float32, h in [-1, 1] and c of the LSTM."""

    latents: Tensor
    hidden: Tensor
    cell: Tensor

    @property
    def belief(self) -> Tensor:
        """(B, belief_size) in [-1, 1]."""
        return self.hidden

    def clone(self) -> MdnRnnState:
        """A copy that shares nothing, to branch a dream."""
        return MdnRnnState(self.latents.clone(), self.hidden.clone(), self.cell.clone())

    def select_rows(self, rows: Tensor) -> MdnRnnState:
        """A copy of some rows (R,), indices."""
        return MdnRnnState(self.latents[rows], self.hidden[rows], self.cell[rows])


class MdnRnnDynamics(Dynamics):
    """LSTM, mixture and heads; all N D numbers of a frame are one vector. Matrices may be bf16, states are float32."""

    def __init__(
        self, config: DynamicsConfig, tokens: int, channels: int, grid: tuple[int, int], action_features: int
    ) -> None:
        """grid: of no use here, where a frame is one vector."""
        super().__init__(config, tokens, channels, action_features)
        size, numbers = config.belief_size, tokens * channels
        self.input = nn.Linear(numbers + action_features, 4 * size)
        self.recurrent = nn.Linear(size, 4 * size, bias=False)
        self.mixture = nn.Linear(size, 3 * config.mixtures * numbers)
        self.head = OutcomeHead(size, action_features, size, config.reward_bins, config.head_dropout)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """LSTM: weights U(-1, 1) / sqrt(belief_size), biases 0 but FORGET_BIAS for the forget gate. Mixture: weights
        as nn.Linear draws them, means' biases N(0, 1) so that components differ, other biases 0.
        """
        size = self.belief_size
        for linear in (self.input, self.recurrent):
            linear.weight.uniform_(-(size**-0.5), size**-0.5)
        self.input.bias.zero_()
        self.input.bias[size : 2 * size] = FORGET_BIAS
        bias = self.mixture.bias.view(3, -1)
        bias.zero_()
        bias[1].normal_()

    # Training

    def loss(self, clip: LatentClip, *, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Negative log-likelihood of the frames in nats a number, cross-entropies of reward and termination.

        Nothing is drawn from the generator. The part "latent" is the squared error of the expected latents.
        """
        hidden, _ = self._unroll(clip.latents, clip.actions, clip.present)
        predicted = self._predict(hidden[:, 1:])
        target = clip.latents[:, 1:].flatten(2)  # (B, T - 1, N D)
        known = (clip.frame_valid[:, 1:] & clip.frame_valid[:, :-1]).float()[..., None]
        count = shared_count(known.sum()) * target.shape[-1]
        likelihood = (predicted.negative_log_likelihood(target) * known).sum() / count
        reward, termination = self.outcome_losses(hidden[:, 1:], clip)
        total = likelihood + self.config.reward_weight * reward + self.config.termination_weight * termination
        with torch.no_grad():
            error = ((predicted.mean() - target).square() * known).sum() / count
            change = (clip.latents.flatten(2).diff(dim=1).square() * known).sum() / count
        parts = {
            "latent": error,
            "likelihood": likelihood,
            "reward": reward,
            "termination": termination,
            "change": change,
        }
        return total, {name: value.detach() for name, value in parts.items()}

    @torch.no_grad()
    def termination_logits(self, clip: LatentClip, *, generator: torch.Generator) -> Tensor:
        """What the head says of the steps that led to the frames 1, 2, ... of a clip, (B, T - 1) float."""
        hidden, _ = self._unroll(clip.latents, clip.actions, clip.present)
        return self.head(hidden[:, 1:], clip.actions[:, 1:])[1]

    def _unroll(self, latents: Tensor, actions: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """h of each frame, (B, T, belief_size), and the last c, (B, belief_size); 0 at a row's first present frame.

        latents (B, T, N, D), actions (B, T, A), present bool (B, T).
        """
        hidden = torch.zeros(len(present), self.belief_size, device=latents.device)
        cell, every = hidden, [hidden]
        read = torch.cat([latents[:, :-1].flatten(2), actions[:, 1:]], dim=-1)  # (B, T - 1, N D + A)
        inputs = self.input(read.to(self.input.weight.dtype))
        for t in range(inputs.shape[1]):
            hidden, cell = self._advance(inputs[:, t], hidden, cell)
            begun = present[:, t, None]
            hidden, cell = hidden * begun, cell * begun
            every.append(hidden)
        return torch.stack(every, dim=1), cell

    def _advance(self, inputs: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Next h and c of the LSTM, from what its gates get of the input, (B, 4 belief_size)."""
        gates = (inputs + self.recurrent(hidden.to(self.recurrent.weight.dtype))).float()
        enter, keep, new, show = gates.chunk(4, dim=-1)
        cell = keep.sigmoid() * cell + enter.sigmoid() * new.tanh()
        return show.sigmoid() * cell.tanh(), cell

    def _predict(self, hidden: Tensor) -> Mixture:
        """The mixture for the frame that belongs to h (..., belief_size)."""
        output = self.mixture(hidden.to(self.mixture.weight.dtype)).float()
        tokens, channels = self.latent_shape
        logits, means, log_stds = output.unflatten(-1, (3, tokens * channels, -1)).unbind(-3)  # (..., N D, K) each
        return Mixture(logits, means, log_stds.clamp(*LOG_STD_RANGE))

    # Dreaming

    def start(
        self, latents: Tensor, actions: Tensor, has_action: Tensor, present: Tensor, noise: Tensor
    ) -> MdnRnnState:
        """State after frames (B, T, N, D) that end now; see Dynamics. The noise is of no use: frames are read as they
        are.
        """
        hidden, cell = self._unroll(latents.float(), actions, present)
        return MdnRnnState(latents[:, -1].float(), hidden[:, -1], cell)

    def restart_rows(self, state: MdnRnnState, rows: Tensor, fresh: MdnRnnState) -> MdnRnnState:
        """`state` with `rows` (indices) replaced by the rows of `fresh`."""
        changed = state.clone()
        changed.latents[rows], changed.hidden[rows], changed.cell[rows] = fresh.latents, fresh.hidden, fresh.cell
        return changed

    def step(
        self, state: MdnRnnState, actions: Tensor, noise: Tensor, sampling_steps: int, temperature: float | Tensor = 1.0
    ) -> tuple[MdnRnnState, Outcome]:
        """Dream one frame. actions (B, A); noise (B, 2, N, D): [:, 0] is that of the values, [:, 1] picks components.

        temperature: see `Mixture.sample`. A mixture is drawn from at once, whatever `sampling_steps`.
        """
        hidden, cell = self._follow(state, actions)
        predicted = self._predict(hidden)
        values, choice = noise.flatten(2).unbind(1)  # (B, N D) each
        each = torch.as_tensor(temperature).reshape(-1, 1)
        latents = self.scale.clamp(predicted.sample(choice, values, each).unflatten(-1, self.latent_shape))
        return self._outcome(latents, hidden, cell, actions, predicted.variance().mean(-1).sqrt())

    def observe(
        self, state: MdnRnnState, latents: Tensor, actions: Tensor, noise: Tensor
    ) -> tuple[MdnRnnState, Outcome]:
        """The same update with a real frame: latents (B, N, D), actions (B, A); the noise is of no use."""
        hidden, cell = self._follow(state, actions)
        return self._outcome(latents.float(), hidden, cell, actions, hidden.new_zeros(len(hidden)))

    def description(self) -> str:
        """For the model card."""
        parameters = sum(parameter.numel() for parameter in self.parameters()) / 1e6
        return (
            f"A mixture-density LSTM world model ({parameters:.1f}M parameters, {self.belief_size} hidden units, "
            f"{self.config.mixtures} mixtures; Ha & Schmidhuber 2018)"
        )

    def _follow(self, state: MdnRnnState, actions: Tensor) -> tuple[Tensor, Tensor]:
        """h and c once the LSTM has read the newest frame and the actions (B, A) taken there."""
        read = torch.cat([state.latents.flatten(1), actions], dim=-1)
        return self._advance(self.input(read.to(self.input.weight.dtype)), state.hidden, state.cell)

    def _outcome(
        self, latents: Tensor, hidden: Tensor, cell: Tensor, actions: Tensor, uncertainty: Tensor
    ) -> tuple[MdnRnnState, Outcome]:
        reward, termination = self.head.predict(hidden, actions)
        return MdnRnnState(latents, hidden, cell), Outcome(latents, hidden, reward, termination, uncertainty)
