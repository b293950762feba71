"""Who is told apart, and how much of it dreams keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.foresight import compare, draw_steps
from tests.episodes import played
from worldsim.data.episode import EnvSpec
from worldsim.data.store import EpisodeStore


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    """Of nine episodes of 6 to 14 steps those with an even number end, the others are cut off."""
    spec = EnvSpec("Light-v0", {}, (8, 8, 1), {"type": "discrete", "n": 2}, ["dark", "bright"], 10.0, None, False)
    store = EpisodeStore.create(tmp_path / "episodes", spec)
    with store.writer("only") as writer:
        for number in range(9):
            length = 6 + number
            frames = np.zeros((length + 1, 8, 8, 1), np.uint8)
            actions, rewards = np.zeros(length, np.int64), np.ones(length, np.float32)
            writer.append(played(frames, actions, rewards, seed=number, terminated=number % 2 == 0))
    store.refresh()
    return store


def test_deaths_are_last_steps_and_all_have_a_history(store: EpisodeStore) -> None:
    steps, deaths = draw_steps(store, "all", 100, history=8, seed=0)
    assert deaths.sum() == len(deaths) - deaths.sum() == 3  # of 10, 12 and 14 steps; those of 6 and 8 are too short
    for (episode, step), died in zip(steps, deaths, strict=True):
        assert step >= 8
        assert died == (step == store.lengths[episode] - 1 and bool(store.steps(episode)["terminated"][-1]))
    assert len(set(steps)) == len(steps)


def test_what_is_kept_is_a_share_of_what_was_known() -> None:
    deaths = np.array([True, True, False, False])
    told = {0: [[0.5], [0.3], [0.1], [0.1]], 4: [[0.3], [0.1], [0.1], [0.1]], 8: [[0.1], [0.1], [0.1], [0.1]]}
    found = compare({age: np.array(hazards) for age, hazards in told.items()}, deaths)
    assert [one.age for one in found] == [0, 4, 8]
    assert [one.excess_kept for one in found] == pytest.approx([1.0, 1 / 3, 0.0], abs=1e-9)
    assert [one.auroc for one in found] == pytest.approx([1.0, 0.75, 0.5])
