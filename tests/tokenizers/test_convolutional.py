"""The variational autoencoder: shapes, its divergence in closed form, its learning."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tokenizers.squares import SIZE
from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError
from worldsim.tokenizers.build import build_tokenizer, tokenizer_fingerprint
from worldsim.tokenizers.config import TokenizerConfig
from worldsim.tokenizers.convolutional import FREE_NATS, ConvolutionalTokenizer, Posterior, variational_loss
from worldsim.tokenizers.learner import TokenizerLearner
from worldsim.tokenizers.protocol import Tokenizer
from worldsim.training import fit


def config(channels: int = 8, steps: int = 20) -> TokenizerConfig:
    return TokenizerConfig(
        kind="convolutional", channels=channels, contrast_weight=0.0, steps=steps, batch_frames=32, warmup_steps=5
    )


@pytest.mark.parametrize(
    ("shape", "layers"), [((64, 64, 3), 4), ((16, 48, 1), 2), ((84, 84, 3), 2), ((10, 10, 4), 1), ((128, 128, 3), 4)]
)
def test_a_frame_is_one_token(shape: tuple[int, int, int], layers: int) -> None:
    tokenizer = build_tokenizer(config(), shape)
    assert isinstance(tokenizer, ConvolutionalTokenizer)
    assert isinstance(tokenizer, Tokenizer)
    assert len(tokenizer.encoder) == layers
    frames = torch.randint(0, 256, (2, 3, *shape), dtype=torch.uint8)
    latents = tokenizer.encode(frames)
    assert latents.shape == (2, 3, *tokenizer.latent_shape) == (2, 3, 1, 8)
    assert latents.dtype == torch.float32
    decoded = tokenizer.decode(latents)
    assert decoded.shape == frames.shape
    assert decoded.dtype == torch.uint8


def test_the_papers_size() -> None:
    tokenizer = build_tokenizer(config(channels=64), (64, 64, 3))
    assert isinstance(tokenizer, ConvolutionalTokenizer)
    assert tokenizer.to_posterior.in_features == 4 * 4 * 256
    assert tokenizer.latent_shape == (1, 64)


@pytest.mark.parametrize("shape", [(15, 16, 3), (6, 64, 3)])
def test_frames_that_cannot_be_halved_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match=f"{shape[0]}x{shape[1]}"):
        build_tokenizer(config(), shape)


def test_the_divergence_is_that_of_normal_distributions() -> None:
    mean, log_variance = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    normal = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(Posterior(mean, log_variance).divergence(), expected)
    assert not Posterior(torch.zeros(1, 4), torch.zeros(1, 4)).divergence().any()


def test_samples_have_the_posteriors_moments() -> None:
    posterior = Posterior(torch.full((100_000, 1), 2.0), torch.full((100_000, 1), -1.0))
    drawn = posterior.sample(torch.Generator().manual_seed(0))
    assert float(drawn.mean()) == pytest.approx(2.0, abs=0.01)
    assert float(drawn.var().log()) == pytest.approx(-1.0, abs=0.02)


def test_the_loss_is_the_papers_over_the_number_of_pixel_values() -> None:
    frames = torch.zeros(2, 9, 9, 3)
    reconstruction = frames + torch.tensor([0.5, 1.0])[:, None, None, None]  # 0.25 and 0.5 in [0, 1]
    numbers = 9 * 9 * 3
    mean = torch.tensor([[3.0, 0.0], [0.1, 0.0]])  # 4.5 nats; 0.005, less than the 1 that is free
    result = variational_loss(reconstruction, frames, Posterior(mean, torch.zeros(2, 2)), 0.0)
    expected = (numbers * 0.25**2 + 4.5 + numbers * 0.5**2 + 2 * FREE_NATS) / 2 / numbers
    assert float(result.loss) == pytest.approx(expected)
    assert float(result.divergence) == pytest.approx((4.5 + 0.005) / 2)
    assert float(result.squared_error) == pytest.approx((0.25 + 1.0) / 2)


def test_it_learns_to_draw_its_frames(square_store: EpisodeStore) -> None:
    learner = TokenizerLearner(config(channels=16, steps=300), square_store)
    before = learner.evaluate()["held_out_psnr"]
    metrics = [learner.update() for _ in range(300)]
    assert {"loss", "psnr", "divergence", "learning_rate", "grad_norm"} <= set(metrics[0])
    assert metrics[-1]["held_out_psnr"] > max(20.0, before + 8)
    assert learner.images(1)["reconstruction"].shape == (4 * SIZE, 16 * SIZE, 3)


def test_twenty_steps_equal_ten_resume_and_ten_bitwise(square_store: EpisodeStore, tmp_path: Path) -> None:
    def run(steps: int, folder: str) -> str:
        torch.manual_seed(len(folder) + steps)  # nothing may depend on the global state
        learner = TokenizerLearner(config(), square_store, seed=4)
        fit(learner, steps=steps, folder=tmp_path / folder, name="tokenizer", progress=False)
        return tokenizer_fingerprint(learner.tokenizer)

    whole = run(20, "whole")
    assert run(10, "halves") != whole
    assert run(20, "halves") == whole
