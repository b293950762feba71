"""Weights on the loss of each noise level."""

from __future__ import annotations

import pytest
import torch

from benchmarks.loss_weights import WEIGHTS, velocity_weight
from worldsim import diffusion


@pytest.mark.parametrize("name", sorted(WEIGHTS))
@pytest.mark.parametrize("finest_steps", [1, 2, 4, 16])
def test_every_weight_is_one_on_average(name: str, finest_steps: int) -> None:
    tau = torch.arange(finest_steps).float() / finest_steps
    assert float(WEIGHTS[name](tau, finest_steps).mean()) == pytest.approx(1.0, rel=1e-5)


def test_velocity_weight_turns_errors_of_clean_data_into_errors_of_velocity() -> None:
    finest_steps = 4
    tau = torch.arange(finest_steps).float()[None] / finest_steps  # (1, T)
    clean, noise, guess = (torch.randn(1, finest_steps, 3, 5) for _ in range(3))
    noisy = diffusion.corrupt(clean, noise, tau)
    velocity = (guess - noisy) / (1 - tau[..., None, None])  # what leads from the noisy data to the guess
    error = (velocity - (clean - noise)).square().mean((-1, -2))
    expected = velocity_weight(tau, finest_steps) * (guess - clean).square().mean((-1, -2))
    assert torch.allclose(error / error.sum(), expected / expected.sum(), atol=1e-5)
