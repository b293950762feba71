"""How near a frame comes to another: PSNR, SSIM, and the error where something moves. All in torch, frame by frame."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_PSNR = 100.0  # dB, what equal frames get
MOVED_GREY_LEVELS = 10  # a pixel moves where a channel changes by more than this from one real frame to the next


def psnr_by_frame(frames: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of uint8 frames (B, H, W, C), each on its own: (B,), at most MAX_PSNR."""
    error = (frames.float() - truth.float()).square().flatten(1).mean(1)
    return (10 * torch.log10(255.0**2 / error.clamp(min=1e-12))).clamp(max=MAX_PSNR)


def ssim_by_frame(frames: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of uint8 frames (B, H, W, C), each on its own: (B,), 1 for equal frames.

    Wang et al. 2004, equation 13, with their Gaussian window of 11 pixels (standard deviation 1.5), over the places
    where the whole window fits; frames that are smaller than the window get the largest odd one that fits.
    """
    size = min(11, *(side - (side + 1) % 2 for side in frames.shape[1:3]))
    offsets = torch.arange(size, dtype=torch.float32) - size // 2
    line = torch.exp(-offsets.square() / (2 * 1.5**2))
    window = torch.outer(line, line)[None, None] / line.sum() ** 2

    def local_mean(images: Tensor) -> Tensor:
        return F.conv2d(images.flatten(0, 1)[:, None], window).unflatten(0, images.shape[:2])

    x, y = (images.movedim(-1, 1).float() / 255 for images in (frames, truth))  # (B, C, H, W)
    mean_x, mean_y = local_mean(x), local_mean(y)
    variance_x = local_mean(x * x) - mean_x.square()
    variance_y = local_mean(y * y) - mean_y.square()
    covariance = local_mean(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (numerator / ((mean_x.square() + mean_y.square() + c1) * (variance_x + variance_y + c2))).flatten(1).mean(1)


def moving_pixels(truth: Tensor, before: Tensor) -> Tensor:
    """bool (..., H, W): where real frames (..., H, W, C) differ from the real frames `before` them."""
    return (truth.int() - before.int()).abs().amax(-1) > MOVED_GREY_LEVELS


def moving_error_by_frame(frames: Tensor, truth: Tensor, before: Tensor) -> Tensor:
    """Mean absolute error in grey levels over the moving pixels of each frame: (B,), NaN where nothing moves."""
    moving = moving_pixels(truth, before)
    error = (frames.float() - truth.float()).abs().mean(-1)
    return (error * moving).flatten(1).sum(1) / moving.flatten(1).sum(1)  # 0 / 0 is NaN
