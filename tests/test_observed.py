"""Real envs with a dream's observation."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from tests.worlds import ACTION_SPACES, NoiseEnv, tiny_world
from worldsim.dream import DreamVectorEnv
from worldsim.errors import UserError
from worldsim.observed import ObservedEnv, ObservedVectorEnv
from worldsim.world_model import WorldModel

OBSERVED = ("latent", "belief", "features")


def rows_of(model: WorldModel, count: int, mode: AutoresetMode, observation: str = "features") -> ObservedVectorEnv:
    return ObservedVectorEnv(SyncVectorEnv([partial(NoiseEnv, model)] * count, autoreset_mode=mode), model, observation)


@pytest.mark.parametrize("actions", ACTION_SPACES)
@pytest.mark.parametrize("observation", OBSERVED)
def test_gymnasium_accepts_it(actions: str, observation: str) -> None:
    model = tiny_world(actions)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        check_env(ObservedEnv(NoiseEnv(model), model, observation), skip_render_check=True)


@pytest.mark.parametrize("observation", OBSERVED)
def test_its_spaces_are_those_of_the_dream(observation: str) -> None:
    model = tiny_world()
    dream = DreamVectorEnv(model, 3, observation=observation)
    rows = rows_of(model, 3, AutoresetMode.SAME_STEP, observation)
    for name in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
        assert getattr(rows, name) == getattr(dream, name), name
    single = ObservedEnv(NoiseEnv(model), model, observation)
    assert single.observation_space == dream.single_observation_space
    assert rows.observation_space.contains(rows.reset(seed=0)[0])


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_row_i_is_the_single_env_seeded_s_plus_i(mode: AutoresetMode) -> None:
    model = tiny_world()
    rows = rows_of(model, 4, mode)
    shown, _ = rows.reset(seed=10)
    singles = [ObservedEnv(NoiseEnv(model), model) for _ in range(4)]
    for row, single in enumerate(singles):
        first, _ = single.reset(seed=10 + row)
        np.testing.assert_allclose(shown[row], first, atol=1e-4)
    rows.action_space.seed(0)
    stale = np.zeros(4, np.bool_)  # ended, and not begun anew yet
    restarts: list[bool] = []
    for _ in range(30):
        actions = rows.action_space.sample()
        shown, rewards, terminated, _, infos = rows.step(actions)
        for row, single in enumerate(singles):
            if stale[row]:  # NEXT_STEP: this step was the reset
                first, _ = single.reset()
                np.testing.assert_allclose(shown[row], first, atol=1e-4)
                assert not terminated[row]
                assert infos["foreseen_termination"][row] == 0
                assert not infos["_foreseen_termination"][row]
                continue
            assert 0 < infos["foreseen_termination"][row] < 1
            assert infos["_foreseen_termination"][row]
            last, reward, died, _, _ = single.step(actions[row])
            assert (rewards[row], terminated[row]) == (reward, died)
            if died and mode is AutoresetMode.SAME_STEP:
                np.testing.assert_allclose(infos["final_obs"][row], last, atol=1e-4)
                last, _ = single.reset()
            np.testing.assert_allclose(shown[row], last, atol=1e-4)
        restarts += terminated.tolist()
        stale = terminated & (mode is AutoresetMode.NEXT_STEP)
        if mode is AutoresetMode.DISABLED and terminated.any():
            shown, _ = rows.reset(options={"reset_mask": terminated})
            for begun in np.flatnonzero(terminated):
                np.testing.assert_allclose(shown[begun], singles[begun].reset()[0], atol=1e-4)
    assert sum(restarts) > 8


def test_it_must_be_reset_first() -> None:
    model = tiny_world()
    with pytest.raises(gym.error.ResetNeeded):
        rows_of(model, 2, AutoresetMode.SAME_STEP).step(np.zeros(2, np.int64))
    with pytest.raises(gym.error.ResetNeeded):
        ObservedEnv(NoiseEnv(model), model).step(0)
    with pytest.raises(gym.error.ResetNeeded, match="without a mask"):
        rows_of(model, 2, AutoresetMode.DISABLED).reset(options={"reset_mask": np.array([True, False])})


def test_another_env_is_refused() -> None:
    model, other = tiny_world(), tiny_world("box")
    with pytest.raises(UserError, match=r"actions are Box.*knows Discrete\(3\)"):
        ObservedEnv(NoiseEnv(other), model)
    grey: Any = gym.wrappers.GrayscaleObservation(NoiseEnv(model), keep_dim=True)
    with pytest.raises(UserError, match="frames are"):
        ObservedEnv(grey, model)


def test_a_copy_of_its_state_can_be_dreamt_on_and_leaves_it_alone() -> None:
    model = tiny_world()
    rows, others = (rows_of(model, 3, AutoresetMode.SAME_STEP) for _ in range(2))
    for env in (rows, others):
        with pytest.raises(gym.error.ResetNeeded):
            env.state()
        env.reset(seed=4)
    actions = np.array([0, 1, 2])
    for _ in range(4):
        state, step = model.step(rows.state(), torch.from_numpy(actions))
        assert step.latents.shape == state.latents.shape
        shown, _, _, _, infos = rows.step(actions)
        again, *_ = others.step(actions)
        np.testing.assert_array_equal(shown, again)
        foreseen = infos["foreseen_termination"]
        assert foreseen.shape == (3,)
        # An ending is foreseen from the past alone: the same for the dreamt and for the real frame.
        np.testing.assert_allclose(foreseen, step.termination_probability.numpy(), atol=1e-5)


def test_what_ended_before_a_reset_is_not_begun_again_after_it() -> None:
    model = tiny_world()
    rows, fresh = (rows_of(model, 2, AutoresetMode.NEXT_STEP) for _ in range(2))
    rows.reset(seed=10)
    actions = np.array([2, 1])
    while not rows.step(actions)[2].any():
        pass
    for each in (rows, fresh):
        each.reset(seed=20)
    for _ in range(2):
        np.testing.assert_allclose(rows.step(actions)[0], fresh.step(actions)[0], atol=1e-4)


def test_a_row_that_is_reset_alone_draws_by_its_seed() -> None:
    model = tiny_world()
    rows = rows_of(model, 2, AutoresetMode.DISABLED)
    rows.reset(seed=16)  # nine steps and ten
    seen = []
    for _ in range(2):
        rows.reset(seed=[None, 46], options={"reset_mask": np.array([False, True])})
        seen.append(np.stack([rows.step(np.array([2, 1]))[0][1] for _ in range(3)]))
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-4)
