"""The arithmetic of the table over seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.take_cover import (
    agent_row,
    baseline_rows,
    interquartile_mean,
    nested_interval,
    over_seeds,
    read_verdict,
)
from worldsim.errors import UserError


def verdict(agent: list[float], blind: list[float], seeds: list[int]) -> dict[str, Any]:
    def score(returns: list[float], **more: Any) -> dict[str, Any]:
        mean = float(np.mean(returns))
        return {"mean": mean, "ci95": [mean - 1, mean + 1], "returns": returns, "seeds": seeds, **more}

    return {
        "agent": score(agent),
        "dream": {"mean": 7.0},
        "seconds": {"a": 60.0, "b": 30.0},
        "baselines": {"random": score(blind), "shuffled_observations": score(agent)},
    }


def test_the_mean_of_the_middle_half() -> None:
    assert interquartile_mean([1000.0, 1.0, 3.0, -1000.0]) == 2.0
    # Of five, the second and fourth count for three quarters each.
    assert interquartile_mean([0.0, 1.0, 2.0, 6.0, 100.0]) == pytest.approx((0.75 * 1 + 2 + 0.75 * 6) / 2.5)


def test_the_interval_over_seeds_is_as_wide_as_the_seeds_differ() -> None:
    alike = [np.full(50, 10.0), np.full(50, 10.0)]
    assert nested_interval(alike, 200) == (10.0, 10.0)
    apart = [np.full(50, 10.0), np.full(50, 20.0)]
    assert nested_interval(apart, 200) == (10.0, 20.0)


def test_seeds_count_alike_and_shared_episodes_once() -> None:
    runs = [verdict([1.0, 3.0], [5.0, 7.0], [100, 101]), verdict([10.0], [7.0], [101])]
    assert over_seeds(runs).mean == 6.0
    random, shuffled = baseline_rows(runs)
    assert list(random.returns) == [5.0, 7.0]
    assert sorted(shuffled.returns) == [1.0, 3.0, 10.0]
    row = agent_row("one", runs[0])
    assert (row.mean, row.low, row.high, row.minutes, row.dream) == (2.0, 1.0, 3.0, 1.5, 7.0)


def test_each_blind_sequence_has_a_row_of_its_own() -> None:
    runs = [verdict([1.0], [5.0], [100]), verdict([1.0], [9.0], [100])]
    for run, actions in zip(runs, ([0, 1], [1, 2]), strict=True):
        run["baselines"]["best_blind"] = {**run["baselines"]["random"], "actions": actions, "hold_steps": 8}
    found = {row.name: row.mean for row in baseline_rows(runs)}
    assert found["best blind (0, 1 x 8 steps)"] == 5.0
    assert found["best blind (1, 2 x 8 steps)"] == 9.0


def test_a_folder_without_a_verdict_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no verdict\.json: expected the folder of a finished run"):
        read_verdict(tmp_path)
    (tmp_path / "verdict.json").write_text(json.dumps({"agent": 1}))
    assert read_verdict(tmp_path) == {"agent": 1}
