"""Draws from distributions over codes."""

from __future__ import annotations

import torch
from torch import Tensor

from worldsim.dynamics.mixture import COLDEST


def draw(logits: Tensor, noise: Tensor, temperature: float | Tensor) -> Tensor:
    """Indices int64 (...) with probabilities softmax(logits / temperature), logits (..., K).

    noise: (...), unit normal: through the normal distribution function it is the uniform number that picks the index.
    temperature: one for all, or (...); at 0 the likeliest index is certain. In float64, so that no improbable index is
    picked because a sum of many probabilities was rounded.
    """
    warmth = torch.as_tensor(temperature, dtype=torch.float64, device=logits.device).clamp(min=COLDEST)
    below = (logits.double() / warmth[..., None]).softmax(-1).cumsum(-1)[..., :-1]
    return (torch.special.ndtr(noise.double())[..., None] > below).sum(-1)


def entropy(logits: Tensor) -> Tensor:
    """Of softmax(logits), in nats: (..., K) -> (...)."""
    log_shares = logits.log_softmax(-1)
    return -(log_shares.exp() * log_shares).sum(-1)
