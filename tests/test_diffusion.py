"""Paths, targets and samplers against closed forms; no network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldsim import diffusion


def gaussian_denoiser(mean: float, std: float) -> diffusion.Denoiser:
    """The exact E[clean | noisy] for clean ~ N(mean, std^2)."""

    def denoise(noisy: Tensor, tau: Tensor, step_size: Tensor) -> Tensor:
        level = tau[..., None, None]
        variance = (level * std) ** 2 + (1 - level) ** 2
        return mean + level * std**2 / variance * (noisy - level * mean)

    return denoise


def test_corrupt_goes_from_noise_to_data() -> None:
    clean, noise = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    assert torch.equal(diffusion.corrupt(clean, noise, torch.zeros(2, 3)), noise)
    assert torch.allclose(diffusion.corrupt(clean, noise, torch.ones(2, 3)), clean, atol=1e-6)
    half = diffusion.corrupt(clean, noise, torch.full((2, 3), 0.9))
    assert torch.allclose(half, 0.9 * clean + 0.1 * noise, atol=1e-6)


def test_many_steps_reach_the_gaussian() -> None:
    noise = torch.randn(1, 20_000, 1, 1, generator=torch.Generator().manual_seed(0))
    drawn = diffusion.sample(gaussian_denoiser(2.0, 0.5), noise, 64).latents
    assert drawn.mean().item() == pytest.approx(2.0, abs=0.02)
    assert drawn.std().item() == pytest.approx(0.5, abs=0.02)


def test_one_step_gives_the_mean() -> None:
    drawn = diffusion.sample(gaussian_denoiser(2.0, 0.5), torch.randn(1, 100, 1, 1), 1)
    assert torch.allclose(drawn.latents, torch.full_like(drawn.latents, 2.0), atol=1e-5)
    assert torch.equal(drawn.movement, torch.zeros(1, 100))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_shortcut_target_leads_where_two_half_steps_lead(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    levels = diffusion.draw_shortcut_levels(4, 50, 8, generator)
    noisy = torch.randn(4, 50, 2, 3, generator=generator)
    denoise = gaussian_denoiser(-1.0, 0.7)
    target = diffusion.shortcut_target(denoise, noisy, levels)
    one = diffusion.euler_step(noisy, target, levels.tau, levels.step_size)
    half = levels.step_size / 2
    middle = diffusion.euler_step(noisy, denoise(noisy, levels.tau, half), levels.tau, half)
    two = diffusion.euler_step(middle, denoise(middle, levels.tau + half, half), levels.tau + half, half)
    assert torch.allclose(one, two, atol=1e-4)


def test_shortcut_levels_stand_on_their_own_grid() -> None:
    levels = diffusion.draw_shortcut_levels(64, 64, 8, torch.Generator().manual_seed(0))
    assert set(levels.step_size.unique().tolist()) == {0.25, 0.5, 1.0}
    assert torch.equal(levels.tau / levels.step_size, (levels.tau / levels.step_size).round())
    assert (levels.tau + levels.step_size <= 1).all()
    assert levels.tau.min() == 0


def test_flow_levels_are_those_at_which_a_sampler_asks() -> None:
    levels = diffusion.draw_flow_levels(64, 64, 4, torch.Generator().manual_seed(0))
    assert set(levels.tau.unique().tolist()) == {0.0, 0.25, 0.5, 0.75}
    assert (levels.step_size == 0.25).all()
    regression = diffusion.draw_flow_levels(4, 4, 1, torch.Generator().manual_seed(0))
    assert (regression.tau == 0).all()
    assert (regression.step_size == 1).all()


def test_shortcut_rows_come_first() -> None:
    levels = diffusion.draw_levels(6, 50, 4, 2, torch.Generator().manual_seed(0))
    assert (levels.step_size[:2] > 0.25).all()
    assert (levels.step_size[2:] == 0.25).all()
    assert levels.tau.shape == (6, 50)


@pytest.mark.parametrize("finest_steps", [1, 2, 8])
def test_the_ramp_weighs_one_on_average_and_rises(finest_steps: int) -> None:
    tau = torch.arange(finest_steps) / finest_steps
    weight = diffusion.ramp_weight(tau, finest_steps)
    assert weight.mean().item() == pytest.approx(1.0)
    assert torch.equal(weight, weight.sort().values)


def test_preconditioning_is_the_best_linear_guess() -> None:
    """A network that answers 0 leaves an error of exactly (spread (1 - tau))^2 / ((spread tau)^2 + (1 - tau)^2)."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.1, 1.0]).repeat_interleave(100).expand(200, 200)
    clean = spread * torch.randn(1, 4, 200, 200, generator=generator)
    tau = torch.tensor([[0.0, 0.3, 0.7, 1.0]])
    noisy = diffusion.corrupt(clean, torch.randn(clean.shape, generator=generator), tau)
    guess = diffusion.Prior(spread).clean_estimate(noisy, torch.zeros_like(noisy), tau)
    error = (guess - clean).square()
    for columns, size in ((slice(0, 100), 0.1), (slice(100, 200), 1.0)):
        expected = (size * (1 - tau)).square() / ((size * tau).square() + (1 - tau).square())
        assert torch.allclose(error[..., columns].mean(dim=(-2, -1)) / size**2, expected / size**2, atol=0.02)


def test_what_the_network_reads_has_unit_spread_at_every_noise_level() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.full((200, 200), 0.1)
    clean = spread * torch.randn(1, 4, 200, 200, generator=generator)
    tau = torch.tensor([[0.0, 0.3, 0.9, 1.0]])
    noisy = diffusion.corrupt(clean, torch.randn(clean.shape, generator=generator), tau)
    assert torch.allclose(diffusion.Prior(spread).normalised(noisy, tau).std(dim=(-2, -1)), torch.ones(1, 4), atol=0.02)
