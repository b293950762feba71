"""Counting endings by the age of a dream."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.hazard_by_age import by_age


def test_what_comes_after_the_first_ending_does_not_count() -> None:
    ended = np.zeros((6, 1), np.bool_)
    ended[[1, 3], 0] = True  # the second belongs to the next episode
    said = np.full((6, 1), 0.25, np.float32)
    dreamt = np.full((1, 1, 4), 0.5, np.float32)
    first, later = by_age(ended, said, np.array([0]), dreamt, ((1, 1), (2, 4)))
    assert (first.observed, first.steps) == (0.0, 1)
    assert (later.observed, later.steps) == (1.0, 1)
    assert first.watched == later.watched == 0.25
    assert first.dreamt == later.dreamt == pytest.approx(0.5)


def test_dreams_that_have_most_likely_ended_count_less() -> None:
    dreamt = np.array([[[0.9, 0.0], [0.1, 0.4]]], np.float32)  # of two rows
    quiet = np.zeros((2, 2))
    _, second = by_age(quiet.astype(bool), quiet.astype(np.float32), np.array([0]), dreamt, ((1, 1), (2, 2)))
    assert second.dreamt == pytest.approx((0.1 * 0.0 + 0.9 * 0.4) / (0.1 + 0.9))


def test_moments_that_follow_each_other_share_real_steps() -> None:
    ended = np.zeros((4, 2), np.bool_)
    ended[2, 1] = True
    zeros = np.zeros((4, 2), np.float32)
    (both,) = by_age(ended, zeros, np.array([0, 1]), np.zeros((2, 2, 3), np.float32), ((1, 3),))
    # Row 0 lasts in both; row 1 is counted three steps from the first moment and two from the second.
    assert both.steps == 3 + 3 + 3 + 2
    assert both.observed == pytest.approx(2 / 11)
