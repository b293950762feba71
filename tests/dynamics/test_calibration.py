"""Logits made honest."""

from __future__ import annotations

import pytest
import torch

from worldsim.dynamics.calibration import FEWEST_ENDINGS, fit_logits


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.4, -1.0), (1.5, 0.7)])
def test_finds_what_was_done_to_honest_logits(scale: float, shift: float) -> None:
    generator = torch.Generator().manual_seed(0)
    honest = 2 * torch.randn(50_000, generator=generator) - 2
    happened = torch.rand(50_000, generator=generator) < honest.sigmoid()
    found = fit_logits((honest - shift) / scale, happened, torch.ones(50_000))
    assert found == pytest.approx((scale, shift), abs=0.05)


def test_weights_stand_for_copies() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, generator=generator)
    happened = torch.rand(400, generator=generator) < 0.3
    copies = torch.randint(1, 4, (400,), generator=generator)
    weighted = fit_logits(logits, happened, copies.float())
    repeated = fit_logits(
        logits.repeat_interleave(copies), happened.repeat_interleave(copies), torch.ones(int(copies.sum()))
    )
    assert weighted == pytest.approx(repeated, abs=1e-4)


def test_too_few_endings_change_nothing() -> None:
    happened = torch.arange(1000) < FEWEST_ENDINGS - 1
    assert fit_logits(torch.randn(1000), happened, torch.ones(1000)) == (1.0, 0.0)


def test_a_useless_prediction_becomes_the_rate() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(20_000, generator=generator)
    happened = torch.rand(20_000, generator=generator) < 0.1
    scale, shift = fit_logits(logits, happened, torch.ones(20_000))
    assert (scale * logits + shift).sigmoid().mean().item() == pytest.approx(0.1, abs=0.02)
