"""Frames cut into square patches, and put together again."""

from __future__ import annotations

from torch import Tensor

from worldsim.errors import UserError


def patch_grid(frame_shape: tuple[int, int, int], patch: int) -> tuple[int, int]:
    """(rows, cols) of patches of `patch` x `patch` pixels; UserError when they do not cover the frame exactly."""
    height, width, _ = frame_shape
    if patch < 1 or height % patch or width % patch:
        raise UserError(
            f"tokenizer.patch={patch} must divide the frame's height {height} and width {width}: "
            "choose another patch or frame size"
        )
    return height // patch, width // patch


def to_patches(frames: Tensor, patch: int) -> Tensor:
    """(B, H, W, C) -> (B, rows * cols, patch * patch * C), patches row by row."""
    batch, height, width, channels = frames.shape
    rows, cols = height // patch, width // patch
    cut = frames.reshape(batch, rows, patch, cols, patch, channels)
    return cut.transpose(2, 3).reshape(batch, rows * cols, patch * patch * channels)  # (B, rows * cols, p * p * C)


def from_patches(patches: Tensor, frame_shape: tuple[int, int, int], patch: int) -> Tensor:
    """The inverse of `to_patches`: (B, rows * cols, patch * patch * C) -> (B, H, W, C)."""
    height, width, channels = frame_shape
    cut = patches.reshape(-1, height // patch, width // patch, patch, patch, channels)
    return cut.transpose(2, 3).reshape(-1, height, width, channels)  # (B, H, W, C)
