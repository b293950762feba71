"""How many of the futures that are rare and large does a sampler of a few steps keep, even with an exact denoiser?

    python -m benchmarks.rare_futures

A token's innovation is nothing, or, with a small probability, an event: a shift by many standard deviations of the
noise, as when a fireball is thrown (of Take Cover's tokens one in a hundred moves by 19, one in a thousand by 28).
The denoiser is exact, so all that is lost is lost by the steps. Where noise is no larger than innovations, the first
step from pure noise jumps over the levels at which an event is decided, and it is left out; with larger noise
(`dynamics.noise_scale`) the same steps stand where it is decided. Printed: how often events are drawn, as a share of
how often they happen, geometric mean over sizes and probabilities; how much that varies; and samples that are half an
event, which look like blotches.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from worldsim import diffusion

SIZES, PROBABILITIES = (9.0, 13.0, 19.0, 28.0), (0.005, 0.02, 0.1)
SPREAD, DRAWS = 0.3, 100_000
STEPS, NOISE_SCALES, TEMPERATURES = (2, 4, 8), (1.0, 2.0, 4.0, 8.0), (1.0, 1.3, 1.75)


@dataclass(frozen=True)
class Kept:
    """Of one setting: events drawn over events that happen, the spread of its logarithm over cases, half events over
    events that happen.
    """

    events: float
    spread: float
    halves: float


def main() -> None:
    """Print the table."""
    print("steps  noise scale  temperature   events  spread  halves")
    for steps, noise_scale, temperature in itertools.product(STEPS, NOISE_SCALES, TEMPERATURES):
        kept = kept_over_cases(steps, noise_scale, temperature)
        print(f"{steps:5}{noise_scale:13g}{temperature:13g}{kept.events:9.2f}{kept.spread:8.2f}{kept.halves:8.2f}")


def kept_over_cases(steps: int, noise_scale: float, temperature: float, draws: int = DRAWS) -> Kept:
    """Over all sizes and probabilities of an event."""
    logarithms, halves = [], []
    for size, probability in itertools.product(SIZES, PROBABILITIES):
        drawn = draw(size, probability, steps, noise_scale, temperature, draws)
        logarithms.append(math.log(max(float((drawn > 0.5).float().mean()) / probability, 1e-3)))
        halves.append(float(((drawn > 0.2) & (drawn < 0.8)).float().mean()) / probability)
    found = torch.tensor(logarithms)
    return Kept(float(found.mean().exp()), float(found.std()), sum(halves) / len(halves))


def draw(
    size: float, probability: float, steps: int, noise_scale: float, temperature: float, draws: int = DRAWS
) -> Tensor:
    """Samples (draws,) along an event's direction, 0 for nothing and 1 for an event.

    Across that direction samples are normal whatever happens, so one number stands for the token.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, draws, 1, 1, generator=generator) * temperature**0.5
    denoise = two_futures(size / noise_scale, SPREAD / noise_scale, probability)
    return diffusion.sample(denoise, noise, steps).latents.flatten() * noise_scale / size


def two_futures(size: float, spread: float, probability: float) -> diffusion.Denoiser:
    """The exact E[clean | noisy] where clean is normal, its mean 0 or, with this probability, `size`."""

    def denoise(noisy: Tensor, tau: Tensor, step_size: Tensor) -> Tensor:
        level = tau[..., None, None]
        variance = (level * spread).square() + (1 - level).square()
        evidence = (noisy.square() - (noisy - level * size).square()) / (2 * variance)
        happened = torch.sigmoid(evidence + math.log(probability / (1 - probability)))
        gain = level * spread**2 / variance
        return happened * (size + gain * (noisy - level * size)) + (1 - happened) * gain * noisy

    return denoise


if __name__ == "__main__":
    main()
