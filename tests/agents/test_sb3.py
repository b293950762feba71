"""Stable-Baselines3 in vector envs, dreamt and real."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from tests.agents.vector_envs import Corridor
from tests.worlds import ACTION_SPACES, NoiseEnv, tiny_world
from worldsim.agents.errors import UnusableSpaceError
from worldsim.dream import DreamEnv, DreamVectorEnv
from worldsim.observed import ObservedVectorEnv
from worldsim.rollouts import play_side_by_side
from worldsim.workflow.policies import DreamTrainedPolicy, EachRow
from worldsim.world_model import WorldModel

stable_baselines3 = pytest.importorskip("stable_baselines3", reason='pip install "worldsim-rl[sb3]"')

from stable_baselines3 import PPO  # noqa: E402
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor  # noqa: E402

from worldsim.agents.sb3 import Sb3Policy, Sb3VecEnv  # noqa: E402


def mortal(actions: str = "discrete") -> WorldModel:
    """A dream in which some rows die and some are cut."""
    model = tiny_world(actions, max_episode_steps=4)
    model.dynamics.head.termination.weight.data.mul_(0.2)
    model.dynamics.head.termination.bias.data.fill_(-1.4)
    return model


def observed(model: WorldModel, rows: int) -> ObservedVectorEnv:
    envs = SyncVectorEnv([partial(NoiseEnv, model)] * rows, autoreset_mode=AutoresetMode.SAME_STEP)
    return ObservedVectorEnv(envs, model)


def test_it_tells_what_their_own_env_tells_of_single_dreams() -> None:
    model = mortal()
    ours = Sb3VecEnv(DreamVectorEnv(model, 3, observation="features"))
    theirs = DummyVecEnv([partial(DreamEnv, model, observation="features")] * 3)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    for envs in (ours, theirs):
        envs.seed(5)
        envs.set_options({"start_context": 7})
    np.testing.assert_allclose(ours.reset(), theirs.reset(), atol=1e-3)  # type: ignore[arg-type]
    random = np.random.default_rng(0)
    cuts = deaths = 0
    for _ in range(20):
        actions = random.integers(3, size=3)
        (shown, rewards, dones, infos), expected = ours.step(actions), theirs.step(actions)
        for given, wanted in zip((shown, rewards, dones), expected[:3], strict=True):
            np.testing.assert_allclose(given, wanted, atol=2e-3)  # type: ignore[arg-type]
            assert given.dtype == wanted.dtype  # type: ignore[union-attr]
        for info, wanted in zip(infos, expected[3], strict=True):
            assert set(info) == set(wanted)
            for name, value in wanted.items():
                np.testing.assert_allclose(info[name], value, atol=2e-3)
        cuts += sum(info["TimeLimit.truncated"] for info in infos)
        deaths += sum(done and not info["TimeLimit.truncated"] for done, info in zip(dones, infos, strict=True))
    assert cuts > 1
    assert deaths > 1


def test_ppo_learns_the_corridor() -> None:
    envs = VecMonitor(Sb3VecEnv(Corridor(16)))
    learner = PPO("MlpPolicy", envs, n_steps=64, batch_size=256, learning_rate=2e-3, seed=1, device="cpu")
    learner.learn(16 * 64 * 10)
    actions, _ = learner.predict(np.eye(7, dtype=np.float32)[:6], deterministic=True)
    assert (actions == 1).all()
    assert np.mean([episode["l"] for episode in learner.ep_info_buffer or []]) < 8


@pytest.mark.parametrize("actions", ACTION_SPACES)
@pytest.mark.parametrize("real", [False, True])
def test_ppo_goes_on_in_dream_and_reality(actions: str, real: bool) -> None:
    model = mortal(actions)
    dream = DreamVectorEnv(model, 4, observation="features")
    learner = PPO("MlpPolicy", VecMonitor(Sb3VecEnv(dream)), n_steps=8, batch_size=16, seed=0, device="cpu")
    learner.learn(64)
    if real:
        learner.set_env(VecMonitor(Sb3VecEnv(observed(model, 4))))
        learner.learn(64)
    assert learner.ep_info_buffer


def test_pixels_are_learned_from_too() -> None:
    envs = Sb3VecEnv(DreamVectorEnv(tiny_world(size=40), 2, render_mode="rgb_array"))
    PPO("CnnPolicy", envs, n_steps=4, batch_size=8, seed=0, device="cpu").learn(8)
    picture = envs.render()
    assert picture is not None
    assert picture.shape[-1] == 3


def test_what_it_learned_plays_real_episodes_that_follow_from_their_seeds() -> None:
    model = mortal("multi_discrete")
    envs = Sb3VecEnv(DreamVectorEnv(model, 2, observation="features"))
    learned = PPO("MlpPolicy", envs, n_steps=8, batch_size=16, seed=0, device="cpu")
    policy = DreamTrainedPolicy(model, EachRow(partial(Sb3Policy, learned)))
    before = torch.random.get_rng_state()
    together = play_side_by_side([NoiseEnv(model) for _ in range(3)], policy, [11, 3, 7])
    for seed, row in zip([11, 3, 7], together, strict=True):
        [alone] = play_side_by_side([NoiseEnv(model)], policy, [seed])
        np.testing.assert_array_equal(row.actions, alone.actions)
    assert torch.equal(torch.random.get_rng_state(), before)
    greedy = Sb3Policy(learned, greedy=True)
    shown = np.zeros(envs.observation_space.shape or (), np.float32)
    assert len({tuple(greedy.act(shown)) for _ in range(5)}) == 1
    assert len({tuple(Sb3Policy(learned).act(shown)) for _ in range(2)}) == 1


def test_attributes_are_those_of_the_vector_env() -> None:
    envs = Sb3VecEnv(DreamVectorEnv(mortal(), 3))
    assert envs.get_attr("temperature") == [1.0, 1.0, 1.0]
    assert envs.get_attr("temperature", indices=[0]) == [1.0]
    envs.set_attr("temperature", 2.0)
    assert envs.get_attr("temperature", indices=1) == [2.0]
    assert envs.env_is_wrapped(gym.Wrapper) == [False, False, False]
    envs.reset()
    assert len(envs.env_method("save_state")) == 3
    with pytest.raises(UnusableSpaceError, match=r"one by one, got indices \[1\]"):
        envs.set_attr("temperature", 2.0, indices=[1])


def test_other_vector_envs_are_refused() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"autoreset_mode": AutoresetMode.NEXT_STEP}, "SAME_STEP"),
        ({"array": "torch"}, "array='numpy'"),
    ]
    for settings, message in wrong:
        with pytest.raises(UnusableSpaceError, match=message):
            Sb3VecEnv(DreamVectorEnv(mortal(), 2, **settings)).reset()
    envs = Sb3VecEnv(DreamVectorEnv(mortal(), 2))
    envs.set_options([{"start_context": 1}, {"start_context": 2}])
    with pytest.raises(UnusableSpaceError, match="one dict of reset options"):
        envs.reset()
