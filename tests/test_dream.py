"""The dream as Gymnasium sees it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from tests.worlds import tiny_world
from worldsim.dream import OBSERVATIONS, DreamEnv, DreamVectorEnv
from worldsim.dynamics.build import DYNAMICS
from worldsim.errors import UserError
from worldsim.model_folder import save_model


@pytest.fixture(scope="module", params=list(DYNAMICS))
def kind(request: pytest.FixtureRequest) -> str:
    """Of the dynamics: every dream keeps the same promises."""
    return str(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, kind: str) -> Path:
    path = tmp_path_factory.mktemp("model")
    save_model(tiny_world(kind=kind), path)
    return path


def actions_for(envs: DreamVectorEnv, steps: int, seed: int = 0) -> list[np.ndarray[Any, Any]]:
    envs.action_space.seed(seed)
    return [envs.action_space.sample() for _ in range(steps)]


@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("actions", ["discrete", "box"])
def test_gymnasium_accepts_it(observation: str, actions: str, kind: str, tmp_path: Path) -> None:
    save_model(tiny_world(actions, kind=kind), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make(
            "worldsim:worldsim/Dream-v0", model=str(tmp_path), observation=observation, render_mode="rgb_array"
        )
        check_env(env.unwrapped)


def test_it_is_made_from_a_folder_alone(folder: Path) -> None:
    env = gym.make("worldsim:worldsim/Dream-v0", model=str(folder), observation="belief")
    observation, _ = env.reset(seed=3)
    assert env.observation_space.contains(observation)
    rows = gym.make_vec(
        "worldsim:worldsim/Dream-v0", num_envs=4, vectorization_mode="vector_entry_point", model=str(folder)
    )
    observations, _ = rows.reset(seed=3)
    assert observations.shape == (4, 16, 16, 3)
    assert observations.dtype == np.uint8
    observations, rewards, *_ = rows.step(rows.action_space.sample())
    assert observations.shape == (4, 16, 16, 3)
    assert rewards.shape == (4,)


def test_row_i_of_seed_s_is_the_env_seeded_s_plus_i(kind: str) -> None:
    model = tiny_world(kind=kind)
    rows = DreamVectorEnv(model, 4, observation="features", precision="fp32")
    observations, _ = rows.reset(seed=10)
    actions = actions_for(rows, 6)
    dreams = [observations]
    endings = []
    for action in actions:
        observations, _, terminated, truncated, infos = rows.step(action)
        final = infos.get("final_obs", observations)
        ended = terminated | truncated
        dreams.append(np.stack([final[i] if ended[i] else observations[i] for i in range(4)]))
        endings.append(ended)
    for row in range(4):
        env = DreamEnv(model, observation="features")
        observation, _ = env.reset(seed=10 + row)
        assert np.allclose(observation, dreams[0][row], atol=1e-4)
        for step, action in enumerate(actions):
            observation, _, died, cut, _ = env.step(action[row])
            assert np.allclose(observation, dreams[step + 1][row], atol=1e-3)
            assert (died or cut) == bool(endings[step][row])
            if died or cut:
                break


def test_rows_that_restart_on_the_next_step_dream_as_those_that_restart_at_once(kind: str) -> None:
    """With 0 as the only action both see the same actions, whatever step a restart takes."""
    model = tiny_world(kind=kind)
    nothing = np.zeros(3, np.int64)
    dreams: dict[AutoresetMode, list[list[np.ndarray[Any, Any]]]] = {}
    for mode in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
        rows = DreamVectorEnv(model, 3, observation="features", autoreset_mode=mode, precision="fp32")
        shown, _ = rows.reset(seed=2)
        dreams[mode] = [[first] for first in shown]
        for _ in range(40):
            shown, _, terminated, truncated, infos = rows.step(nothing)
            for row in range(3):
                if mode is AutoresetMode.SAME_STEP and (terminated | truncated)[row]:
                    dreams[mode][row].append(infos["final_obs"][row])
                dreams[mode][row].append(shown[row])
    for at_once, next_step in zip(*dreams.values(), strict=True):
        for one, other in zip(at_once[:40], next_step[:40], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-3)


def test_one_seed_is_one_dream_bitwise(kind: str) -> None:
    rows = DreamVectorEnv(tiny_world(kind=kind), 3, observation="latent")
    played = []
    for _ in range(2):
        first, _ = rows.reset(seed=5)
        played.append([first, *(rows.step(action)[0] for action in actions_for(rows, 8))])
    for one, other in zip(*played, strict=True):
        assert np.array_equal(one, other)


def test_saved_states_branch_and_rewind(kind: str) -> None:
    rows = DreamVectorEnv(tiny_world(kind=kind), 2, observation="features")
    rows.reset(seed=0)
    rows.step(np.array([0, 1]))
    saved = rows.save_state()
    actions = actions_for(rows, 5)
    once = [rows.step(action)[0] for action in actions]
    rows.load_state(saved)
    again = [rows.step(action)[0] for action in actions]
    for one, other in zip(once, again, strict=True):
        assert np.array_equal(one, other)


def test_truncation_is_told_and_bootstrapped_from_final_obs(kind: str) -> None:
    rows = DreamVectorEnv(tiny_world(kind=kind), 2, observation="latent", max_episode_steps=3)
    rows.model.dynamics.head.termination.bias.data.fill_(-1e4)
    rows.reset(seed=0)
    for length in (1, 2, 3):
        observations, _, terminated, truncated, infos = rows.step(np.array([0, 2]))
        assert not terminated.any()
        assert truncated.all() == (length == 3)
    assert infos["_final_obs"].all()
    assert not np.array_equal(infos["final_obs"][0], observations[0])
    assert rows.single_observation_space.contains(infos["final_obs"][1])


def test_next_step_and_disabled_autoreset(kind: str) -> None:
    model = tiny_world(kind=kind)
    model.dynamics.head.termination.bias.data.fill_(-1e4)
    rows = DreamVectorEnv(model, 2, max_episode_steps=2, autoreset_mode=AutoresetMode.NEXT_STEP)
    rows.reset(seed=0)
    rows.step(np.array([0, 0]))
    _, _, _, truncated, infos = rows.step(np.array([0, 0]))
    assert truncated.all()
    assert "final_obs" not in infos
    _, rewards, terminated, truncated, _ = rows.step(np.array([0, 0]))
    assert not rewards.any()
    assert not terminated.any()
    assert not truncated.any()
    _, _, _, truncated, _ = rows.step(np.array([0, 0]))
    assert not truncated.any()

    manual = DreamVectorEnv(model, 2, max_episode_steps=1, autoreset_mode=AutoresetMode.DISABLED)
    manual.reset(seed=0)
    manual.step(np.array([0, 0]))
    with pytest.raises(gym.error.ResetNeeded):
        manual.step(np.array([0, 0]))
    manual.reset(options={"reset_mask": np.array([True, True])})
    manual.step(np.array([0, 0]))


def test_endings_come_at_the_predicted_rate(kind: str) -> None:
    model = tiny_world(kind=kind)
    head = model.dynamics.head
    head.termination.weight.data.zero_()
    head.termination.bias.data.fill_(float(torch.logit(torch.tensor(0.2))))
    rows = DreamVectorEnv(model, 64, observation="belief", max_episode_steps=10_000)
    rows.reset(seed=0)
    rate = np.mean([rows.step(action)[2].mean() for action in actions_for(rows, 40)])
    assert rate == pytest.approx(0.2, abs=0.03)


def test_temperature_zero_dreams_the_same_from_any_seed_but_for_context_noise(kind: str) -> None:
    model = tiny_world(kind=kind)
    model.dynamics.config.context_noise = 0.0
    model.dynamics.head.termination.bias.data.fill_(-1e4)
    rows = DreamVectorEnv(model, 2, observation="latent", temperature=0.0)
    contexts = model.start_contexts.rows(torch.tensor([7]))
    rows = DreamVectorEnv(model, 2, observation="latent", temperature=0.0, start_contexts=contexts)
    rows.reset(seed=0)
    observations, *_ = rows.step(np.array([1, 1]))
    assert np.allclose(observations[0], observations[1], atol=1e-5)
    warm = DreamVectorEnv(model, 2, observation="latent", temperature=1.0, start_contexts=contexts)
    warm.reset(seed=0)
    observations, *_ = warm.step(np.array([1, 1]))
    assert not np.allclose(observations[0], observations[1], atol=1e-3)


def test_bad_input_is_named() -> None:
    model = tiny_world()
    for wrong in (
        {"observation": "smell"},
        {"num_envs": 0},
        {"temperature": -1.0},
        {"start": "middle"},
        {"render_mode": "ascii"},
    ):
        with pytest.raises(UserError, match=str(next(iter(wrong.values())))):
            DreamVectorEnv(model, **{"num_envs": 2, **wrong})  # type: ignore[arg-type]
    env = DreamEnv(model)
    env.reset(seed=0)
    with pytest.raises(UserError, match="7"):
        env.step(7)
    with pytest.raises(UserError, match="no world model"):
        DreamEnv("nowhere/at/all")
