"""The one place where tokenizer latents become unit-scale latents and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SMALLEST_STD = 0.05  # in raw latents, from -1 to 1: what varies less is below the noise that the decoder bears
SMALLEST_SPREAD = 0.05  # of what never changes: what is left for the surprises of a longer run


@dataclass(frozen=True)
class Expectation:
    """What is expected of a frame from the one before it. mean: (..., N, D), spread around it: (N, D), unit-scale."""

    mean: Tensor
    spread: Tensor


class LatentScale(nn.Module):
    """Unit-scale latents: the training latents' own mean taken from each number, then one scale for all of them.

    The means are per token and channel, float32 (N, D): what differs between places but never within one (sky above,
    floor below) would else set the scale, and what moves would be lost in it. One scale, not one for each number:
    latents carry the same noise in the tokenizer's training, so a number that varies little means little.

    std: (N, D), of raw latents, everywhere the same. deviation: (N, D), of unit-scale latents; its mean square is 1.
    persistence: (N, D) in [0, 1], correlation with the frame before. innovation: (), root mean square of what a frame
    adds to what is expected of it (`expectation`), the unit in which frames are denoised. low, high: (N, D), bounds of
    unit-scale latents, so that a dream cannot leave the range in which the decoder was trained.
    """

    mean: Tensor
    std: Tensor
    deviation: Tensor
    persistence: Tensor
    innovation: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, tokens: int, channels: int) -> None:
        super().__init__()
        shape = (tokens, channels)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))
        self.register_buffer("deviation", torch.ones(shape))
        self.register_buffer("persistence", torch.zeros(shape))
        self.register_buffer("innovation", torch.ones(()))
        self.register_buffer("low", torch.full(shape, -10.0))
        self.register_buffer("high", torch.full(shape, 10.0))

    @torch.no_grad()
    def fit(self, episodes: Sequence[Tensor], context_noise: float) -> None:
        """Measure raw latents, (T, N, D) for each episode."""
        flat = torch.cat(list(episodes)).float()  # (sum of T, N, D)
        self.mean.copy_(flat.mean(0))
        self.std.fill_((flat - self.mean).square().mean().sqrt().clamp(min=SMALLEST_STD))
        unit = self.to_unit(flat)
        self.deviation.copy_(unit.square().mean(0).sqrt())
        changes = torch.cat([latents.float().diff(dim=0) for latents in episodes]) / self.std
        # Of pairs with variance v and correlation r, the mean square difference is 2 v (1 - r).
        variance = self.deviation.square().clamp(min=SMALLEST_SPREAD**2)
        self.persistence.copy_((1 - changes.square().mean(0) / (2 * variance)).clamp(0, 1))
        spread = self.expectation(torch.zeros_like(self.mean), context_noise).spread
        self.innovation.copy_(spread.square().mean().sqrt())
        self.low.copy_(unit.amin(0))
        self.high.copy_(unit.amax(0))

    @torch.no_grad()
    def widen(self, episodes: Sequence[Tensor]) -> None:
        """Let the range also hold raw latents (T, N, D) of other episodes: later rounds reach further."""
        flat = self.to_unit(torch.cat(list(episodes)).float())
        self.low.copy_(torch.minimum(self.low, flat.amin(0)))
        self.high.copy_(torch.maximum(self.high, flat.amax(0)))

    def expectation(self, previous: Tensor, context_noise: float) -> Expectation:
        """The best linear guess of unit-scale latents from those of the frame before.

        previous: (..., N, D), with the noise level 1 - `context_noise`.
        """
        signal, noise = 1 - context_noise, context_noise
        variance = self.deviation.square()
        kept = self.persistence * signal * variance / (signal**2 * variance + noise**2)  # the regression coefficient
        left = variance * (1 - kept * self.persistence * signal)
        return Expectation(kept * previous, left.clamp(min=SMALLEST_SPREAD**2).sqrt())

    def to_unit(self, latents: Tensor) -> Tensor:
        """Raw -> unit scale, (..., N, D)."""
        return (latents - self.mean) / self.std

    def from_unit(self, latents: Tensor) -> Tensor:
        """Unit scale -> raw, (..., N, D)."""
        return latents * self.std + self.mean

    def clamp(self, latents: Tensor) -> Tensor:
        """Unit-scale latents held within the range of the training data."""
        return latents.clamp(self.low, self.high)
