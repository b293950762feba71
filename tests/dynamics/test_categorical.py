"""Draws of codes have the probabilities that they should have."""

from __future__ import annotations

import pytest
import torch

from worldsim.dynamics.categorical import draw, entropy

SHARES = torch.tensor([0.1, 0.6, 0.0, 0.3])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.3])
def test_frequencies_are_those_of_the_tempered_distribution(temperature: float) -> None:
    noise = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    drawn = draw(SHARES.log().expand(len(noise), 4), noise, temperature)
    expected = SHARES ** (1 / temperature)
    found = torch.bincount(drawn, minlength=4) / len(noise)
    torch.testing.assert_close(found, expected / expected.sum(), atol=0.005, rtol=0)


def test_at_temperature_zero_the_likeliest_is_certain() -> None:
    noise = torch.tensor([-6.0, -1.0, 0.0, 1.0, 6.0])
    assert (draw(SHARES.log().expand(5, 4), noise, torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0])) == 1).all()


def test_the_extremes_of_the_noise_pick_what_is_possible() -> None:
    logits = torch.full((2, 1000), -200.0)
    logits[:, 200:800] = 0.0  # sums of 600 shares are rounded
    assert draw(logits, torch.tensor([-7.0, 7.0]), 1.0).tolist() == [200, 799]


def test_entropy() -> None:
    assert float(entropy(torch.zeros(8))) == pytest.approx(3 * torch.log(torch.tensor(2.0)).item())
    assert float(entropy(torch.tensor([0.0, -1e4]))) == pytest.approx(0.0)
