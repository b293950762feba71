"""Learning from what plans risk."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.agents.vector_envs import Array, Corridor, TinyVectorEnv
from worldsim.agents.config import AgentConfig, DaggerConfig
from worldsim.agents.dagger import PERSISTENCE, DaggerLearner, preferred, teaching_loss
from worldsim.agents.errors import AgentConfigError, UnusableSpaceError
from worldsim.agents.learners import build_learner

FAST: dict[str, Any] = {"epochs": 4, "minibatch_size": 64, "learning_rate": 3e-3}
SMALL: dict[str, Any] = {"kind": "dagger", "horizon": 8, "hidden": [32], "dagger": DaggerConfig(**FAST)}


class Lanes(TinyVectorEnv):
    """Three lanes, of which a one-hot shows the one that is safe now; any other ends the episode with its risk."""

    risk = 0.3

    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs, gym.spaces.Box(0, 1, (3,), np.float32), gym.spaces.Discrete(3))

    def fresh(self) -> Array:
        return np.eye(3, dtype=np.float32)[self.rng.integers(3, size=self.num_envs)]

    def observe(self) -> Array:
        return self.state.copy()

    def advance(self, actions: Array) -> tuple[Array, Array, Array]:
        ended = (self.state.argmax(1) != actions) & (self.rng.random(self.num_envs) < self.risk)
        self.state = self.fresh()
        return np.ones(self.num_envs), ended, np.zeros(self.num_envs, np.bool_)

    def action_risks(self) -> Tensor:
        return torch.from_numpy(self.risk * (1 - self.state))


def test_it_learns_to_take_what_risks_least() -> None:
    learner = build_learner(AgentConfig(**SMALL), Lanes(64))
    metrics = [learner.update() for _ in range(25)]
    assert metrics[-1]["excess_of_constant"] == pytest.approx(0.2, abs=0.02)
    assert metrics[-1]["decisive"] == 1
    assert metrics[-1]["excess_risk"] < 0.002
    assert metrics[-1]["terminations_per_step"] < 0.05  # 0.2 by chance; the plans act on what they saw a step before
    shown = torch.eye(3)
    assert learner.policy.act(shown, greedy=True).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("label_every", "judged"), [(1, 8), (3, 3), (8, 1)])
def test_plans_judge_as_many_moments_as_they_are_asked_to(label_every: int, judged: int) -> None:
    settings = DaggerConfig(**FAST, label_every=label_every)
    learner = DaggerLearner(AgentConfig(**SMALL | {"dagger": settings}), Lanes(4))
    observations, risks, by_policy, _ = learner._play()
    assert [len(observations), len(risks), len(by_policy)] == [4 * judged] * 3


def test_a_restored_learner_goes_on_as_if_it_had_not_stopped() -> None:
    whole, begun, resumed = (DaggerLearner(AgentConfig(**SMALL), Lanes(8), seed=3) for _ in range(3))
    for _ in range(4):
        whole.update()
    for _ in range(2):
        begun.update()
    resumed.load_state_dict(begun.state_dict())
    for _ in range(2):
        resumed.update()
    for name, tensor in whole.policy.state_dict().items():
        assert torch.equal(tensor, resumed.policy.state_dict()[name])


def test_the_next_round_begins_with_the_policy_of_the_one_before() -> None:
    before, after = (DaggerLearner(AgentConfig(**SMALL), Lanes(8), seed=seed) for seed in range(2))
    before.update()
    after.begin_with(before.state_dict())
    for network in (after.policy, after.network):
        for name, tensor in before.policy.state_dict().items():
            assert torch.equal(tensor, network.state_dict()[name])


def test_what_goes_on_as_before_is_preferred_by_a_little() -> None:
    risks = torch.tensor([[0.1, 0.1 - PERSISTENCE / 2, 0.5], [0.1, 0.1 - 2 * PERSISTENCE, 0.5], [0.1, 0.099, 0.5]])
    assert preferred(risks, torch.tensor([0, 0, -1])).tolist() == [0, 1, 1]


def test_the_loss_is_least_for_what_the_plans_want_and_quiet_moments_count_little() -> None:
    risks = torch.tensor([[0.3, 0.0], [0.0, 0.001]])
    right, wrong, quiet = (
        torch.tensor(p).log()
        for p in ([[0.01, 0.99], [0.5, 0.5]], [[0.99, 0.01], [0.5, 0.5]], [[0.01, 0.99], [0.99, 0.01]])
    )
    loss = [float(teaching_loss(log_probs, risks, 0.015)) for log_probs in (right, quiet, wrong)]
    assert loss[0] < loss[1] < 0.2 * loss[2]


def test_who_cannot_be_taught_is_told_why() -> None:
    with pytest.raises(UnusableSpaceError, match="risk"):
        DaggerLearner(AgentConfig(**SMALL), Corridor(4))
    for wrong in (
        {"minibatch_size": 0},
        {"teacher_share": 1.5},
        {"sharpness": 0.0},
        {"epochs": 0},
        {"label_every": 0},
        {"learning_rate": 0.0},
    ):
        with pytest.raises(AgentConfigError, match=next(iter(wrong))):
            DaggerLearner(AgentConfig(**SMALL | {"dagger": DaggerConfig(**wrong)}), Lanes(4))
    learner = DaggerLearner(AgentConfig(**SMALL), Lanes(4))
    with pytest.raises(AgentConfigError, match="other"):
        learner.load_state_dict({"policy": {}})
