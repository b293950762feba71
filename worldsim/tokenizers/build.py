"""A tokenizer from its settings, and its name from its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import cast

import torch
from torch import Tensor, nn

from worldsim.errors import UserError
from worldsim.tokenizers.config import TokenizerConfig
from worldsim.tokenizers.convolutional import ConvolutionalTokenizer
from worldsim.tokenizers.pixels import PixelTokenizer
from worldsim.tokenizers.protocol import Tokenizer
from worldsim.tokenizers.vector_quantised import VqTokenizer
from worldsim.tokenizers.vit import VitTokenizer

AnyTokenizer = VitTokenizer | PixelTokenizer | ConvolutionalTokenizer | VqTokenizer
TOKENIZERS: dict[str, Callable[[TokenizerConfig, tuple[int, int, int]], AnyTokenizer]] = {
    "vit": VitTokenizer,
    "pixels": PixelTokenizer,
    "convolutional": ConvolutionalTokenizer,
    "vq": VqTokenizer,
}
# Fields that say what the tokenizer computes; the others only say how it came about, or show in a weight's shape.
_ARCHITECTURE = ("kind", "patch", "merge", "channels", "width", "encoder_layers", "decoder_layers", "heads")


def build_tokenizer(config: TokenizerConfig, frame_shape: tuple[int, int, int]) -> AnyTokenizer:
    """A fresh tokenizer for frames of `frame_shape` (H, W, C), weights drawn from torch's global generator.

    Raises UserError for an unknown kind and for sizes that do not divide.
    """
    if config.kind not in TOKENIZERS:
        raise UserError(f"tokenizer.kind={config.kind!r} is unknown: choose one of {', '.join(TOKENIZERS)}")
    height, width, channels = frame_shape
    return TOKENIZERS[config.kind](config, (int(height), int(width), int(channels)))


def code_vectors(tokenizer: Tokenizer) -> Tensor | None:
    """The codes (K, D) that are all the latent tokens there are; None where tokens may be anything."""
    return tokenizer.codebook.codes if isinstance(tokenizer, VqTokenizer) else None


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """16 hex digits: sha256 over architecture, frame shape and every weight. Equal latents <=> equal fingerprint."""
    module = cast(AnyTokenizer, tokenizer)
    settings = {key: value for key, value in asdict(module.config).items() if key in _ARCHITECTURE}
    digest = hashlib.sha256(json.dumps([settings, list(module.frame_shape)], sort_keys=True, default=list).encode())
    for name, tensor in sorted(cast(nn.Module, module).state_dict().items()):
        raw = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {raw.dtype} {tuple(raw.shape)}".encode())
        digest.update(raw.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
