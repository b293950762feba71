from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.evaluation.worlds import CAP, THREE
from worldsim.errors import UserError
from worldsim.evaluation.dreamt_return import first_episodes, score_in_dream
from worldsim.world_model import WorldModel


class Lengths(gym.vector.VectorEnv[Any, Any, Any]):
    """Row i ends every `lengths[i]` steps, odd lengths by termination; step k of a row pays k."""

    def __init__(self, lengths: list[int]) -> None:
        self.num_envs = len(lengths)
        self.ends = np.array(lengths)
        self.taken = 0

    def reset(self, **_: Any) -> tuple[NDArray[np.int64], dict[str, Any]]:
        self.counts = np.zeros(self.num_envs, np.int64)
        return self.counts, {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        assert np.asarray(actions).shape == (self.num_envs,)
        self.taken += 1
        self.counts = self.counts + 1
        rewards, over = self.counts.astype(float), self.counts == self.ends
        self.counts = np.where(over, 0, self.counts)
        odd = self.ends % 2 == 1
        return self.counts, rewards, over & odd, over & ~odd, {}


def test_each_row_counts_until_its_own_first_end() -> None:
    env = Lengths([3, 1, 8, 2])
    ended: list[int] = []
    first = first_episodes(env, lambda observations: np.zeros(len(observations)), 0, ended.append)
    assert first.lengths.tolist() == [3, 1, 8, 2]
    assert first.returns.tolist() == [6, 1, 36, 3]
    assert first.terminated.tolist() == [True, True, False, False]
    assert env.taken == 8
    assert ended == [1, 1, 1, 1]


def act(observations: NDArray[Any]) -> NDArray[np.int64]:
    return np.full(len(observations), 2)


def test_dreams_are_counted_one_by_one(model: WorldModel) -> None:
    score = score_in_dream(model, act, episodes=5, seed=30, max_episode_steps=6)
    assert list(score.seeds) == [30, 31, 32, 33, 34]
    assert max(score.lengths) <= 6
    assert score.tics is None
    assert score.details["max_episode_steps"] == 6
    in_groups = score_in_dream(model, act, episodes=5, seed=30, max_episode_steps=6, rows_at_once=2)
    assert in_groups.lengths == score.lengths
    np.testing.assert_allclose(in_groups.returns, score.returns, atol=1e-3)


def test_the_real_limit_is_the_default(model: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def watch(observations: NDArray[Any]) -> NDArray[np.int64]:
        seen.append(observations.shape)
        return act(observations)

    score = score_in_dream(model, watch, episodes=2, seed=0, observation="pixels")
    assert seen[0] == (2, 16, 16, 3)
    assert max(score.lengths) <= CAP
    assert score.details["max_episode_steps"] == CAP
    assert THREE.contains(int(act(np.zeros((1, 2)))[0]))
    monkeypatch.setattr(model, "spec", replace(model.spec, max_episode_steps=None))
    with pytest.raises(UserError, match="give max_episode_steps"):
        score_in_dream(model, act, episodes=2, seed=0)
