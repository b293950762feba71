"""The vector-quantised autoencoder: its codes survive the way through a dream, its gradients, its learning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tokenizers.squares import BRIGHTNESS, SIZE, SQUARE, square_frames, trained_for
from worldsim.data.store import EpisodeStore
from worldsim.dynamics.scale import LatentScale
from worldsim.errors import UserError
from worldsim.tokenizers.build import build_tokenizer, code_vectors, tokenizer_fingerprint
from worldsim.tokenizers.config import TokenizerConfig
from worldsim.tokenizers.learner import TokenizerLearner
from worldsim.tokenizers.protocol import Tokenizer
from worldsim.tokenizers.vector_quantised import AxialResidualBlock, VqTokenizer, quantise


def config(**changes: Any) -> TokenizerConfig:
    settings: dict[str, Any] = {
        "kind": "vq",
        "patch": 8,
        "channels": 8,
        "width": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "heads": 2,
        "codes": 32,
        "batch_frames": 32,
        "steps": 20,
        "warmup_steps": 5,
    }
    return TokenizerConfig(**(settings | changes))


def fresh(shape: tuple[int, int, int] = (16, 24, 3), **changes: Any) -> VqTokenizer:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(config(**changes), shape)
    assert isinstance(tokenizer, VqTokenizer)
    return tokenizer


@pytest.mark.parametrize(
    ("shape", "patch", "grid"), [((64, 64, 3), 8, (8, 8)), ((16, 48, 1), 4, (4, 12)), ((10, 10, 4), 2, (5, 5))]
)
def test_a_token_is_a_code_of_a_square(shape: tuple[int, int, int], patch: int, grid: tuple[int, int]) -> None:
    tokenizer = fresh(shape, patch=patch)
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.grid == grid
    frames = torch.randint(0, 256, (2, 3, *shape), dtype=torch.uint8)
    latents = tokenizer.encode(frames)
    assert latents.shape == (2, 3, *tokenizer.latent_shape) == (2, 3, grid[0] * grid[1], 8)
    assert latents.dtype == torch.float32
    assert torch.equal(latents, tokenizer.codebook.codes[tokenizer.indices(frames)])
    decoded = tokenizer.decode(latents)
    assert decoded.shape == frames.shape
    assert decoded.dtype == torch.uint8


@torch.no_grad()
def test_codes_survive_float16_and_the_scale_of_the_dynamics() -> None:
    tokenizer = fresh()
    codes = code_vectors(tokenizer)
    assert codes is not None
    indices = torch.randint(0, len(codes), (40, tokenizer.latent_shape[0]))
    stored = codes[indices].half().float()
    scale = LatentScale(*tokenizer.latent_shape)
    scale.fit([stored], 0.1)
    returned = scale.from_unit(scale.to_unit(stored))
    assert torch.equal(tokenizer.codebook.nearest(returned), indices)
    assert torch.equal(tokenizer.decode(returned), tokenizer.decode(codes[indices]))


@torch.no_grad()
def test_what_is_no_code_is_decoded_as_the_nearest_one() -> None:
    tokenizer = fresh()
    latents = torch.randn(3, *tokenizer.latent_shape)
    nearest = tokenizer.codebook.codes[tokenizer.codebook.nearest(latents)]
    assert not torch.equal(nearest, latents)
    assert torch.equal(tokenizer.decode(latents), tokenizer.decode(nearest))


@torch.no_grad()
def test_frames_never_read_each_other() -> None:
    tokenizer = fresh()
    frames = torch.rand(4, 16, 24, 3) * 2 - 1
    torch.testing.assert_close(tokenizer.vectors(frames)[2:3], tokenizer.vectors(frames[2:3]))


@torch.no_grad()
def test_axial_attention_joins_a_row_and_a_column() -> None:
    torch.manual_seed(0)
    block = AxialResidualBlock(8, 2)
    for convolution in (block.mix, block.point):  # of their own place only, so that attention alone carries further
        convolution.weight.zero_()
        torch.nn.init.dirac_(convolution.weight)
    block.norms = torch.nn.ModuleList(torch.nn.Identity() for _ in range(3))
    x = torch.rand(1, 8, 5, 6)
    changed = x.clone()
    changed[:, :, 2, 3] += 1
    differs = (block(x) - block(changed)).abs().amax(1)[0] > 1e-7
    expected = torch.zeros(5, 6, dtype=torch.bool)
    expected[2], expected[:, 3] = True, True
    assert torch.equal(differs, expected)


def test_gradients_pass_straight_through_and_the_codes_get_none() -> None:
    tokenizer = fresh()
    vectors = torch.randn(2, *tokenizer.latent_shape, requires_grad=True)
    quantised = quantise(vectors, tokenizer.codebook)
    torch.testing.assert_close(quantised.codes, tokenizer.codebook.codes[quantised.indices])
    weights = torch.randn_like(vectors)
    (gradient,) = torch.autograd.grad((quantised.codes * weights).sum(), vectors, retain_graph=True)
    torch.testing.assert_close(gradient, weights)
    (gradient,) = torch.autograd.grad(quantised.commitment, vectors)
    torch.testing.assert_close(gradient, 2 * (vectors - quantised.codes).detach() / vectors.numel())
    assert not any("codebook" in name for name, _ in tokenizer.named_parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": 6}, "tokenizer.patch=6: kind=vq needs a power of two"),
        ({"patch": 1}, "tokenizer.patch=1"),
        ({"patch": 16}, "height 16 and width 24"),
        ({"heads": 3}, "tokenizer.width=16 must be a multiple of tokenizer.heads=3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_tokenizer(config(**changes), (16, 24, 3))


def test_it_learns_to_draw_its_frames_with_codes(square_store: EpisodeStore) -> None:
    settings = config(steps=300, width=32, codes=64, learning_rate=3e-3)
    learner = TokenizerLearner(settings, square_store)
    before = learner.evaluate()["held_out_psnr"]
    metrics = [learner.update() for _ in range(300)]
    assert {"loss", "psnr", "commitment", "codes_in_use", "learning_rate", "grad_norm"} <= set(metrics[0])
    assert metrics[-1]["held_out_psnr"] > max(20.0, before + 8)
    assert metrics[-1]["codes_in_use"] > 8
    assert learner.images(1)["reconstruction"].shape == (4 * SIZE, 16 * SIZE, 3)
    tokenizer = learner.tokenizer
    assert isinstance(tokenizer, VqTokenizer)
    assert isinstance(learner.model, VqTokenizer)
    assert torch.equal(tokenizer.codebook.codes, learner.model.codebook.codes)
    frames, corners = square_frames(64, seed=77)  # never seen in training
    decoded = tokenizer.decode(tokenizer.encode(torch.from_numpy(frames))).numpy()
    bright = [
        picture[row : row + SQUARE, column : column + SQUARE].mean() / BRIGHTNESS
        for picture, (row, column) in zip(decoded, corners, strict=True)
    ]
    assert sum(bright) / len(bright) > 0.6  # the background is at 0.4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_twenty_steps_equal_ten_resume_and_ten_bitwise(
    dtype: torch.dtype, square_store: EpisodeStore, tmp_path: Path
) -> None:
    whole, half, halves = (
        tokenizer_fingerprint(trained_for(steps, config(), square_store, dtype, tmp_path / folder).tokenizer)
        for steps, folder in ((20, "whole"), (10, "halves"), (20, "halves"))
    )
    assert half != whole
    assert halves == whole
