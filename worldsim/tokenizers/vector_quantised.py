"""The tokenizer of VideoGPT (Yan et al. 2021, arXiv 2104.10157, section 3.1), of single frames: a vector-quantised
autoencoder (van den Oord et al. 2017, arXiv 1711.00937) with residual blocks that hold axial attention.

The paper's convolutions and attention span time too. A dream answers each action with a frame, and real frames are
encoded one by one: that is the paper's network with a stride of 1 and a reach of one frame in time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldsim.codebook import Codebook
from worldsim.errors import UserError
from worldsim.tokenizers.config import TokenizerConfig
from worldsim.tokenizers.pixel_range import to_model_range, to_uint8
from worldsim.tokenizers.protocol import check_frames, check_latents
from worldsim.tokenizers.transformer import Attention, init_linear

GROUPS = 4  # of channels that are normalised together; the paper's batch norm would let frames read each other


class AxialResidualBlock(nn.Module):
    """x + attention(conv1(conv3(x))), each behind a norm and a ReLU; attention along columns plus along rows."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, width) for _ in range(3))
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.point = nn.Conv2d(width, width, 1)
        self.down = Attention(width, heads)
        self.across = Attention(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        """(B, M, rows, cols) -> (B, M, rows, cols)."""
        batch, width, rows, cols = x.shape
        first, second, third = self.norms
        y = self.point(F.relu(second(self.mix(F.relu(first(x))))))
        y = F.relu(third(y)).permute(0, 2, 3, 1)  # (B, rows, cols, M)
        across = self.across(y.reshape(batch * rows, cols, width)).view(batch, rows, cols, width)
        columns = y.transpose(1, 2).reshape(batch * cols, rows, width)
        down = self.down(columns).view(batch, cols, rows, width).transpose(1, 2)  # (B, rows, cols, M)
        return x + (across + down).permute(0, 3, 1, 2)  # (B, M, rows, cols)


class VqTokenizer(nn.Module):
    """A latent token is a code of a learnt codebook; it stands for `patch` x `patch` pixels.

    Convolutions of stride 2 shrink the frame to the grid of tokens, transposed ones lead back. Uses patch (a power of
    two), channels, width, encoder_layers and decoder_layers (residual blocks), heads, codes and what says how it is
    trained. Raises UserError for a patch or a width that does not fit.
    """

    def __init__(self, config: TokenizerConfig, frame_shape: tuple[int, int, int]) -> None:
        super().__init__()
        height, width, channels = frame_shape
        patch, model_width = config.patch, config.width
        if patch < 2 or patch & (patch - 1) or height % patch or width % patch:
            raise UserError(
                f"tokenizer.patch={patch}: kind=vq needs a power of two from 2 on that divides the frame's height "
                f"{height} and width {width}"
            )
        if model_width % config.heads or model_width % GROUPS:
            raise UserError(
                f"tokenizer.width={model_width} must be a multiple of tokenizer.heads={config.heads} and of {GROUPS}"
            )
        self.config = config
        self.frame_shape = frame_shape
        self.grid = (height // patch, width // patch)
        self.latent_shape = (self.grid[0] * self.grid[1], config.channels)
        halvings = patch.bit_length() - 1
        inputs = [channels] + [model_width] * (halvings - 1)
        self.shrink = nn.ModuleList(nn.Conv2d(before, model_width, 4, 2, 1) for before in inputs)
        self.encoder = _blocks(config.encoder_layers, model_width, config.heads)
        self.encoder_norm = nn.GroupNorm(GROUPS, model_width)
        self.to_code = nn.Conv2d(model_width, config.channels, 1)
        self.codebook = Codebook(config.codes, config.channels)
        self.from_code = nn.Conv2d(config.channels, model_width, 1)
        self.decoder = _blocks(config.decoder_layers, model_width, config.heads)
        self.decoder_norm = nn.GroupNorm(GROUPS, model_width)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(model_width, after, 4, 2, 1) for after in reversed(inputs))
        self.init_weights()

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw every weight: convolutions ~ N(0, 2 / fan_in), the layers that make codes and read them N(0, 1 /
        fan_in), the last one a tenth of that, so that training starts from grey; attention's output N(0, 0.1^2 /
        fan_in), so that blocks start nearly as identities; biases 0; the codebook as `Codebook.init_weights`.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                # Of a transposed convolution's 16 taps, stride 2 lets 4 meet in a pixel.
                taps = 4 if isinstance(module, nn.ConvTranspose2d) else module.kernel_size[0] * module.kernel_size[1]
                gain = 1.0 if module is self.to_code or module is self.from_code else 2.0**0.5
                gain = 0.1 if module is self.grow[-1] else gain
                assert module.bias is not None
                module.weight.normal_(0.0, gain * (module.in_channels * taps) ** -0.5, generator=generator)
                module.bias.zero_()
            elif isinstance(module, Attention):
                init_linear(module.qkv, 1.0, generator)
                init_linear(module.out, 0.1, generator)
        self.codebook.init_weights(generator)

    def encode(self, frames: Tensor) -> Tensor:
        """uint8 frames (..., H, W, C) -> float32 latents (..., N, D), each token one of the codes."""
        return self.codebook.codes[self.indices(frames)]

    def indices(self, frames: Tensor) -> Tensor:
        """uint8 frames (..., H, W, C) -> int64 numbers of their codes (..., N)."""
        check_frames(frames, self.frame_shape)
        indices = self.codebook.nearest(self.vectors(to_model_range(frames.reshape(-1, *self.frame_shape))))
        return indices.reshape(*frames.shape[:-3], self.latent_shape[0])  # (..., N)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (..., N, D) -> uint8 frames (..., H, W, C). Each token counts as the code nearest to it."""
        check_latents(latents, self.latent_shape)
        codes = self.codebook.codes[self.codebook.nearest(latents.reshape(-1, *self.latent_shape))]
        return to_uint8(self.decode_range(codes)).reshape(*latents.shape[:-2], *self.frame_shape)  # (..., H, W, C)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames float32 (B, H, W, C) in [-1, 1] -> their reconstruction from codes, same shape, not clipped."""
        return self.decode_range(self.codebook.codes[self.codebook.nearest(self.vectors(frames))])

    def vectors(self, frames: Tensor) -> Tensor:
        """Frames float32 (B, H, W, C) in [-1, 1] -> what is to be quantised, float32 (B, N, D)."""
        x = frames.movedim(-1, 1).to(self.to_code.weight.dtype)  # (B, C, H, W)
        for number, layer in enumerate(self.shrink):
            x = layer(x if number == 0 else F.relu(x))
        for block in self.encoder:
            x = block(x)
        return self.to_code(F.relu(self.encoder_norm(x))).float().flatten(2).transpose(1, 2)  # (B, N, D)

    def decode_range(self, codes: Tensor) -> Tensor:
        """Codes (B, N, D) -> float32 frames (B, H, W, C), not clipped to [-1, 1]."""
        x = codes.transpose(1, 2).unflatten(2, self.grid).to(self.from_code.weight.dtype)  # (B, D, rows, cols)
        x = self.from_code(x)
        for block in self.decoder:
            x = block(x)
        x = self.decoder_norm(x)
        for layer in self.grow:
            x = layer(F.relu(x))
        return x.float().movedim(1, -1)  # (B, H, W, C)


@dataclass(frozen=True)
class Quantised:
    """codes: (B, N, D), those chosen, through which gradients pass to the vectors as if they were these. indices:
    (B, N). commitment: scalar, mean squared distance of the vectors to their codes, which draws the vectors.
    """

    codes: Tensor
    indices: Tensor
    commitment: Tensor


def quantise(vectors: Tensor, codebook: Codebook) -> Quantised:
    """Vectors (B, N, D) to their nearest codes, with straight-through gradients (arXiv 1711.00937, section 3.2)."""
    indices = codebook.nearest(vectors)
    codes = codebook.codes[indices]
    return Quantised(vectors + (codes - vectors).detach(), indices, (vectors - codes).square().mean())


def _blocks(count: int, width: int, heads: int) -> nn.ModuleList:
    return nn.ModuleList(AxialResidualBlock(width, heads) for _ in range(count))
