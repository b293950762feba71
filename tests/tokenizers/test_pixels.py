from __future__ import annotations

import pytest
import torch

from worldsim.tokenizers.build import build_tokenizer, tokenizer_fingerprint
from worldsim.tokenizers.config import TokenizerConfig
from worldsim.tokenizers.patches import from_patches, to_patches
from worldsim.tokenizers.pixel_range import to_model_range, to_uint8
from worldsim.tokenizers.protocol import Tokenizer

FRAME_SHAPE = (16, 24, 3)


def test_every_value_survives_the_model_range() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    scaled = to_model_range(values)
    assert scaled.dtype == torch.float32
    assert (scaled[0].item(), scaled[255].item()) == (-1.0, 1.0)
    assert torch.equal(to_uint8(scaled), values)


def test_values_outside_the_model_range_are_clipped() -> None:
    assert to_uint8(torch.tensor([-7.0, -1.0, 0.0, 1.0, 7.0])).tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("patch", [1, 2, 8])
def test_the_round_trip_is_bit_exact(patch: int) -> None:
    tokenizer = build_tokenizer(TokenizerConfig(kind="pixels", patch=patch), FRAME_SHAPE)
    assert isinstance(tokenizer, Tokenizer)
    frames = torch.randint(0, 256, (2, 5, *FRAME_SHAPE), dtype=torch.uint8)
    latents = tokenizer.encode(frames)
    assert tokenizer.grid == (16 // patch, 24 // patch)
    assert latents.shape == (2, 5, 16 * 24 // patch**2, patch**2 * 3)
    assert latents.dtype == torch.float32
    assert torch.equal(tokenizer.decode(latents), frames)


def test_half_precision_latents_lose_no_pixel() -> None:
    """The latent cache stores float16."""
    tokenizer = build_tokenizer(TokenizerConfig(kind="pixels"), FRAME_SHAPE)
    frames = torch.arange(16 * 24 * 3).remainder(256).to(torch.uint8).reshape(1, *FRAME_SHAPE)
    assert torch.equal(tokenizer.decode(tokenizer.encode(frames).half()), frames)


def test_patches_are_row_by_row() -> None:
    frames = torch.arange(16 * 24 * 3).reshape(1, *FRAME_SHAPE)
    patches = to_patches(frames, 8)
    assert torch.equal(patches[0, 4].reshape(8, 8, 3), frames[0, 8:16, 8:16])  # second row, second column of 2 x 3
    assert torch.equal(from_patches(patches, FRAME_SHAPE, 8), frames)


def test_errors_name_expected_and_given_shape() -> None:
    tokenizer = build_tokenizer(TokenizerConfig(kind="pixels"), FRAME_SHAPE)
    with pytest.raises(ValueError, match=r"\(\.\.\., 16, 24, 3\), got \(16, 16, 3\)"):
        tokenizer.encode(torch.zeros(16, 16, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\(\.\.\., 6, 192\), got \(192, 6\)"):
        tokenizer.decode(torch.zeros(192, 6))


def test_fingerprint_depends_on_the_patch() -> None:
    names = {
        tokenizer_fingerprint(build_tokenizer(TokenizerConfig(kind="pixels", patch=patch), FRAME_SHAPE))
        for patch in (2, 4, 8)
    }
    assert len(names) == 3
