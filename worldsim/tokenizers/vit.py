"""The default tokenizer: a masked ViT autoencoder with a tanh bottleneck."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldsim.errors import UserError
from worldsim.tokenizers.config import TokenizerConfig
from worldsim.tokenizers.patches import from_patches, patch_grid, to_patches
from worldsim.tokenizers.pixel_range import to_model_range, to_uint8
from worldsim.tokenizers.protocol import check_frames, check_latents
from worldsim.tokenizers.transformer import MLP_RATIO, Transformer, init_linear


class VitTokenizer(nn.Module):
    """Patches -> transformer -> groups of `merge` patches -> tanh -> the same way back.

    With decoder "latents" the way back is a transformer over the N latent tokens and a network of one hidden layer
    that draws each of them as a whole: a fifth of the cost where a token holds eight patches.

    P patches per frame; N = P / (merge rows * merge cols) latent tokens of D channels each, row by row over the grid.
    Weights are fp32; under autocast, or with the module cast to bf16, it computes in bf16. Latents are always float32.
    """

    def __init__(self, config: TokenizerConfig, frame_shape: tuple[int, int, int]) -> None:
        super().__init__()
        rows, cols = patch_grid(frame_shape, config.patch)
        merge_rows, merge_cols = _checked_merge(config.merge, rows, cols)
        if config.width % config.heads:
            raise UserError(f"tokenizer.width={config.width} must be a multiple of tokenizer.heads={config.heads}")
        self.config = config
        self.frame_shape = frame_shape
        self.grid = (rows // merge_rows, cols // merge_cols)
        self.latent_shape = (self.grid[0] * self.grid[1], config.channels)
        self._merge = (merge_rows, merge_cols)
        self._patches = rows * cols

        width, patch_values = config.width, config.patch**2 * frame_shape[2]
        self.embed = nn.Linear(patch_values, width)
        self.mask_token = nn.Parameter(torch.empty(width))
        self.encoder_positions = nn.Parameter(torch.empty(rows * cols, width))
        self.encoder = Transformer(width, config.heads, config.encoder_layers)
        self.to_latent = nn.Linear(merge_rows * merge_cols * width, config.channels)
        merged = merge_rows * merge_cols
        self.decoder = Transformer(width, config.heads, config.decoder_layers)
        if config.decoder == "latents":
            self.from_latent = nn.Linear(config.channels, width)
            self.decoder_positions = nn.Parameter(torch.empty(self.latent_shape[0], width))
            self.hidden = nn.Linear(width, MLP_RATIO * width)
            self.to_pixels = nn.Linear(MLP_RATIO * width, merged * patch_values)
        elif config.decoder == "patches":
            self.from_latent = nn.Linear(config.channels, merged * width)
            self.decoder_positions = nn.Parameter(torch.empty(rows * cols, width))
            self.to_pixels = nn.Linear(width, patch_values)
        else:
            raise UserError(f"tokenizer.decoder={config.decoder!r} is unknown: choose patches or latents")
        self.init_weights()

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw every weight.

        Linear weights ~ N(0, 1 / fan_in), biases 0, branches as in `Transformer.init_weights`; positions and the mask
        token ~ N(0, 0.1^2); the pixel head a tenth of its fan-in scale, so that training starts from grey.
        """
        for tensor in (self.mask_token, self.encoder_positions, self.decoder_positions):
            tensor.normal_(0.0, 0.1, generator=generator)
        for linear in (self.embed, self.to_latent, self.from_latent):
            init_linear(linear, 1.0, generator)
        if self.config.decoder == "latents":
            init_linear(self.hidden, 1.0, generator)
        init_linear(self.to_pixels, 0.1, generator)
        for transformer in (self.encoder, self.decoder):
            transformer.init_weights(generator)

    def encode(self, frames: Tensor) -> Tensor:
        """uint8 frames (..., H, W, C) -> float32 latents (..., N, D) in [-1, 1]. Nothing is masked."""
        check_frames(frames, self.frame_shape)
        latents = self.encode_range(to_model_range(frames.reshape(-1, *self.frame_shape)))
        return latents.reshape(*frames.shape[:-3], *self.latent_shape)  # (..., N, D)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (..., N, D) -> uint8 frames (..., H, W, C)."""
        check_latents(latents, self.latent_shape)
        # Bytes are put in their places, not floats: a quarter of what there is to move.
        frames = self._put_together(to_uint8(self._draw(latents.reshape(-1, *self.latent_shape))))
        return frames.reshape(*latents.shape[:-2], *self.frame_shape)  # (..., H, W, C)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Frames float32 (B, H, W, C) in [-1, 1] -> their reconstruction, same shape, not clipped.

        mask: bool (B, P), True where a patch is hidden from the encoder (see `draw_mask`); None hides nothing.
        """
        return self.decode_range(self.encode_range(frames, mask))

    def encode_range(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Frames float32 (B, H, W, C) in [-1, 1] -> float32 latents (B, N, D) in [-1, 1]."""
        x = self.embed(to_patches(frames, self.config.patch).to(self.embed.weight.dtype))  # (B, P, M)
        if mask is not None:
            if tuple(mask.shape) != (len(frames), self._patches):
                raise ValueError(f"mask must have shape {(len(frames), self._patches)}, got {tuple(mask.shape)}")
            x = torch.where(mask.unsqueeze(-1), self.mask_token.to(x.dtype), x)
        x = self.encoder(x + self.encoder_positions.to(x.dtype))
        latents: Tensor = self.to_latent(self._group(x))
        return latents.float().tanh()  # (B, N, D)

    def decode_range(self, latents: Tensor) -> Tensor:
        """Latents (B, N, D) -> float32 frames (B, H, W, C), not clipped to [-1, 1]."""
        return self._put_together(self._draw(latents).float())

    def draw_mask(self, batch: int, generator: torch.Generator) -> Tensor:
        """Bool (batch, P) on the generator's device: each image hides each patch with its own p ~ U(0, mask_max)."""
        device = generator.device
        share = torch.rand(batch, 1, generator=generator, device=device) * self.config.mask_max
        return torch.rand(batch, self._patches, generator=generator, device=device) < share

    def _draw(self, latents: Tensor) -> Tensor:
        """Latents (B, N, D) -> what is drawn of each token (B, N, merged K), or of each patch (B, P, K)."""
        x = self.from_latent(latents.to(self.from_latent.weight.dtype))  # (B, N, merged M), or (B, N, M)
        if self.config.decoder == "patches":
            x = self._ungroup(x)  # (B, P, M)
        x = self.decoder(x + self.decoder_positions.to(x.dtype))
        drawn: Tensor = self.to_pixels(F.gelu(self.hidden(x)) if self.config.decoder == "latents" else x)
        return drawn

    def _put_together(self, drawn: Tensor) -> Tensor:
        """What `_draw` gives, in any dtype -> frames (B, H, W, C)."""
        patches = self._ungroup(drawn) if self.config.decoder == "latents" else drawn
        return from_patches(patches, self.frame_shape, self.config.patch)

    def _group(self, x: Tensor) -> Tensor:
        """(B, P, M) -> (B, N, merge rows * merge cols * M)."""
        (rows, cols), (merge_rows, merge_cols), width = self.grid, self._merge, x.shape[-1]
        cells = x.reshape(len(x), rows, merge_rows, cols, merge_cols, width).transpose(2, 3)
        return cells.reshape(len(x), rows * cols, merge_rows * merge_cols * width)

    def _ungroup(self, x: Tensor) -> Tensor:
        """The inverse of `_group`: (B, N, merge rows * merge cols * K) -> (B, P, K)."""
        (rows, cols), (merge_rows, merge_cols) = self.grid, self._merge
        cells = x.reshape(len(x), rows, cols, merge_rows, merge_cols, -1).transpose(2, 3)
        return cells.reshape(len(x), self._patches, -1)


def _checked_merge(merge: list[int], rows: int, cols: int) -> tuple[int, int]:
    if len(merge) != 2 or min(merge) < 1 or rows % merge[0] or cols % merge[1]:
        raise UserError(
            f"tokenizer.merge={list(merge)} must be [rows, cols] that divide the {rows}x{cols} grid of patches, "
            "e.g. [2,2] or [1,1]"
        )
    return merge[0], merge[1]
