"""Latent scale: statistics of each token by itself, and the best linear guess from the frame before."""

from __future__ import annotations

import torch

from worldsim.diffusion import corrupt
from worldsim.dynamics.scale import LatentScale


def correlated(episodes: int, steps: int, correlation: float, generator: torch.Generator) -> list[torch.Tensor]:
    """Episodes (steps, 2, 1) of unit-scale first-order autoregression."""
    result = []
    for _ in range(episodes):
        frame = torch.randn(2, 1, generator=generator)
        frames = [frame]
        for _ in range(steps - 1):
            noise = torch.randn(2, 1, generator=generator)
            frame = correlation * frame + (1 - correlation**2) ** 0.5 * noise
            frames.append(frame)
        result.append(torch.stack(frames))
    return result


def test_each_place_has_its_own_mean_and_all_share_one_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    place, size = torch.tensor([[0.9], [-0.9]]), torch.tensor([[0.1], [0.4]])
    scale = LatentScale(2, 1)
    scale.fit([place + size * episode for episode in correlated(20, 500, 0.5, generator)], context_noise=0.1)
    assert torch.allclose(scale.mean, place, atol=0.03)
    assert torch.allclose(scale.std, size.square().mean().sqrt(), rtol=0.05)
    assert torch.allclose(scale.deviation, size / scale.std, rtol=0.05)
    assert torch.allclose(scale.persistence, torch.full((2, 1), 0.5), atol=0.05)
    raw = place + size
    assert torch.allclose(scale.from_unit(scale.to_unit(raw)), raw)


def test_later_episodes_widen_the_range_and_leave_the_scale() -> None:
    scale = LatentScale(2, 1)
    scale.fit([torch.linspace(-1, 1, 9).expand(2, 9).T[..., None]], context_noise=0.1)
    std, high = scale.std.clone(), scale.high.clone()
    scale.widen([torch.full((3, 2, 1), 3.0)])
    assert torch.equal(scale.std, std)
    assert torch.allclose(scale.high, 3.0 * high)


def test_what_hardly_varies_is_not_blown_up() -> None:
    scale = LatentScale(2, 1)
    scale.fit([torch.zeros(10, 2, 1), 1e-4 * torch.ones(10, 2, 1)], context_noise=0.1)
    assert scale.std.min() >= 0.05


def test_the_expectation_knows_its_own_error() -> None:
    """Mean and spread are those of a regression on the noisy frame before."""
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor([[0.5], [1.5]])
    episodes = [size * episode for episode in correlated(20, 2000, 0.9, generator)]
    scale = LatentScale(2, 1)
    scale.fit(episodes, context_noise=0.3)
    before = torch.cat([scale.to_unit(episode[:-1]) for episode in episodes])[None]
    after = torch.cat([scale.to_unit(episode[1:]) for episode in episodes])[None]
    noisy = corrupt(before, torch.randn(before.shape, generator=generator), torch.full(before.shape[:2], 0.7))
    expected = scale.expectation(noisy, context_noise=0.3)
    error = after - expected.mean
    assert torch.allclose(error.std(dim=(0, 1)), expected.spread, rtol=0.03)
    assert torch.allclose(error.square().mean().sqrt(), scale.innovation, rtol=0.03)
    assert (error * noisy).mean().abs() < 0.02  # nothing linear is left
