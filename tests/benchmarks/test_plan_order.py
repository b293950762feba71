"""What a reader of plans is held for, by what it says of plans and what the engine knows of them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.plan_order import Judged, nearest, order, pick
from benchmarks.take_cover_ceiling import Fireball, paths

GAPS = np.array(
    [[5.0, 40.0, 25.0], [50.0, 10.0, 60.0], [50.0, 60.0, np.inf], [1.0, 2.0, 3.0]]
)  # the last two: not mixed


def test_who_knows_everything_orders_all_and_picks_none_that_is_deadly() -> None:
    knowing = Judged(-np.minimum(GAPS, 100), GAPS)
    assert order(knowing) == 1
    np.testing.assert_allclose(pick(knowing), (0, 2 / 6))
    assert order(Judged(np.minimum(GAPS, 100), GAPS)) == 0
    assert order(Judged(np.zeros_like(GAPS), GAPS)) == 0.5


def test_moments_count_alike_and_plans_that_are_neither_do_not_count() -> None:
    risks = np.array([[0.5, 0.4, 0.1], [0.2, 0.3, 0.4], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    judged = Judged(risks, GAPS)
    assert order(judged) == pytest.approx((1 + 0.5) / 2)
    assert pick(judged)[0] == 0
    assert order(judged.of_plans(np.array([True, True, False]))) == 1


def test_the_nearest_fireball_is_the_one_that_passes_beside_the_path() -> None:
    still, left = places = paths(np.array([[0] * 4, [1] * 4]), 384.0, 0.0)
    ahead = Fireball(100, 7, -10, 0)  # beside the player in the tenth tic, 7 to the left of where he stood
    gaps = nearest(places, 384.0, [ahead, Fireball(1000, 0, -10, 0)])
    assert gaps[0] == pytest.approx(7)
    beside = slice(7, 12)  # |100 - 10 t| < 24 at t = 8 ... 12
    assert gaps[1] == pytest.approx(np.abs(left[beside] - 391).min())
    assert still.tolist() == [384] * 16
    assert np.isinf(nearest(places, 384.0, [])).all()
