"""The learner: what it learns, what it bootstraps, how it resumes."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from tests.agents.vector_envs import BrightSide, Corridor, Lock, OneState, Target, TinyVectorEnv
from worldsim.agents.actor_critic import ActorCriticLearner
from worldsim.agents.config import ActorCriticConfig, entropy_weight
from worldsim.agents.errors import AgentConfigError, UnusableSpaceError
from worldsim.agents.rollout import Rollout, reset_seed

SMALL: dict[str, Any] = {"hidden": [32, 32], "minibatch_size": 64}


def cartpole(num_envs: int, mode: AutoresetMode = AutoresetMode.SAME_STEP) -> gym.vector.VectorEnv[Any, Any, Any]:
    return gym.make_vec("CartPole-v1", num_envs, "sync", vector_kwargs={"autoreset_mode": mode})


def train(learner: ActorCriticLearner, updates: int) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for _ in range(updates):
        metrics = learner.update()
        assert all(math.isfinite(value) for value in metrics.values())
    return metrics


@pytest.mark.parametrize(
    ("ending", "hazard", "expected"),
    [("truncated", 0.2, 10.0), ("terminated", 0.2, 1 / (1 - 0.9 * 0.8)), ("terminated", 1.0, 1.0)],
)
def test_truncations_bootstrap_and_terminations_do_not(ending: str, hazard: float, expected: float) -> None:
    config = ActorCriticConfig(horizon=16, gamma=0.9, learning_rate=2e-3, hidden=[16], minibatch_size=32)
    learner = ActorCriticLearner(config, OneState(16, hazard, ending))
    metrics = [train(learner, 5) for _ in range(8)]
    assert np.mean([m["value_at_start"] for m in metrics[4:]]) == pytest.approx(expected, rel=0.07)


def test_who_goes_on_from_an_earlier_learner_learns_as_it_acted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The statistics of inputs do not move between acting and learning, unless nothing hangs on them yet."""
    first, second = (ActorCriticLearner(ActorCriticConfig(horizon=8, **SMALL), cartpole(4), seed=s) for s in (0, 1))
    train(first, 2)
    second.begin_with(first.state_dict())
    before, seen = second.policy.state_dict()["inputs.mean"].clone(), []
    prepare = second._prepare

    def spied(rollout: Rollout) -> Any:
        seen.append(second.policy.state_dict()["inputs.mean"].clone())
        return prepare(rollout)

    monkeypatch.setattr(second, "_prepare", spied)
    train(second, 1)
    assert torch.equal(seen[0], before)
    assert not torch.equal(second.policy.state_dict()["inputs.mean"], before)


class Told(OneState):
    """OneState whose infos tell the probability of the ending, as a dream's do."""

    def step(self, actions: Any) -> Any:
        observations, rewards, terminated, truncated, infos = super().step(actions)
        told = {"termination_probability": np.full(self.num_envs, self.hazard, np.float32)}
        return observations, rewards, terminated, truncated, infos | told


def test_a_told_probability_of_ending_replaces_the_draw() -> None:
    config = ActorCriticConfig(horizon=16, gamma=0.9, learning_rate=2e-3, hidden=[16], minibatch_size=32)
    drawn = train(ActorCriticLearner(config, OneState(16, 0.2, "terminated")), 40)
    told = train(ActorCriticLearner(config, Told(16, 0.2, "terminated")), 40)
    assert told["value_at_start"] == pytest.approx(1 / (1 - 0.9 * 0.8), rel=0.05)
    assert told["terminations_per_step"] == pytest.approx(0.2, abs=0.08)
    assert told["advantage_std"] < 0.2 * drawn["advantage_std"]


@pytest.mark.parametrize("advantage_scale", ["std", "percentile"])
def test_learns_the_corridor(advantage_scale: str) -> None:
    config = ActorCriticConfig(advantage_scale=advantage_scale, entropy_bonus=0.003, **SMALL)
    learner = ActorCriticLearner(config, Corridor(16), seed=1)
    assert train(learner, 1)["episode_length"] > 12
    assert train(learner, 24)["episode_length"] < 7.5  # the shortest way: 6
    assert (learner.policy.act(np.eye(7, dtype=np.float32)[:6], greedy=True) == 1).all()


def test_learns_actions_of_several_parts() -> None:
    learner = ActorCriticLearner(ActorCriticConfig(horizon=16, gamma=0.0, learning_rate=1e-3, **SMALL), Lock(32))
    assert train(learner, 1)["reward_per_step"] < 0.6
    assert train(learner, 30)["reward_per_step"] > 0.9
    shown = np.array([[0, 0, 1, 1, 0], [1, 0, 0, 0, 1]], np.float32)
    assert learner.policy.act(shown, greedy=True).tolist() == [[3, 7], [1, 8]]


