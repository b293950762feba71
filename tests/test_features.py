"""The observation that agents get: latents, their change, belief and last action, each in its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.worlds import ACTION_SPACES, tiny_world
from worldsim.data.actions import action_features
from worldsim.dream import DreamVectorEnv, feature_layout
from worldsim.world_model import WorldModel

ROWS = 4


def parts(model: WorldModel, features: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Latents, change, belief and action of features (B, F)."""
    layout = feature_layout(model)
    size = layout["tokens"] * layout["channels"]
    ends = np.cumsum([size, size, layout["belief"], layout["action"]])
    assert features.shape[1] == ends[-1]
    latents, change, belief, action, nothing = np.split(features, ends, axis=1)
    assert nothing.size == 0
    return latents, change, belief, action


@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_a_step_shows_what_it_changed_and_the_action_that_did(actions: str) -> None:
    model = tiny_world(actions)
    rows = DreamVectorEnv(model, ROWS, observation="features", precision="fp32")
    before, _ = rows.reset(seed=3)
    rows.action_space.seed(3)
    for _ in range(6):
        taken = rows.action_space.sample()
        after, _, terminated, _, infos = rows.step(taken)
        shown = np.stack([infos["final_obs"][row] if terminated[row] else after[row] for row in range(ROWS)])
        latents, change, _, action = parts(model, shown)
        np.testing.assert_allclose(change, latents - parts(model, before)[0], atol=1e-6)
        np.testing.assert_array_equal(action, action_features(model.spec, torch.as_tensor(taken)).numpy())
        assert rows.single_observation_space.contains(shown[0])
        before = after


def test_a_dream_begins_with_the_last_change_and_action_of_its_context() -> None:
    model = tiny_world()
    rows = DreamVectorEnv(model, ROWS, observation="features", precision="fp32")
    for context in (0, 12):  # the first frame of an episode, and a later one
        shown, _ = rows.reset(seed=0, options={"start_context": context})
        latents, change, _, action = parts(model, shown)
        given = model.start_contexts.rows(torch.tensor([context]))
        real = model.dynamics.scale.to_unit(given.latents[0].float()).flatten(1).numpy()  # (frames, N D)
        np.testing.assert_allclose(latents[0], real[-1], atol=1e-6)
        if given.at_start[0]:
            assert not change.any()
            assert not action.any()
        else:
            np.testing.assert_allclose(change[0], real[-1] - real[-2], atol=1e-6)
            np.testing.assert_array_equal(action[0], [1, 0, 0])


def test_a_row_that_begins_anew_leaves_the_others_their_change_and_action() -> None:
    model = tiny_world()
    rows = DreamVectorEnv(model, ROWS, observation="features", precision="fp32")
    rows.reset(seed=0)
    shown, *_ = rows.step(np.array([0, 1, 2, 1]))
    again, _ = rows.reset(options={"reset_mask": np.array([False, True, False, False]), "start_context": 0})
    kept = [0, 2, 3]
    np.testing.assert_array_equal(again[kept], shown[kept])
    _, change, _, action = parts(model, again)
    assert not change[1].any()
    assert not action[1].any()


def test_only_features_have_a_layout() -> None:
    model = tiny_world()
    assert DreamVectorEnv(model, 1, observation="latent").feature_layout is None
    assert DreamVectorEnv(model, 1, observation="features").feature_layout == feature_layout(model)
