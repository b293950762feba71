"""The one place where uint8 frames and the model's range meet.

Frames are uint8 [0, 255]; the model range is float32 [-1, 1] with 0 -> -1 and 255 -> 1. Layout is never changed here.
uint8 -> model range -> uint8 is bit-exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

MODEL_PEAK_TO_PEAK = 2.0  # the width of [-1, 1], for PSNR


def to_model_range(frames: Tensor) -> Tensor:
    """uint8 frames of any shape -> float32 of the same shape in [-1, 1]."""
    if frames.dtype != torch.uint8:
        raise ValueError(f"frames must be uint8 [0, 255], got {frames.dtype}")
    return frames.float().mul_(2.0 / 255.0).sub_(1.0)


def to_uint8(values: Tensor) -> Tensor:
    """Values in model range, of any shape and float dtype -> uint8, rounded; what lies outside [-1, 1] is clipped."""
    scaled = values.to(torch.float32, copy=True)
    return scaled.add_(1.0).mul_(127.5).round_().clamp_(0.0, 255.0).to(torch.uint8)
