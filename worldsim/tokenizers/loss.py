"""Reconstruction loss that does not let small moving things vanish.

A plain L1 + L2 autoencoder reaches a high PSNR while it erases what covers a few pixels, because those pixels hardly
count in the mean. Here each pixel counts by how much it stands out from its neighbourhood in the real frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from worldsim.tokenizers.pixel_range import MODEL_PEAK_TO_PEAK

BLUR_PIXELS = 9
DETAIL_CONTRAST = 0.25  # pixels of at least this local contrast count as detail


@dataclass(frozen=True)
class ReconstructionLoss:
    """loss: scalar to minimise. squared_error: scalar, detached, mean of (reconstruction - frame)^2, unweighted."""

    loss: Tensor
    squared_error: Tensor


def reconstruction_loss(reconstruction: Tensor, frames: Tensor, contrast_weight: float) -> ReconstructionLoss:
    """Mean of w * (|d| + 2 d^2), d = reconstruction - frames; both float32 (B, H, W, C), frames in [-1, 1].

    w = 1 + contrast_weight * local_contrast(frames).
    """
    error = reconstruction - frames
    squared = error.square()
    per_pixel = (error.abs() + 2.0 * squared).mean(-1)  # (B, H, W)
    weight = 1.0 + contrast_weight * local_contrast(frames)
    return ReconstructionLoss((weight * per_pixel).mean(), squared.detach().mean())


@torch.no_grad()
def local_contrast(frames: Tensor) -> Tensor:
    """How much each pixel stands out: clamp(2 max_c |x - boxblur9(x)|, 0, 1); (B, H, W, C) in [-1, 1] -> (B, H, W)."""
    x = frames.movedim(-1, 1)  # (B, C, H, W)
    down, across = (_blur_matrix(size, frames.device) for size in x.shape[-2:])
    blurred = down @ x @ across.T  # two small matrix products: far cheaper on a CPU than a 9x9 pooling
    return (x - blurred).abs_().amax(1).mul_(2.0).clamp_(0.0, 1.0)


def psnr(squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error in model range."""
    return float(10.0 * torch.log10(torch.tensor(MODEL_PEAK_TO_PEAK**2 / max(squared_error, 1e-12))))


def reconstruction_psnr(reconstruction: Tensor, frames: Tensor) -> tuple[float, float | None]:
    """PSNR in dB over frames (B, H, W, C) in [-1, 1]: of all pixels, and of those that stand out, None without any."""
    squared = (reconstruction - frames).square().mean(-1)  # (B, H, W)
    detail = local_contrast(frames) >= DETAIL_CONTRAST
    return psnr(float(squared.mean())), psnr(float(squared[detail].mean())) if bool(detail.any()) else None


@lru_cache(maxsize=16)
def _blur_matrix(size: int, device: torch.device) -> Tensor:
    """(size, size): row i averages the BLUR_PIXELS entries around i; past an edge, the edge entry is repeated."""
    matrix = torch.zeros(size, size, dtype=torch.float32)
    rows = torch.arange(size)
    for offset in range(-(BLUR_PIXELS // 2), BLUR_PIXELS // 2 + 1):
        matrix[rows, (rows + offset).clamp(0, size - 1)] += 1.0 / BLUR_PIXELS
    return matrix.to(device)
