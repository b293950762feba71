"""Mixtures of normal distributions: closed forms, and the moments of what is drawn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from worldsim.dynamics.mixture import Mixture


def two_components() -> Mixture:
    """One number: 0.25 N(-1, 0.5^2) + 0.75 N(3, 2^2)."""
    logits = torch.tensor([[0.25, 0.75]]).log() + 7.0  # what is common to all logits means nothing
    return Mixture(logits, torch.tensor([[-1.0, 3.0]]), torch.tensor([[0.5, 2.0]]).log())


def draw(mixture: Mixture, temperature: float, count: int = 200_000) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    many = Mixture(*(part.expand(count, *part.shape) for part in (mixture.logits, mixture.means, mixture.log_stds)))
    choice, noise = torch.randn(2, count, 1, generator=generator)
    return many.sample(choice, noise, temperature)[:, 0]


def test_one_component_has_the_likelihood_of_a_normal_distribution() -> None:
    values = torch.linspace(-3, 3, 7)[:, None]
    mixture = Mixture(torch.zeros(7, 1, 1), torch.full((7, 1, 1), 0.4), torch.full((7, 1, 1), math.log(1.7)))
    expected = -torch.distributions.Normal(0.4, 1.7).log_prob(values)
    torch.testing.assert_close(mixture.negative_log_likelihood(values), expected)


@pytest.mark.parametrize("value", [-1.0, 0.0, 3.0, 9.0])
def test_the_likelihood_is_that_of_the_weighted_sum(value: float) -> None:
    densities = [
        weight * math.exp(-0.5 * ((value - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
        for weight, mean, std in ((0.25, -1.0, 0.5), (0.75, 3.0, 2.0))
    ]
    found = two_components().negative_log_likelihood(torch.tensor([value]))
    assert float(found) == pytest.approx(-math.log(sum(densities)), rel=1e-5)


def test_mean_and_variance() -> None:
    mean = 0.25 * -1 + 0.75 * 3
    square = 0.25 * (1 + 0.25) + 0.75 * (9 + 4)
    assert float(two_components().mean()) == pytest.approx(mean)
    assert float(two_components().variance()) == pytest.approx(square - mean**2)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 1.15, 1.3])
def test_draws_have_the_moments_of_the_tempered_mixture(temperature: float) -> None:
    weights = torch.tensor([0.25, 0.75]).pow(1 / temperature)
    light, heavy = (weights / weights.sum()).tolist()
    mean = light * -1 + heavy * 3
    variance = light * (1 + 0.25 * temperature) + heavy * (9 + 4 * temperature) - mean**2
    drawn = draw(two_components(), temperature)
    assert float(drawn.mean()) == pytest.approx(mean, abs=0.03)
    assert float(drawn.var()) == pytest.approx(variance, rel=0.02)


def test_at_temperature_zero_the_likeliest_component_has_its_mean() -> None:
    assert (draw(two_components(), 0.0, 100) == 3.0).all()


def test_every_number_has_a_component_of_its_own() -> None:
    means = torch.arange(6.0).view(1, 2, 3)
    logits = torch.tensor([[[0.0, 0.0, 50.0], [50.0, 0.0, 0.0]]])
    drawn = Mixture(logits, means, torch.full((1, 2, 3), -5.0)).sample(torch.randn(1, 2), torch.zeros(1, 2), 1.0)
    assert drawn.tolist() == [[2.0, 3.0]]
