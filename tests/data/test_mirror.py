"""Copies of episodes in a mirror."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.data.counting import episode, fill, spec
from worldsim.data.mirror import mirror_round, mirrored
from worldsim.data.store import EpisodeStore

SWAPPED = [4, 3, 2, 1, 0]
EPISODES = [episode(1, 3), episode(2, 5, split="held_out"), episode(3, 4)]


def test_left_is_right_and_a_mirror_of_a_mirror_is_the_episode() -> None:
    original = episode(1, 6)
    copy = mirrored(original, SWAPPED)
    np.testing.assert_array_equal(copy.frames[:, :, 0], original.frames[:, :, -1])
    np.testing.assert_array_equal(copy.frames[:, 0], original.frames[:, 0, ::-1])
    for before, after in enumerate(SWAPPED):
        assert ((original.actions == before) == (copy.actions == after)).all()
    np.testing.assert_array_equal(copy.rewards, original.rewards)
    again = mirrored(copy, SWAPPED)
    np.testing.assert_array_equal(again.frames, original.frames)
    np.testing.assert_array_equal(again.actions, original.actions)


def test_training_episodes_of_the_round_are_there_twice_and_cost_as_much_as_before(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", spec())
    fill(store, "round00-worker00", *EPISODES)
    tics, steps = store.total_tics(), store.total_steps()
    mirror_round(store, 0, SWAPPED)
    assert [(entry.seed, entry.tics > 0) for entry in store.entries] == [
        (1, False),
        (3, False),
        (1, True),
        (2, True),
        (3, True),
    ]
    assert len(store.indices("held_out")) == 1
    assert (store.total_tics(), store.total_steps()) == (tics, steps)
    np.testing.assert_array_equal(store[1].frames, EPISODES[2].frames[:, :, ::-1])
    store.verify()


def test_again_nothing_is_added_and_what_is_missing_is(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", spec())
    fill(store, "round00-worker00", EPISODES[0])
    mirror_round(store, 0, SWAPPED)
    fill(store, "round00-worker00", *EPISODES[1:])
    store.refresh()
    for _ in range(2):
        mirror_round(store, 0, SWAPPED)
        assert [entry.seed for entry in store.entries if not entry.tics] == [1, 3]
    mirror_round(store, 1, SWAPPED)
    assert len(store) == 5
