"""Autoreset, compared with Gymnasium's own vector env over single dreams."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from tests.worlds import ACTION_SPACES, tiny_world
from worldsim.dream import DreamEnv, DreamVectorEnv

ROWS = 4
TOLERANCE = 2e-3  # rounding of other batch sizes, grown over the steps of an episode


def close(one: Any, other: Any) -> None:
    np.testing.assert_allclose(np.asarray(one, np.float64), np.asarray(other, np.float64), atol=TOLERANCE)


@pytest.mark.parametrize("actions", ACTION_SPACES)
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_it_is_that_of_gymnasiums_vector_env(mode: AutoresetMode, actions: str) -> None:
    model = tiny_world(actions, max_episode_steps=5)
    head = model.dynamics.head  # hazards of about 0.2, so that some rows die and some live to be cut
    head.termination.weight.data.mul_(0.2)
    head.termination.bias.data.fill_(-1.4)
    make = partial(DreamEnv, model, observation="features")
    rows = DreamVectorEnv(model, ROWS, observation="features", autoreset_mode=mode)
    theirs = SyncVectorEnv([make] * ROWS, autoreset_mode=mode)
    for name in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
        assert getattr(rows, name) == getattr(theirs, name), name
    assert rows.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"]
    close(rows.reset(seed=7)[0], theirs.reset(seed=7)[0])
    rows.action_space.seed(1)
    deaths = cuts = 0
    for _ in range(24):
        action = rows.action_space.sample()
        shown, rewards, terminated, truncated, infos = rows.step(action)
        expected = theirs.step(action)
        for ours, other in zip((shown, rewards, terminated, truncated), expected[:4], strict=True):
            close(ours, other)
            assert ours.dtype == other.dtype
        check_infos(infos, expected[4], terminated | truncated, mode)
        deaths, cuts = deaths + int(terminated.sum()), cuts + int(truncated.sum())
        if mode is AutoresetMode.DISABLED and (terminated | truncated).any():
            mask = terminated | truncated
            again = [envs.reset(options={"reset_mask": mask.copy()})[0] for envs in (rows, theirs)]
            close(*again)
            close(again[0][~mask], shown[~mask])
    assert deaths > 2
    assert cuts > 2


def check_infos(infos: dict[str, Any], expected: dict[str, Any], ended: Any, mode: AutoresetMode) -> None:
    same_step = mode is AutoresetMode.SAME_STEP and ended.any()
    assert ("final_obs" in infos) == ("final_obs" in expected) == same_step
    told = expected
    if same_step:
        for name in ("_final_obs", "_final_info"):
            np.testing.assert_array_equal(infos[name], expected[name])
        assert infos["final_obs"].dtype == expected["final_obs"].dtype
        for row in range(ROWS):
            if ended[row]:
                close(infos["final_obs"][row], expected["final_obs"][row])
            else:
                assert infos["final_obs"][row] is None
                assert expected["final_obs"][row] is None
    for name in ("termination_probability", "uncertainty"):
        if mode is not AutoresetMode.SAME_STEP:  # there a dream tells of the step that was made, where a reset followed
            if name in told:
                np.testing.assert_array_equal(infos[f"_{name}"], told[f"_{name}"])
            else:
                assert not infos[f"_{name}"].any()
        known = told.get(f"_{name}", np.zeros(ROWS, np.bool_))
        close(infos[name][known], told[name][known] if known.any() else [])
        if same_step:
            close(infos["final_info"][name][ended], expected["final_info"][name][ended])
            close(infos[name][ended], infos["final_info"][name][ended])
