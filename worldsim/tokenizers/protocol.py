"""What every tokenizer offers."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Tokenizer(Protocol):
    """Frames to latent tokens and back. Implementations are `torch.nn.Module`s; once trained they are frozen."""

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(N, D)."""

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, cols) of latent tokens over the frame; rows * cols = N, row by row."""

    def encode(self, frames: Tensor) -> Tensor:
        """uint8 frames (..., H, W, C) -> float32 latents (..., N, D) of order 1. ValueError for another shape."""

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (..., N, D) -> uint8 frames (..., H, W, C). ValueError for another shape."""


def check_frames(frames: Tensor, frame_shape: tuple[int, int, int]) -> None:
    """ValueError unless `frames` end in `frame_shape`; the message has both shapes."""
    if frames.ndim < 3 or tuple(frames.shape[-3:]) != frame_shape:
        raise ValueError(f"frames must have shape (..., {_join(frame_shape)}), got {tuple(frames.shape)}")


def check_latents(latents: Tensor, latent_shape: tuple[int, int]) -> None:
    """ValueError unless `latents` end in `latent_shape`; the message has both shapes."""
    if latents.ndim < 2 or tuple(latents.shape[-2:]) != latent_shape:
        raise ValueError(f"latents must have shape (..., {_join(latent_shape)}), got {tuple(latents.shape)}")


def _join(shape: tuple[int, ...]) -> str:
    return ", ".join(str(size) for size in shape)
