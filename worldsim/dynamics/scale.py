"""The one place where tokenizer latents become unit-scale latents and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LatentScale(nn.Module):
    """Per-channel mean and standard deviation of the training latents, and the range they stay in.

    mean, std, low, high: (D,) float32; low and high bound unit-scale latents, so that a dream cannot leave the range
    in which the decoder was trained.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("low", torch.full((channels,), -10.0))
        self.register_buffer("high", torch.full((channels,), 10.0))

    @torch.no_grad()
    def fit(self, latents: Tensor) -> None:
        """Measure raw latents (..., D)."""
        flat = latents.flatten(0, -2).float()
        self.mean.copy_(flat.mean(0))
        self.std.copy_(flat.std(0).clamp(min=1e-3))
        self.low.copy_((flat.amin(0) - self.mean) / self.std)
        self.high.copy_((flat.amax(0) - self.mean) / self.std)

    def to_unit(self, latents: Tensor) -> Tensor:
        """Raw -> unit scale, (..., D)."""
        return (latents - self.mean) / self.std

    def from_unit(self, latents: Tensor) -> Tensor:
        """Unit scale -> raw, (..., D)."""
        return latents * self.std + self.mean

    def clamp(self, latents: Tensor) -> Tensor:
        """Unit-scale latents held within the range of the training data."""
        return latents.clamp(self.low, self.high)
