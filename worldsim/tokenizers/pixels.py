"""The tokenizer that changes nothing: a latent token is a patch of pixels in [-1, 1]."""

from __future__ import annotations

from torch import Tensor, nn

from worldsim.tokenizers.config import TokenizerConfig
from worldsim.tokenizers.patches import from_patches, patch_grid, to_patches
from worldsim.tokenizers.pixel_range import to_model_range, to_uint8
from worldsim.tokenizers.protocol import check_frames, check_latents


class PixelTokenizer(nn.Module):
    """Lossless, without weights: N = (H / patch) * (W / patch), D = patch * patch * C."""

    def __init__(self, config: TokenizerConfig, frame_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.config = config
        self.frame_shape = frame_shape
        self.grid = patch_grid(frame_shape, config.patch)
        self.latent_shape = (self.grid[0] * self.grid[1], config.patch**2 * frame_shape[2])

    def encode(self, frames: Tensor) -> Tensor:
        """uint8 frames (..., H, W, C) -> float32 latents (..., N, D) in [-1, 1]."""
        check_frames(frames, self.frame_shape)
        patches = to_patches(frames.reshape(-1, *self.frame_shape), self.config.patch)
        return to_model_range(patches).reshape(*frames.shape[:-3], *self.latent_shape)  # (..., N, D)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (..., N, D) -> uint8 frames (..., H, W, C)."""
        check_latents(latents, self.latent_shape)
        patches = to_uint8(latents).reshape(-1, *self.latent_shape)
        frames = from_patches(patches, self.frame_shape, self.config.patch)
        return frames.reshape(*latents.shape[:-2], *self.frame_shape)  # (..., H, W, C)
