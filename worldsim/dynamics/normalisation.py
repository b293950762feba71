"""RMSNorm with a hand-written backward pass.

PyTorch composes `rms_norm` of small operators on the CPU, in float32: forward and backward of a (480, 9, 256) bfloat16
tensor take 7.7 ms on one thread, this takes about 2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

EPSILON = 1e-6


class _RMSNorm(torch.autograd.Function):
    """y = x / sqrt(mean(x^2) + epsilon) over the last axis (Zhang & Sennrich 2019, arXiv 1910.07467, equation 4)."""

    @staticmethod
    def forward(context: Any, tokens: Tensor) -> Tensor:
        """tokens (..., M) -> (..., M)."""
        scale = _inverse_length(tokens)
        normal = tokens * scale
        context.save_for_backward(normal, scale)
        return normal

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        """dL/dx = (g - y mean(g y)) scale."""
        normal, scale = context.saved_tensors
        along = (gradient * normal).mean(dim=-1, keepdim=True)
        return torch.addcmul(gradient, normal, along, value=-1).mul_(scale)


def _inverse_length(tokens: Tensor) -> Tensor:
    precise = torch.promote_types(tokens.dtype, torch.float32)
    length = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True, dtype=precise)
    return (length.square() / tokens.shape[-1] + EPSILON).rsqrt().to(tokens.dtype)


def rms_norm(tokens: Tensor) -> Tensor:
    """Tokens (..., M) at root mean square 1 over the last axis; no gain."""
    if not torch.is_grad_enabled():  # a dream of one row is made of overhead, and an autograd function is some
        return tokens * _inverse_length(tokens)
    normal: Tensor = _RMSNorm.apply(tokens)  # type: ignore[no-untyped-call]
    return normal
