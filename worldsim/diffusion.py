"""Rectified flow with a noise level per frame, shortcut step sizes and few-step sampling. Knows no network.

Noise level tau in [0, 1]: 0 = pure noise, 1 = data. A noisy latent is `z_tau = (1 - tau) noise + tau clean`
(Liu et al. 2022, arXiv 2209.03003). A denoiser is any callable `(noisy, tau, step_size) -> clean estimate` with
noisy (B, T, N, D) and tau, step_size (B, T): prediction and loss live in clean-latent space, as in Dreamer 4
(arXiv 2509.24527). `step_size` d says how far along tau one sampling step will jump (shortcut models,
arXiv 2410.12557); the finest is `1 / finest_steps`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class NoiseLevels:
    """Noise levels and step sizes of one training batch.

    tau: (B, T) noise level, 0 = noise, 1 = data. step_size: (B, T) in (0, 1].
    """

    tau: Tensor
    step_size: Tensor


@dataclass(frozen=True)
class Sample:
    """What a sampler did.

    path: where it was before the first step and after each, (B, T, N, D) each; the last is the sample. movement: how
    far its estimate of the clean latent moved from the first to the last step, mean square (B, T).
    """

    path: tuple[Tensor, ...]
    movement: Tensor

    @property
    def latents(self) -> Tensor:
        """The sampled clean latent (B, T, N, D)."""
        return self.path[-1]


def corrupt(clean: Tensor, noise: Tensor, tau: Tensor) -> Tensor:
    """z_tau = (1 - tau) noise + tau clean; clean and noise (B, T, N, D), tau (B, T)."""
    level = tau[..., None, None]
    return noise + level * (clean - noise)


def draw_flow_levels(batch: int, frames: int, finest_steps: int, generator: torch.Generator) -> NoiseLevels:
    """A noise level per frame (diffusion forcing, arXiv 2407.01392), uniform over those at which a sampler asks.

    With `finest_steps` K they are 0, 1 / K, ..., (K - 1) / K. So pure noise, where every sampling begins, is one
    training sample in K; with K = 1 it is all of them, and the model a regression to the mean of what may come.
    """
    tau = torch.randint(finest_steps, (batch, frames), generator=generator, device=generator.device) / finest_steps
    return NoiseLevels(tau, torch.full_like(tau, 1.0 / finest_steps))


def draw_shortcut_levels(batch: int, frames: int, finest_steps: int, generator: torch.Generator) -> NoiseLevels:
    """Step sizes 2, 4, ... times the finest, each equally likely, and tau a multiple of the step below 1."""
    doublings = finest_steps.bit_length() - 1
    exponent = torch.randint(1, doublings + 1, (batch, frames), generator=generator, device=generator.device)
    step_size = torch.pow(2.0, exponent.float()) / finest_steps
    positions = torch.floor(torch.rand(batch, frames, generator=generator, device=generator.device) / step_size)
    return NoiseLevels(positions * step_size, step_size)


def draw_levels(
    batch: int, frames: int, finest_steps: int, shortcut_rows: int, generator: torch.Generator
) -> NoiseLevels:
    """The first `shortcut_rows` rows at larger steps, the others at the finest one."""
    flow = draw_flow_levels(batch - shortcut_rows, frames, finest_steps, generator)
    if not shortcut_rows:
        return flow
    shortcut = draw_shortcut_levels(shortcut_rows, frames, finest_steps, generator)
    return NoiseLevels(torch.cat([shortcut.tau, flow.tau]), torch.cat([shortcut.step_size, flow.step_size]))


def ramp_weight(tau: Tensor, finest_steps: int) -> Tensor:
    """0.9 tau + 0.1, more weight where more signal is left to use (Dreamer 4, equation 8), over its mean."""
    mean_tau = 0.5 * (1 - 1 / finest_steps)
    return (0.9 * tau + 0.1) / (0.9 * mean_tau + 0.1)


@dataclass(frozen=True)
class Prior:
    """What is known of clean data before its noisy version is seen: normal with mean 0 and a spread per number.

    spread: standard deviations (N, D), above 0.
    """

    spread: Tensor

    def normalised(self, noisy: Tensor, tau: Tensor) -> Tensor:
        """`noisy` (B, T, N, D) at tau (B, T) in standard deviations of what the prior expects of it."""
        return noisy / self._noisy_spread(tau[..., None, None])

    def clean_estimate(self, noisy: Tensor, output: Tensor, tau: Tensor) -> Tensor:
        """Clean estimate from a network's unit-scale output: c_skip noisy + c_out output.

        The preconditioning of EDM (arXiv 2206.00364) with a spread per number. With output 0 it is the best linear
        guess E[clean | noisy], c_out its error; so the network starts from that guess at every noise level instead of
        learning it.
        """
        level = tau[..., None, None]
        total = self._noisy_spread(level)
        return level * (self.spread / total).square() * noisy + self.spread * (1.0 - level) / total * output

    def _noisy_spread(self, level: Tensor) -> Tensor:
        return ((level * self.spread).square() + (1.0 - level).square()).sqrt()


def euler_step(noisy: Tensor, clean_estimate: Tensor, tau: Tensor, step_size: Tensor) -> Tensor:
    """Move from tau to tau + step_size along the velocity that the clean estimate implies."""
    share = (step_size / (1.0 - tau).clamp(min=1e-6)).clamp(max=1.0)[..., None, None]
    return noisy + share * (clean_estimate - noisy)


@torch.no_grad()
def shortcut_target(denoise: Denoiser, noisy: Tensor, levels: NoiseLevels) -> Tensor:
    """The clean latent to which one step of size d should point: where two steps of size d / 2 lead.

    With velocities b' and b'' of the two half steps the target velocity is their mean (shortcut models, equation 5);
    in clean-latent space that is `noisy + (1 - tau) (b' + b'') / 2`, whose plain squared error already carries
    the weight (1 - tau)^2 that Dreamer 4 puts on it.
    """
    half = levels.step_size / 2
    first = denoise(noisy, levels.tau, half)
    middle = euler_step(noisy, first, levels.tau, half)
    second = denoise(middle, levels.tau + half, half)
    end = euler_step(middle, second, levels.tau + half, half)
    reach = ((1.0 - levels.tau) / levels.step_size)[..., None, None]
    return noisy + reach * (end - noisy)


def sample(denoise: Denoiser, noise: Tensor, steps: int) -> Sample:
    """Integrate from noise (B, T, N, D) to a clean latent in `steps` equal steps."""
    shape = noise.shape[:2]
    step_size = torch.full(shape, 1.0 / steps, device=noise.device)
    path = [noise]
    estimates: list[Tensor] = []
    for index in range(steps):
        tau = torch.full(shape, index / steps, device=noise.device)
        estimate = denoise(path[-1], tau, step_size)
        path.append(euler_step(path[-1], estimate, tau, step_size))
        estimates.append(estimate)
    movement = (estimates[-1] - estimates[0]).square().mean(dim=(-2, -1))
    return Sample(tuple(path), movement)
