"""The one place where tokenizer latents become unit-scale latents and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from worldsim.diffusion import Prior

SMALLEST_STD = 0.05  # in raw latents, from -1 to 1: what varies less is below the noise that the decoder bears
SMALLEST_SPREAD = 0.05  # of what never changes: what is left for the surprises of a longer run


class LatentScale(nn.Module):
    """Mean and standard deviation of the training latents, the range they stay in, and how slowly they change.

    All are float32 (N, D), for each token by itself: what differs between places but never within one (sky above,
    floor below) would else set the scale, and what moves would be lost in it. low and high bound unit-scale latents,
    so that a dream cannot leave the range in which the decoder was trained. persistence: in [0, 1], correlation of
    unit-scale latents with those of the frame before.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    persistence: Tensor

    def __init__(self, tokens: int, channels: int) -> None:
        super().__init__()
        shape = (tokens, channels)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))
        self.register_buffer("low", torch.full(shape, -10.0))
        self.register_buffer("high", torch.full(shape, 10.0))
        self.register_buffer("persistence", torch.zeros(shape))

    @torch.no_grad()
    def fit(self, episodes: Sequence[Tensor]) -> None:
        """Measure raw latents, (T, N, D) for each episode."""
        flat = torch.cat(list(episodes)).float()  # (sum of T, N, D)
        self.mean.copy_(flat.mean(0))
        self.std.copy_(flat.std(0).clamp(min=SMALLEST_STD))
        self.low.fill_(torch.inf)
        self.high.fill_(-torch.inf)
        self.widen(episodes)
        changes = torch.cat([latents.float().diff(dim=0) for latents in episodes]) / self.std
        # Of unit-scale pairs with correlation r, the mean square difference is 2 (1 - r).
        self.persistence.copy_((1 - changes.square().mean(0) / 2).clamp(0, 1))

    @torch.no_grad()
    def widen(self, episodes: Sequence[Tensor]) -> None:
        """Let the range also hold raw latents (T, N, D) of other episodes: later rounds reach further."""
        flat = self.to_unit(torch.cat(list(episodes)).float())
        self.low.copy_(torch.minimum(self.low, flat.amin(0)))
        self.high.copy_(torch.maximum(self.high, flat.amax(0)))

    def prior(self, previous: Tensor, context_noise: float) -> Prior:
        """The best linear guess of unit-scale latents from those of the frame before.

        previous: (..., N, D), with the noise level 1 - `context_noise`.
        """
        signal, noise = 1 - context_noise, context_noise
        power = signal**2 + noise**2
        gain = self.persistence * signal / power
        spread = (1 - self.persistence.square() * signal**2 / power).clamp(min=SMALLEST_SPREAD**2).sqrt()
        return Prior(gain * previous, spread)

    def to_unit(self, latents: Tensor) -> Tensor:
        """Raw -> unit scale, (..., N, D)."""
        return (latents - self.mean) / self.std

    def from_unit(self, latents: Tensor) -> Tensor:
        """Unit scale -> raw, (..., N, D)."""
        return latents * self.std + self.mean

    def clamp(self, latents: Tensor) -> Tensor:
        """Unit-scale latents held within the range of the training data."""
        return latents.clamp(self.low, self.high)
