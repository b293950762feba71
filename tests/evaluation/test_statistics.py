from __future__ import annotations

import json

import numpy as np
import pytest

from worldsim.evaluation.statistics import Score, area_under_roc, bootstrap_interval


def test_equal_values_leave_no_doubt() -> None:
    assert bootstrap_interval([3.0] * 7) == (3.0, 3.0)
    assert bootstrap_interval([3.0]) == (3.0, 3.0)


def test_the_interval_is_that_of_the_normal_limit() -> None:
    values = np.random.default_rng(0).normal(10, 2, size=400)
    low, high = bootstrap_interval(values)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.03)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.03)
    narrow_low, narrow_high = bootstrap_interval(values, confidence=0.5)
    assert narrow_high - narrow_low == pytest.approx(2 * 0.674 * error, rel=0.05)


def test_two_values_by_hand() -> None:
    # The mean of two draws from {0, 1} is 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4.
    assert bootstrap_interval([0, 1]) == (0.0, 1.0)
    assert bootstrap_interval([0, 1], confidence=0.4) == (0.5, 0.5)


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    samples = random.exponential(size=(300, 60))
    intervals = [bootstrap_interval(sample, resamples=1000) for sample in samples]
    assert np.mean([low <= 1 <= high for low, high in intervals]) == pytest.approx(0.94, abs=0.04)


def test_the_seed_decides_and_large_samples_are_split() -> None:
    values = np.random.default_rng(2).normal(size=8000)
    low, high = bootstrap_interval(values, resamples=1200)  # more numbers than are held at once
    assert (low, high) == bootstrap_interval(values, resamples=1200)
    assert (low, high) != bootstrap_interval(values, resamples=1200, seed=1)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(8000), rel=0.1)


def test_nothing_has_no_interval() -> None:
    with pytest.raises(ValueError, match="n >= 1"):
        bootstrap_interval([])


def test_a_score_as_json() -> None:
    score = Score([1.0, 2.0, 6.0], [7, 8, 9], [10, 20, 30], [40, 80, 120], {"hold_steps": 4})
    content = json.loads(json.dumps(score.to_dict()))
    low, high = content.pop("ci95")
    assert low < 3 < high
    assert content == {
        "mean": 3.0,
        "episodes": 3,
        "mean_length": 20.0,
        "mean_tics": 80.0,
        "tics": 240,
        "hold_steps": 4,
        "returns": [1.0, 2.0, 6.0],
        "seeds": [7, 8, 9],
    }
    assert score.median_seed == 8
    assert Score([5.0, 1.0], [3, 4], [1, 1]).median_seed == 4
    with pytest.raises(ValueError, match="as many returns"):
        Score([1.0, 2.0], [1], [1, 1])
    with pytest.raises(ValueError, match="at least one"):
        Score([], [], [])


def test_area_under_roc() -> None:
    scores, positive = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    assert area_under_roc(scores, positive) == 0.75  # 3 of the 4 pairs are in order
    assert area_under_roc(np.full(4, 0.5), positive) == 0.5
    assert area_under_roc(-scores, ~positive) == 0.75
    assert area_under_roc(scores, np.zeros(4, np.bool_)) is None
