"""Dreamt steps of the DiT recorded as CUDA graphs: one launch for a frame in all rows."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from worldsim.cuda_graphs import Recorder
from worldsim.dynamics.dit_dynamics import DiTDynamics, DiTState
from worldsim.dynamics.protocol import Outcome


class RecordedSteps:
    """`DiTDynamics.step` of dynamics on a GPU."""

    def __init__(self, dynamics: DiTDynamics) -> None:
        self.dynamics = dynamics
        self._recorders: dict[int, Recorder] = {}

    def __call__(
        self, state: DiTState, actions: Tensor, noise: Tensor, sampling_steps: int, temperature: Tensor
    ) -> tuple[DiTState, Outcome]:
        """As `DiTDynamics.step`. temperature: (1,) or (B,) on the GPU."""
        assert isinstance(state.clock, int)
        if sampling_steps not in self._recorders:
            self._recorders[sampling_steps] = Recorder(partial(self._step, sampling_steps))
        clock = torch.tensor([state.clock], device=noise.device)
        memory, filled, previous, belief, *outcome = self._recorders[sampling_steps](
            state.memory, state.filled, state.previous, state.belief, clock, actions, noise, temperature
        )
        return DiTState(memory, filled, previous, belief, state.clock + 1), Outcome(*outcome)

    def _step(
        self,
        sampling_steps: int,
        memory: Tensor,
        filled: Tensor,
        previous: Tensor,
        belief: Tensor,
        clock: Tensor,
        actions: Tensor,
        noise: Tensor,
        temperature: Tensor,
    ) -> tuple[Tensor, ...]:
        before = DiTState(memory, filled, previous, belief, clock)
        after, outcome = self.dynamics.step(before, actions, noise, sampling_steps, temperature)
        return after.memory, after.filled, after.previous, after.belief, *vars(outcome).values()
