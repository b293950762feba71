"""The V of Ha & Schmidhuber (2018), "World models", arXiv 1803.10122: a convolutional variational autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldsim.errors import UserError
from worldsim.tokenizers.config import TokenizerConfig
from worldsim.tokenizers.loss import local_contrast
from worldsim.tokenizers.pixel_range import MODEL_PEAK_TO_PEAK, to_model_range, to_uint8
from worldsim.tokenizers.protocol import check_frames, check_latents

FILTERS = (32, 64, 128, 256)
SMALLEST_SIDE = 4  # no layer makes frames smaller than this
FREE_NATS = 0.5  # of each latent, as in the code that came with the paper: less than this costs as much as this


@dataclass(frozen=True)
class Posterior:
    """Normal distributions of the latents given frames. mean, log_variance: float32 (B, channels)."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        """Latents (B, channels) (Kingma & Welling 2014, arXiv 1312.6114, section 2.4)."""
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device)
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def divergence(self) -> Tensor:
        """KL(posterior || N(0, 1)) in nats, summed over the latents, (B,) (arXiv 1312.6114, appendix B)."""
        return -0.5 * (1 + self.log_variance - self.mean.square() - self.log_variance.exp()).sum(-1)


class ConvolutionalTokenizer(nn.Module):
    """The whole frame is one token of `config.channels` numbers, the posterior's mean; about unit normal, unbounded.

    Convolutions of 4x4 pixels and stride 2 halve the frame while both sides are even and stay 4 or longer, four times
    at most (the paper's 64x64 frames: 4 x 4 x 256); transposed ones lead back. Only `channels` and what says how it is
    trained are used of the config. Raises UserError for frames that cannot be halved once.
    """

    def __init__(self, config: TokenizerConfig, frame_shape: tuple[int, int, int]) -> None:
        super().__init__()
        height, width, channels = frame_shape
        layers = 0
        while layers < len(FILTERS) and not (height % 2 or width % 2) and min(height, width) >= 2 * SMALLEST_SIDE:
            height, width, layers = height // 2, width // 2, layers + 1
        if not layers:
            raise UserError(
                f"tokenizer.kind=convolutional cannot halve frames of {frame_shape[0]}x{frame_shape[1]}: choose even "
                f"sides of at least {2 * SMALLEST_SIDE} pixels, or another kind"
            )
        self.config = config
        self.frame_shape = frame_shape
        self.grid = (1, 1)
        self.latent_shape = (1, config.channels)
        self._deepest = (FILTERS[layers - 1], height, width)
        sizes = [channels, *FILTERS[:layers]]
        pairs = list(pairwise(sizes))
        self.encoder = nn.ModuleList(nn.Conv2d(before, after, 4, 2, 1) for before, after in pairs)
        self.to_posterior = nn.Linear(FILTERS[layers - 1] * height * width, 2 * config.channels)
        self.from_latent = nn.Linear(config.channels, FILTERS[layers - 1] * height * width)
        self.decoder = nn.ModuleList(nn.ConvTranspose2d(after, before, 4, 2, 1) for before, after in reversed(pairs))
        self.init_weights()

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw every weight: N(0, 2 / fan_in) before a ReLU, N(0, 1 / fan_in) else, the last layer and the posterior
        a tenth of that, so that training starts from grey frames and unit variances; biases 0.
        """
        last = self.decoder[-1]
        for module in self.modules():
            if not isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                continue
            if isinstance(module, nn.Linear):
                fan_in = module.in_features
            elif isinstance(module, nn.ConvTranspose2d):
                fan_in = module.in_channels * 4  # of 16 taps, stride 2 lets 4 meet in a pixel
            else:
                fan_in = module.in_channels * 16
            gain = 0.1 if module is last or module is self.to_posterior else 2.0**0.5
            assert module.bias is not None
            module.weight.normal_(0.0, gain * fan_in**-0.5, generator=generator)
            module.bias.zero_()

    def encode(self, frames: Tensor) -> Tensor:
        """uint8 frames (..., H, W, C) -> float32 latents (..., 1, channels)."""
        check_frames(frames, self.frame_shape)
        mean = self.posterior(to_model_range(frames.reshape(-1, *self.frame_shape))).mean
        return mean.reshape(*frames.shape[:-3], *self.latent_shape)  # (..., 1, channels)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (..., 1, channels) -> uint8 frames (..., H, W, C)."""
        check_latents(latents, self.latent_shape)
        frames = to_uint8(self.decode_range(latents.reshape(-1, self.config.channels)))
        return frames.reshape(*latents.shape[:-2], *self.frame_shape)  # (..., H, W, C)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames float32 (B, H, W, C) in [-1, 1] -> their reconstruction from the mean, same shape, not clipped."""
        return self.decode_range(self.posterior(frames).mean)

    def posterior(self, frames: Tensor) -> Posterior:
        """What frames float32 (B, H, W, C) in [-1, 1] say of the latents."""
        x = frames.movedim(-1, 1).to(self.to_posterior.weight.dtype)  # (B, C, H, W)
        for layer in self.encoder:
            x = F.relu(layer(x))
        mean, log_variance = self.to_posterior(x.flatten(1)).float().chunk(2, dim=-1)
        return Posterior(mean, log_variance)

    def decode_range(self, latents: Tensor) -> Tensor:
        """Latents (B, channels) -> float32 frames (B, H, W, C), not clipped to [-1, 1]."""
        x = F.relu(self.from_latent(latents.to(self.from_latent.weight.dtype))).unflatten(1, self._deepest)
        for layer in self.decoder[:-1]:
            x = F.relu(layer(x))
        return self.decoder[-1](x).float().movedim(1, -1)  # (B, H, W, C)


@dataclass(frozen=True)
class VariationalLoss:
    """loss: scalar to minimise. squared_error: scalar, detached, mean of (reconstruction - frame)^2. divergence: nats a
    frame, detached.
    """

    loss: Tensor
    squared_error: Tensor
    divergence: Tensor


def variational_loss(
    reconstruction: Tensor, frames: Tensor, posterior: Posterior, contrast_weight: float
) -> VariationalLoss:
    """The paper's squared error of pixels in [0, 1] summed over a frame, plus the divergence, over the pixels' number.

    reconstruction, frames: float32 (B, H, W, C), frames in [-1, 1]. A pixel weighs 1 + contrast_weight *
    local_contrast(frames); the paper's weight is 0.
    """
    squared = (reconstruction - frames).square()
    weight = 1.0 + contrast_weight * local_contrast(frames)[..., None]
    numbers = squared[0].numel()
    error = (weight * squared).sum((1, 2, 3)) / MODEL_PEAK_TO_PEAK**2  # (B,)
    divergence = posterior.divergence()
    paid = divergence.clamp(min=FREE_NATS * posterior.mean.shape[-1])
    return VariationalLoss((error + paid).mean() / numbers, squared.detach().mean(), divergence.detach().mean())
