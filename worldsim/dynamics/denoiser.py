"""The denoising pass as what a sampler calls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from worldsim import diffusion
from worldsim.dynamics.config import DynamicsConfig
from worldsim.dynamics.dit import DiT
from worldsim.dynamics.scale import Expectation, LatentScale

INNOVATION_BOUND = 5.0


@dataclass(frozen=True)
class Denoiser:
    """The denoising pass as the callable that `worldsim.diffusion` takes, on innovations.

    What is denoised is not the frame but what it adds to the best linear guess from the frame before. Noise is a few
    times as large as the usual surprise (`noise_scale`), so a few denoising steps choose among possible futures, the
    rare and large ones too, instead of spending themselves on finding the present again.
    """

    config: DynamicsConfig
    scale: LatentScale
    network: DiT
    previous: Tensor
    actions: Tensor
    has_action: Tensor
    past_belief: Tensor
    positions: Tensor
    memory: Tensor
    visible: Tensor

    @cached_property
    def expected(self) -> Expectation:
        """What the frame before says of each frame."""
        return self.scale.expectation(self.previous, self.config.context_noise)

    @cached_property
    def unit(self) -> Tensor:
        """The standard deviation of the noise in unit-scale latents, and so the unit in which innovations are given."""
        return self.scale.innovation * self.config.noise_scale

    @cached_property
    def prior(self) -> diffusion.Prior:
        """What is known of innovations at unit scale."""
        return diffusion.Prior(self.expected.spread / self.unit)

    def __call__(self, noisy: Tensor, tau: Tensor, step_size: Tensor) -> Tensor:
        """Noisy innovations (B, T, N, D) -> clean ones."""
        mean = self.expected.mean
        condition = self.network.condition(tau, step_size, self.actions, self.has_action)
        level = tau[..., None, None]
        size = level + (1 - level) * self.config.noise_scale  # of the frame and the noise together, roughly
        place = (level * mean + self.unit * noisy) / size
        bounded = self.prior.normalised(noisy, tau).clamp(-INNOVATION_BOUND, INNOVATION_BOUND)
        inputs = torch.cat([place, self.previous, bounded], dim=-1)
        output = self.network(inputs, condition, self.past_belief, self.positions, self.memory, self.visible)
        return self.prior.clean_estimate(noisy, output.latents, tau)

    def innovation(self, latents: Tensor) -> Tensor:
        """What frames add to what is expected of them, in `unit`s, (B, T, N, D)."""
        return (latents - self.expected.mean) / self.unit

    def latents(self, innovation: Tensor) -> Tensor:
        """The inverse of `innovation`."""
        return self.expected.mean + self.unit * innovation

    def teacher(self, rows: int) -> Denoiser:
        """That of the first rows, through whose past no gradient flows."""
        return replace(
            self,
            previous=self.previous[:rows],
            actions=self.actions[:rows],
            has_action=self.has_action[:rows],
            past_belief=self.past_belief[:rows].detach(),
            memory=self.memory[:, :, :rows].detach(),
        )
