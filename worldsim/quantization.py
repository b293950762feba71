"""Matrices as 8-bit integers with a scale per row, so that a released model is a quarter of its size."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

SCALE_SUFFIX = ":scale"


def quantize(tensors: dict[str, Tensor], exact: Collection[str] = ()) -> dict[str, Tensor]:
    """Every float matrix as int8 beside `name:scale` (rows, 1) float32; those named in `exact` and the rest unchanged.

    The error of an entry is at most half a step, 1 / 254 of its row's largest magnitude.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or not tensor.is_floating_point() or name in exact:
            packed[name] = tensor
            continue
        scale = tensor.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
        packed[name] = (tensor.float() / scale).round().to(torch.int8)
        packed[name + SCALE_SUFFIX] = scale
    return packed


def dequantize(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `quantize` up to its error; tensors without a scale pass as they are."""
    return {
        name: tensor.float() * tensors[name + SCALE_SUFFIX] if name + SCALE_SUFFIX in tensors else tensor
        for name, tensor in tensors.items()
        if not name.endswith(SCALE_SUFFIX)
    }
