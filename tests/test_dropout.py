"""Dropout by bytes against its definition."""

from __future__ import annotations

import pytest
import torch

from worldsim.dropout import Dropout


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_leaves_out_a_share_and_makes_up_for_it(share: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.ones(1001, 301, dtype=dtype, requires_grad=True)
    dropped = Dropout(share)(values)
    nearest = round(256 * share) / 256
    assert dropped.dtype == dtype
    assert float((dropped == 0).double().mean()) == pytest.approx(nearest, abs=0.003)  # five standard deviations
    kept = dropped[dropped != 0].detach()
    assert (kept == kept[0]).all()
    assert float(kept[0]) == pytest.approx(1 / (1 - nearest), rel=0.004)
    dropped.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, dropped.detach())


def test_rows_and_columns_are_left_out_apart() -> None:
    torch.manual_seed(0)
    gone = (Dropout(0.5)(torch.ones(400, 400)) == 0).double()
    assert (gone.mean(0) - 0.5).abs().max() < 0.15  # six standard deviations
    assert (gone.mean(1) - 0.5).abs().max() < 0.15
    assert torch.corrcoef(gone[:40]).fill_diagonal_(0).abs().max() < 0.3


def test_nothing_is_left_out_in_evaluation_or_of_a_share_of_nothing() -> None:
    values = torch.randn(5, 3)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(Dropout(0.0)(values), values)
    assert Dropout(0.5)(torch.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_other_shares_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match="expected at least 0"):
        Dropout(share)
