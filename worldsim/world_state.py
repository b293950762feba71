"""What a batch of dreams goes on from, and what each of their steps shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from worldsim.dynamics.protocol import DynamicsState

CURRENT = ("latents", "change", "action")  # what a state holds of the current frame, beside the dynamics' own
HISTORIES = ("past", "decoded", "readings")  # and of the last ones


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
    the first. action: (B, A), features of the action that led here, 0 at the first frame. generators: one per row.

    Of the last frames there is a tensor each, oldest first, so that going on moves none of them. past: F - 1 of
    (B, 2 N D + A), latents, change and action of the frames before, 0 where there was none, F being the model's
    `remembered_frames`. decoded: S of uint8 (B, H, W, C), frames as the tokenizer draws them, the current one last and
    the first one again where there were fewer; S is the model's `decoded_frames`. readings: what the reader of endings
    makes of the frames before that it will still see, as `EndingReader.read`; empty without a reader.
    """

    dynamics: DynamicsState
    latents: Tensor
    change: Tensor
    action: Tensor
    past: tuple[Tensor, ...]
    decoded: tuple[Tensor, ...]
    readings: tuple[Tensor, ...]
    generators: tuple[torch.Generator, ...]

    @property
    def belief(self) -> Tensor:
        """(B, belief_size)."""
        return self.dynamics.belief

    @property
    def shown(self) -> Tensor:
        """Latents, change and action side by side, (B, 2 N D + A)."""
        return torch.cat([self.latents.flatten(1), self.change.flatten(1), self.action], dim=1)

    def actions(self, count: int) -> Tensor:
        """The last `count` actions that led here, up to F, oldest first and 0 where there was none, (B, count, A)."""
        size, before = self.action.shape[1], self.past[len(self.past) + 1 - count :]
        return torch.stack([*(frame[:, -size:] for frame in before), self.action], dim=1)

    def with_generators(self, generators: Sequence[torch.Generator]) -> WorldState:
        """The same state, which goes on drawing from other generators (B)."""
        return replace(self, generators=tuple(generators))

    def clone(self) -> WorldState:
        """A copy that shares nothing with the original, random generators included."""
        generators = tuple(_copied(generator) for generator in self.generators)
        return self._mapped(self.dynamics.clone(), generators, Tensor.clone)

    def select_rows(self, rows: Tensor) -> WorldState:
        """A copy of some rows (R,), indices; it goes on drawing from their generators."""
        generators = tuple(self.generators[row] for row in rows.tolist())
        return self._mapped(self.dynamics.select_rows(rows), generators, lambda tensor: tensor[rows])

    def with_rows(self, rows: Tensor, fresh: WorldState, dynamics: DynamicsState) -> WorldState:
        """This state, consumed, on `dynamics`, with the same generators; `rows` (R,) are those of `fresh` (R)."""
        for name in HISTORIES:  # in place: a copy of the decoded frames takes as long as a denoising step
            for kept, new in zip(getattr(self, name), getattr(fresh, name), strict=True):
                kept[rows] = new
        changes: dict[str, Any] = {}
        for name in CURRENT:  # of what a step has shown its caller
            changes[name] = getattr(self, name).clone()
            changes[name][rows] = getattr(fresh, name)
        return replace(self, dynamics=dynamics, **changes)

    def _mapped(
        self,
        dynamics: DynamicsState,
        generators: tuple[torch.Generator, ...],
        change: Callable[[Tensor], Tensor],
    ) -> WorldState:
        changes: dict[str, Any] = {name: change(getattr(self, name)) for name in CURRENT}
        changes |= {name: tuple(change(frame) for frame in getattr(self, name)) for name in HISTORIES}
        return replace(self, dynamics=dynamics, generators=generators, **changes)


def _copied(generator: torch.Generator) -> torch.Generator:
    return torch.Generator().set_state(generator.get_state())
