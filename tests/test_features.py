"""The observation that agents get: latents, their change, belief and last action, each in its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.worlds import ACTION_SPACES, tiny_world
from worldsim.data.actions import action_features
from worldsim.dream import DreamVectorEnv
from worldsim.observations import feature_layout
from worldsim.world_model import WorldModel

ROWS = 4


def parts(model: WorldModel, features: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Latents, change, belief and action of features (B, F)."""
    layout = feature_layout(model)
    assert layout["frames"] == 1
    size = layout["tokens"] * layout["channels"]
    ends = np.cumsum([size, size, layout["belief"], layout["action"]])
    assert features.shape[1] == ends[-1]
    latents, change, belief, action, nothing = np.split(features, ends, axis=1)
    assert nothing.size == 0
    return latents, change, belief, action


def features_of_a_frame(model: WorldModel) -> int:
    """How many numbers a frame has: latents, change and action."""
    layout = feature_layout(model)
    return 2 * layout["tokens"] * layout["channels"] + layout["action"]


def without_belief(model: WorldModel, newest: NDArray[Any]) -> NDArray[Any]:
    """Of the newest frame's numbers (F,) those that it will keep."""
    layout = feature_layout(model)
    changes = 2 * layout["tokens"] * layout["channels"]
    return np.concatenate([newest[:changes], newest[changes + layout["belief"] :]])


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


@pytest.mark.parametrize("actions", ["discrete", "box"])
def test_the_past_is_what_was_shown_before(actions: str) -> None:
    model = tiny_world(actions)
    model.feature_frames = 3
    frame = features_of_a_frame(model)
    rows = DreamVectorEnv(model, ROWS, observation="features", max_episode_steps=5, precision="fp32")
    rows.action_space.seed(3)
    before, _ = rows.reset(seed=3)
    assert before.shape == rows.observation_space.shape
    for _ in range(12):
        after, _, terminated, truncated, infos = rows.step(rows.action_space.sample())
        for row in range(ROWS):
            shown = infos["final_obs"][row] if terminated[row] or truncated[row] else after[row]
            assert rows.single_observation_space.contains(shown)
            np.testing.assert_array_equal(shown[:frame], before[row, frame : 2 * frame])
            newest = before[row, 2 * frame :]
            np.testing.assert_array_equal(shown[frame : 2 * frame], without_belief(model, newest))
        before = after


@pytest.mark.parametrize("context", [0, 12])
def test_a_dream_begins_with_the_past_of_its_context(context: int) -> None:
    """As if the context had been observed frame by frame from the beginning of its episode."""
    model = tiny_world()
    model.feature_frames = 3
    frame = features_of_a_frame(model)
    rows = DreamVectorEnv(model, 1, observation="features", precision="fp32")
    observations, _ = rows.reset(seed=0, options={"start_context": context})
    shown = observations[0]
    given = model.start_contexts.rows(torch.tensor([context]))
    present = int(given.present.sum())
    real = model.dynamics.scale.to_unit(given.latents[0].float()).flatten(1).numpy()[-present:]
    size = real.shape[1]
    for back in (1, 2):
        past = shown[(2 - back) * frame : (3 - back) * frame]
        if back < present:
            np.testing.assert_allclose(past[:size], real[-1 - back], atol=1e-6)
            change = real[-1 - back] - real[-2 - back] if back + 1 < present else np.zeros(size)
            np.testing.assert_allclose(past[size : 2 * size], change, atol=1e-6)
        else:
            assert not past.any()


def test_a_row_that_begins_anew_forgets_its_past_and_leaves_the_others_theirs() -> None:
    model = tiny_world()
    model.feature_frames = 3
    frame = features_of_a_frame(model)
    rows = DreamVectorEnv(model, ROWS, observation="features", precision="fp32")
    rows.reset(seed=0)
    for _ in range(3):
        shown, *_ = rows.step(np.array([0, 1, 2, 1]))
    again, _ = rows.reset(options={"reset_mask": np.array([False, True, False, False]), "start_context": 0})
    np.testing.assert_array_equal(again[[0, 2, 3]], shown[[0, 2, 3]])
    assert shown[1, : 2 * frame].any()
    assert not again[1, : 2 * frame].any()


def test_only_features_have_a_layout() -> None:
    model = tiny_world()
    assert DreamVectorEnv(model, 1, observation="latent").observation_layout is None
    assert DreamVectorEnv(model, 1, observation="features").observation_layout == feature_layout(model)
