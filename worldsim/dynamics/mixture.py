"""Mixtures of normal distributions, one for each number to be predicted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LOG_STD_RANGE = (-5.0, 3.0)  # of unit-scale latents: what hardly varies must not drown the rest of the likelihood
COLDEST = 1e-6  # temperature at which the likeliest component is certain


@dataclass(frozen=True)
class Mixture:
    """F numbers, independent of each other, each with K normal components. logits, means, log_stds: (..., F, K)."""

    logits: Tensor
    means: Tensor
    log_stds: Tensor

    def negative_log_likelihood(self, values: Tensor) -> Tensor:
        """-log p of values (..., F), in nats, (..., F) (Bishop 1994, "Mixture density networks")."""
        distance = (values[..., None] - self.means) * (-self.log_stds).exp()
        log_density = -0.5 * distance.square() - self.log_stds - 0.5 * math.log(2 * math.pi)
        return -torch.logsumexp(self.logits.log_softmax(-1) + log_density, dim=-1)

    def mean(self) -> Tensor:
        """Expected values (..., F)."""
        return (_shares(self.logits) * self.means.mT).sum(-2)

    def variance(self) -> Tensor:
        """Variances (..., F) of the whole mixture."""
        shares, means = _shares(self.logits), self.means.mT
        square = (shares * (means.square() + (2 * self.log_stds).exp().mT)).sum(-2)
        return (square - (shares * means).sum(-2).square()).clamp(min=0)

    def sample(self, choice: Tensor, noise: Tensor, temperature: float | Tensor) -> Tensor:
        """Values (..., F). choice, noise: (..., F), unit normal: the first picks the component, the second its value.

        temperature: one for all, or (..., 1). It divides the logits and multiplies the variance (Ha & Schmidhuber 2018,
        arXiv 1803.10122, after Ha & Eck 2017, arXiv 1704.03477); at 0 the answer is the mean of the likeliest
        component.
        """
        warmth = torch.as_tensor(temperature, dtype=torch.float64, device=noise.device)
        below = _shares((self.logits / warmth.clamp(min=COLDEST)[..., None]).float()).cumsum(-2)[..., :-1, :]
        index = (torch.special.ndtr(choice)[..., None, :] > below).sum(-2)[..., None]
        mean, log_std = (part.gather(-1, index)[..., 0] for part in (self.means, self.log_stds))
        return mean + log_std.exp() * warmth.sqrt().float() * noise


def _shares(logits: Tensor) -> Tensor:
    """What each component weighs, (..., K, F) of (..., F, K): torch is ten times as fast along an axis that is not the
    last one, when it is as short as this.
    """
    return logits.mT.softmax(-2)
