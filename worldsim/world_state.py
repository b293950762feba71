"""What a batch of dreams goes on from, and what each of their steps shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from worldsim.dynamics.protocol import DynamicsState


@dataclass(frozen=True)
class DreamStep:
    """What one step shows.

    latents: unit-scale (B, N, D) float32. belief: (B, belief_size) in [-1, 1], the dynamics' summary of the past.
    reward: (B,), expected. termination_probability: (B,). uncertainty: (B,) >= 0: of the DiT, how far the sampler moved
    its estimate; of the MDN-RNN, the spread of the mixture; of the video GPT, the entropy of the codes. 0 for real
    frames. Reward and termination belong to the step that led to the latents.
    """

    latents: Tensor
    belief: Tensor
    reward: Tensor
    termination_probability: Tensor
    uncertainty: Tensor


@dataclass(frozen=True)
class WorldState:
    """Everything a batch of dreams goes on from; what goes on from it consumes it, so `clone` first to branch.

    latents: unit-scale (B, N, D), the current frame. change: (B, N, D), what they differ by from the frame before, 0 at
    the first. action: (B, A), features of the action that led here, 0 at the first frame. past: (B, F - 1, 2 N D + A),
    latents, change and action of the frames before, oldest first and 0 where there was none, F being the model's
    `remembered_frames`. decoded: uint8 (B, S, H, W, C), the last frames as the tokenizer draws them, the current one
    last and the first one again where there were fewer; S is the model's `decoded_frames`.
    generators: one per row.
    """

    dynamics: DynamicsState
    latents: Tensor
    change: Tensor
    action: Tensor
    past: Tensor
    decoded: Tensor
    generators: tuple[torch.Generator, ...]

    @property
    def belief(self) -> Tensor:
        """(B, belief_size)."""
        return self.dynamics.belief

    @property
    def shown(self) -> Tensor:
        """Latents, change and action side by side, (B, 2 N D + A)."""
        return torch.cat([self.latents.flatten(1), self.change.flatten(1), self.action], dim=1)

    @property
    def remembered(self) -> Tensor:
        """`shown` of the frames before and of the current one, oldest first, (B, F, 2 N D + A)."""
        return torch.cat([self.past, self.shown[:, None]], dim=1)

    def with_generators(self, generators: Sequence[torch.Generator]) -> WorldState:
        """The same state, which goes on drawing from other generators (B)."""
        return replace(self, generators=tuple(generators))

    def clone(self) -> WorldState:
        """A copy that shares nothing with the original, random generators included."""
        generators = tuple(_copied(generator) for generator in self.generators)
        return self._with_tensors(self.dynamics.clone(), generators, lambda name: getattr(self, name).clone())

    def select_rows(self, rows: Tensor) -> WorldState:
        """A copy of some rows (R,), indices; it goes on drawing from their generators."""
        generators = tuple(self.generators[row] for row in rows.tolist())
        return self._with_tensors(self.dynamics.select_rows(rows), generators, lambda name: getattr(self, name)[rows])

    def with_rows(self, rows: Tensor, fresh: WorldState, dynamics: DynamicsState) -> WorldState:
        """A copy on `dynamics`, with the same generators, in which `rows` (R,) are those of `fresh` (R)."""

        def mixed(name: str) -> Tensor:
            tensor: Tensor = getattr(self, name).clone()
            tensor[rows] = getattr(fresh, name)
            return tensor

        return self._with_tensors(dynamics, self.generators, mixed)

    def _with_tensors(
        self, dynamics: DynamicsState, generators: tuple[torch.Generator, ...], tensor: Callable[[str], Tensor]
    ) -> WorldState:
        names = ("latents", "change", "action", "past", "decoded")
        changes: dict[str, Any] = {name: tensor(name) for name in names}
        return replace(self, dynamics=dynamics, generators=generators, **changes)


def _copied(generator: torch.Generator) -> torch.Generator:
    return torch.Generator().set_state(generator.get_state())
