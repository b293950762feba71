"""The evolved controller: what it finds, how it is chosen, how it resumes and is saved."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from tests.agents.vector_envs import Array, BrightSide, OneState, Target, TinyVectorEnv
from worldsim.agents.cma_es import MOST_PARAMETERS, CmaEsLearner, controller_spec
from worldsim.agents.config import AgentConfig, CmaEsConfig
from worldsim.agents.errors import AgentConfigError, UnusableSpaceError
from worldsim.agents.learners import LEARNERS, build_learner
from worldsim.agents.networks import Inputs, Projection
from worldsim.agents.policies import NetworkPolicy
from worldsim.agents.policy_io import load_policy, save_policy

SMALL = CmaEsConfig(population=8, elites=2, sigma=0.5)


def cartpole(num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
    return gym.make_vec("CartPole-v1", num_envs, "sync", vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP})


class Wide(TinyVectorEnv):
    """`size` noises; action 1 pays 1 where feature 3 is positive, action 0 elsewhere. One step."""

    def __init__(self, num_envs: int, size: int, actions: int = 2) -> None:
        self.size = size
        super().__init__(num_envs, gym.spaces.Box(-9, 9, (size,), np.float32), gym.spaces.Discrete(actions))

    def fresh(self) -> Array:
        return self.rng.normal(size=(self.num_envs, self.size)).astype(np.float32)

    def observe(self) -> Array:
        return self.state.copy()

    def advance(self, actions: Array) -> tuple[Array, Array, Array]:
        never = np.zeros(self.num_envs, np.bool_)
        return ((self.state[:, 3] > 0) == actions).astype(np.float64), ~never, never


def test_it_balances_cartpole_from_states() -> None:
    learner = CmaEsLearner(CmaEsConfig(population=16, elites=3), cartpole(64))
    first = learner.update()["score"]
    for _ in range(5):
        metrics = learner.update()
    assert first < 100
    assert metrics["champion_score"] > 400


def test_it_learns_box_actions() -> None:
    learner = CmaEsLearner(CmaEsConfig(population=16, elites=3, sigma=0.5), Target(128))
    for _ in range(20):
        metrics = learner.update()
    assert metrics["champion_score"] > -0.1
    shown = np.linspace(-0.8, 0.8, 9, dtype=np.float32)[:, None]
    assert np.abs(learner.policy.act(shown) - 2 - shown).mean() < 0.1


@pytest.mark.parametrize("size", [6, 1500])
def test_a_controller_has_at_most_two_thousand_parameters(size: int) -> None:
    spec = controller_spec(Wide(2, size))
    assert spec.reads == (0 if size == 6 else 999)
    learner = CmaEsLearner(SMALL, Wide(8, size))
    parameters = sum(parameter.numel() for parameter in learner.policy.parameters())
    assert parameters == len(learner.policy.head.weight.flatten()) + 2 <= MOST_PARAMETERS


def test_directions_are_orthonormal_and_fixed() -> None:
    learner = CmaEsLearner(SMALL, Wide(8, 1500))
    (projection,) = learner.policy.trunk
    assert isinstance(projection, Projection)
    before = projection.directions.clone()
    torch.testing.assert_close(before @ before.T, torch.eye(999), atol=1e-4, rtol=0)
    learner.update()
    assert torch.equal(projection.directions, before)


def test_candidates_play_as_their_policy_would() -> None:
    """The batched linear maps of a generation are those of the policy that is saved in the end."""
    envs = Wide(64, 6)
    learner = CmaEsLearner(SMALL, envs)
    learner.update()
    candidates = np.random.default_rng(0).normal(size=(8, 14))
    scores, steps = learner._play(candidates, 5, 0)
    assert steps == 64
    fresh = envs.reset_seeds[-1]
    for candidate, score in zip(candidates, scores, strict=True):
        learner.policy.head.weight.data = torch.from_numpy(candidate[:12].reshape(2, 6)).float()
        learner.policy.head.bias.data = torch.from_numpy(candidate[12:]).float()
        shown, _ = envs.reset(seed=fresh)
        right = (shown[:, 3] > 0) == learner.policy.act(shown)
        row = int(np.flatnonzero((candidates == candidate).all(1))[0])
        assert score == pytest.approx(right[8 * row : 8 * row + 8].mean())


def test_every_candidate_meets_the_same_seeds_and_finalists_meet_others() -> None:
    envs = Wide(16, 6)
    CmaEsLearner(SMALL, envs).update()
    played: list[Any] = envs.reset_seeds[1:]  # the first reset measures the inputs
    selection, final = played
    assert selection == selection[:2] * 8
    assert final[:15] == final[:5] * 3  # two elites and the champion, five rows each
    assert not set(selection) & set(final)


def test_a_first_episode_counts_once() -> None:
    """Reward 1 a step, an end after each: a row that begins again adds nothing."""
    learner = CmaEsLearner(SMALL, OneState(16, 0.5, "terminated"))
    scores, steps = learner._play(np.zeros((8, 6)), 0, 0)
    assert scores.mean() == pytest.approx(2.0, abs=0.9)
    assert steps > 16


def test_the_champion_stays_when_no_elite_beats_it() -> None:
    learner = CmaEsLearner(CmaEsConfig(population=8, elites=2, sigma=0.01), Target(64))
    for _ in range(3):
        learner.update()
    exact = {"weight": [[1.0]], "bias": [0.0]}  # tanh(x) is near x
    inputs = learner.policy.inputs
    assert isinstance(inputs, Inputs)
    inputs.mean.zero_()
    inputs.variance.fill_(1.0)
    learner.policy.head.load_state_dict({name: torch.tensor(value) for name, value in exact.items()})
    learner.update()
    assert learner.policy.head.weight.tolist() == [[1.0]]


def resumed(make: Callable[[], CmaEsLearner], before: int, after: int) -> CmaEsLearner:
    first = make()
    for _ in range(before):
        first.update()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = make()
    second.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(after):
        second.update()
    return second


@pytest.mark.parametrize("make_envs", [Target, lambda rows: Wide(rows, 1500)])
def test_resuming_is_bitwise_the_same(make_envs: Callable[[int], TinyVectorEnv]) -> None:
    def make() -> CmaEsLearner:
        np.random.rand(3)  # noqa: NPY002 (nothing may depend on the global state)
        learner = CmaEsLearner(SMALL, make_envs(16), seed=3)
        earlier = CmaEsLearner(SMALL, make_envs(16), seed=9)
        earlier.update()
        learner.begin_with(earlier.state_dict())
        return learner

    straight = make()
    for _ in range(6):
        straight.update()
    again = resumed(make, 3, 3)
    one, other = (torch.utils._pytree.tree_leaves(learner.state_dict()) for learner in (straight, again))
    assert len(one) == len(other) >= 8
    for left, right in zip(one, other, strict=True):
        assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right
    assert np.array_equal(np.stack(straight._search.ask()), np.stack(again._search.ask()))


def test_a_foreign_checkpoint_is_refused() -> None:
    state = CmaEsLearner(SMALL, Target(8)).state_dict()
    with pytest.raises(AgentConfigError, match="belongs to another agent or other settings"):
        CmaEsLearner(SMALL, Wide(8, 6)).load_state_dict(state)
    with pytest.raises(AgentConfigError, match=r"population are \(0, 0.5, 8\), expected \(1, 0.5, 8\)"):
        CmaEsLearner(SMALL, Target(8), seed=1).load_state_dict(state)


def test_a_saved_controller_acts_the_same_and_never_by_chance(tmp_path: Path) -> None:
    learner = CmaEsLearner(SMALL, Wide(8, 1500, actions=3))
    learner.update()
    save_policy(learner.policy, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    loaded = load_policy(tmp_path)
    observations = np.random.default_rng(0).normal(size=(20, 1500)).astype(np.float32)
    expected = learner.policy.act(observations, greedy=True)
    assert np.array_equal(loaded.act(observations), expected)
    player = NetworkPolicy(loaded, seed=3)
    assert [player.act(row) for row in observations] == expected.tolist()


def test_what_it_cannot_learn_in_is_named() -> None:
    with pytest.raises(UnusableSpaceError, match="not on pixels"):
        CmaEsLearner(SMALL, BrightSide(8))
    with pytest.raises(UnusableSpaceError, match="1500 actions leave no parameter of 2000"):
        CmaEsLearner(SMALL, Wide(8, 6, actions=1500))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 3}, "cma_es.population must be at least 4"),
        ({"population": 8, "elites": 8}, "cma_es.elites must be from 1 to below the population, 8, got 8"),
        ({"sigma": 0.0, "population": 8}, "cma_es.sigma must be above 0"),
        ({"population": 6}, "cma_es.population is 6, which must divide the number of rows, 8"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(AgentConfigError, match=message):
        CmaEsLearner(CmaEsConfig(**settings), Wide(8, 6))


def test_learners_by_name() -> None:
    assert set(LEARNERS) == {"actor_critic", "cma_es", "dagger"}
    for kind in ("actor_critic", "cma_es"):  # dreams that tell what actions risk: test_dagger.py
        learner = build_learner(AgentConfig(kind=kind, hidden=[8], cma_es=SMALL), Wide(8, 6))
        before = learner.state_dict()
        learner.update()
        learner.begin_with(before)
    with pytest.raises(AgentConfigError, match="one of actor_critic, cma_es, dagger, got 'evolution'"):
        build_learner(AgentConfig(kind="evolution"), Wide(8, 6))


def test_without_the_package_the_remedy_is_told_before_anything_begins() -> None:
    code = (
        "import sys; sys.modules['cma'] = None\n"
        "from worldsim.agents.config import AgentConfig\n"
        "from worldsim.agents.learners import check_agent\n"
        "try: check_agent(AgentConfig(kind='cma_es'), 64)\n"
        "except ValueError as error: assert 'worldsim-rl[cma]' in str(error), error\n"
        "else: raise SystemExit(1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
