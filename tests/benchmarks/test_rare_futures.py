"""What a sampler of few steps does to rare futures, with an exact denoiser."""

from __future__ import annotations

import pytest
import torch

from benchmarks.rare_futures import SPREAD, draw, kept_over_cases, two_futures


def test_many_steps_draw_events_as_often_as_they_happen() -> None:
    drawn = draw(size=9.0, probability=0.1, steps=256, noise_scale=4.0, temperature=1.0, draws=20_000)
    assert float((drawn > 0.5).float().mean()) == pytest.approx(0.1, abs=0.01)
    assert float(drawn[drawn > 0.5].std()) == pytest.approx(SPREAD / 9.0, rel=0.1)


def test_of_pure_noise_the_denoiser_knows_the_mean() -> None:
    clean = two_futures(10.0, 0.3, 0.2)(torch.randn(1, 5, 1, 1), torch.zeros(1, 5), torch.ones(1, 5))
    assert torch.allclose(clean, torch.full_like(clean, 2.0), atol=1e-5)


def test_four_steps_lose_rare_events_unless_noise_is_larger_than_innovations() -> None:
    small, large = (kept_over_cases(4, noise_scale, 1.0, draws=20_000) for noise_scale in (1.0, 4.0))
    assert small.events < 0.05
    assert large.events > 0.3
    hotter = kept_over_cases(4, 1.0, 2.5, draws=20_000)
    assert hotter.spread > 3 * large.spread  # heat gives back the small events, not the large ones
