"""The arithmetic of the ranking, and policies that play many rows."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from benchmarks.policy_ranking import compare, each_row, summarise
from worldsim.scripted_policies import OpenLoop


def test_the_same_order_has_no_regret() -> None:
    expected = {"correlation": pytest.approx(1.0), "rank_correlation": pytest.approx(1.0), "regret": 0.0}
    assert compare([1.0, 5.0, 3.0], [10.0, 50.0, 30.0]) == expected
    assert compare([1.0, 5.0, 3.0], [10.0, 70.0, 11.0])["correlation"] < 0.9


def test_the_reverse_order_regrets_the_whole_range() -> None:
    expected = {"correlation": pytest.approx(-1.0), "rank_correlation": pytest.approx(-1.0), "regret": 4.0}
    assert compare([1.0, 5.0, 3.0], [3.0, 1.0, 2.0]) == expected


def test_ties_share_their_rank() -> None:
    # Ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3: Spearman's correlation is sqrt(0.9).
    assert compare([0.0, 1.0, 1.0, 2.0], [0.0, 1.0, 2.0, 3.0])["rank_correlation"] == pytest.approx(0.9**0.5)


def test_each_row_plays_the_sequence_from_its_beginning() -> None:
    act = each_row(partial(OpenLoop, [0, 2], 2), seed=3, rows=4)
    played = np.stack([act(np.zeros((4, 5), np.float32)) for _ in range(5)])
    assert (played == np.array([0, 0, 2, 2, 0])[:, None]).all()


def test_the_trained_are_compared_by_themselves_too() -> None:
    def part(trained: bool, real: float, dream: float) -> dict[str, object]:
        return {"trained": trained, "real": {"mean": real}, "dream": {"mean": dream}}

    learned = {"a": part(True, 7.0, 9.0), "b": part(True, 8.0, 8.0), "c": part(True, 9.0, 7.0)}
    summary = summarise({**learned, "blind": part(False, 1.0, 1.0)})
    assert summary["correlation"] > 0.8
    assert summary["trained"]["rank_correlation"] == pytest.approx(-1.0)
    assert summary["trained"]["regret"] == summary["regret"] == 2.0
    assert "trained" not in summarise({"a": learned["a"], "blind": part(False, 1.0, 1.0)})