def test_learns_box_actions() -> None:
    learner = ActorCriticLearner(ActorCriticConfig(horizon=16, gamma=0.0, learning_rate=1e-3, **SMALL), Target(32))
    assert train(learner, 1)["reward_per_step"] < -0.4
    train(learner, 40)
    shown = np.linspace(-0.8, 0.8, 9, dtype=np.float32)[:, None]
    assert np.abs(learner.policy.act(shown, greedy=True) - 2 - shown).mean() < 0.15


def test_learns_from_pixels() -> None:
    learner = ActorCriticLearner(ActorCriticConfig(horizon=8, gamma=0.0, **SMALL), BrightSide(32))
    assert train(learner, 1)["reward_per_step"] < 0.65
    assert train(learner, 15)["reward_per_step"] > 0.9


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_learns_cartpole_from_states(seed: int) -> None:
    config = ActorCriticConfig(reset_each_update=False, learning_rate=1e-3)
    learner = ActorCriticLearner(config, cartpole(64), seed)
    assert train(learner, 20)["episode_return"] >= 150


def resumed(make: Callable[[], ActorCriticLearner], before: int, after: int) -> ActorCriticLearner:
    first = make()
    train(first, before)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = make()
    second.load_state_dict(torch.load(file, weights_only=True))
    train(second, after)
    return second


@pytest.mark.parametrize("make_envs", [Corridor, Target])
def test_resuming_is_bitwise_the_same(make_envs: Callable[[int], TinyVectorEnv]) -> None:
    config = ActorCriticConfig(horizon=10, advantage_scale="percentile", entropy_decay_updates=5, **SMALL)

    def make() -> ActorCriticLearner:
        return ActorCriticLearner(config, make_envs(9), seed=3)

    straight = make()
    train(straight, 6)
    again = resumed(make, 3, 3)
    flat_straight, flat_again = (torch.utils._pytree.tree_leaves(x.state_dict()) for x in (straight, again))
    assert len(flat_straight) == len(flat_again) > 40
    for one, other in zip(flat_straight, flat_again, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_each_update_resets_with_its_own_seed_or_carries_on() -> None:
    dream, real = Corridor(4), Corridor(4)
    train(ActorCriticLearner(ActorCriticConfig(horizon=4, **SMALL), dream, seed=7), 3)
    assert dream.reset_seeds == [reset_seed(7, 0), reset_seed(7, 1), reset_seed(7, 2)]
    assert len(set(dream.reset_seeds)) == 3
    train(ActorCriticLearner(ActorCriticConfig(horizon=4, reset_each_update=False, **SMALL), real, seed=7), 3)
    assert real.reset_seeds == [reset_seed(7, 0)]
    assert (real.state[:, 1] == 12).any()


def test_a_foreign_checkpoint_is_refused() -> None:
    state = ActorCriticLearner(ActorCriticConfig(hidden=[8]), Corridor(2)).state_dict()
    with pytest.raises(AgentConfigError, match="belongs to another agent or other settings"):
        ActorCriticLearner(ActorCriticConfig(hidden=[9]), Corridor(2)).load_state_dict(state)


def test_other_autoreset_modes_are_refused() -> None:
    with pytest.raises(UnusableSpaceError, match="SAME_STEP"):
        ActorCriticLearner(ActorCriticConfig(), cartpole(2, AutoresetMode.NEXT_STEP))


class Broken(OneState):
    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(2, 1.0, "truncated")

    def step(self, actions: Any) -> Any:
        observations, rewards, terminated, truncated, infos = super().step(actions)
        if self.what == "rewards":
            rewards = rewards * np.nan
        return observations, rewards, terminated, truncated, {} if self.what == "final_obs" else infos


@pytest.mark.parametrize("what", ["rewards", "final_obs"])
def test_broken_envs_are_named(what: str) -> None:
    with pytest.raises(ValueError, match=what):
        ActorCriticLearner(ActorCriticConfig(horizon=2), Broken(what)).update()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma": 1.5}, r"gamma must be in \[0, 1\], got 1.5"),
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"entropy_bonus": -1.0}, "entropy_bonus must be 0 or more"),
        ({"advantage_scale": "mean"}, "'std' or 'percentile', got 'mean'"),
        ({"hidden": []}, "hidden must name at least one width"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(AgentConfigError, match=message):
        ActorCriticLearner(ActorCriticConfig(**settings), Corridor(2))


def test_entropy_bonus_decays_linearly() -> None:
    config = ActorCriticConfig(entropy_bonus=0.01, entropy_bonus_final=0.002, entropy_decay_updates=4)
    assert [entropy_weight(config, u) for u in (0, 2, 4, 9)] == pytest.approx([0.01, 0.006, 0.002, 0.002])
    assert entropy_weight(ActorCriticConfig(), 10**6) == ActorCriticConfig().entropy_bonus
