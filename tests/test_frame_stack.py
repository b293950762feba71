"""The frame stack that agents may see: decoded frames of several ages, and the last action as planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.worlds import ACTION_SPACES, NoiseEnv, tiny_reader, tiny_world
from worldsim.agents.networks import PolicyNetwork, network_spec
from worldsim.data.actions import action_features
from worldsim.dream import DreamVectorEnv
from worldsim.errors import UserError
from worldsim.model_folder import load_model, save_model
from worldsim.observations import observed
from worldsim.observed import ObservedEnv
from worldsim.world_model import WorldModel, row_generator

ROWS, AGES = 4, (0, 2, 3)


def stacking_world(actions: str = "discrete") -> WorldModel:
    """A tiny world that never ends and whose agents see frames of AGES."""
    model = tiny_world(actions)
    model.dynamics.head.termination.bias.data.fill_(-1e4)
    model.stack_ages = AGES
    return model


def frames_in(model: WorldModel, stack: np.ndarray) -> list[np.ndarray]:
    """The decoded frames (..., H, W, C) in a stack (..., H, W, K C + A), one for each of AGES."""
    channels = model.spec.frame_shape[-1]
    return [stack[..., k * channels : (k + 1) * channels] for k in range(len(AGES))]


@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_a_stack_shows_the_frames_of_its_ages_and_the_last_action(actions: str) -> None:
    model = stacking_world(actions)
    rows = DreamVectorEnv(model, ROWS, observation="frame_stack", max_episode_steps=50, precision="fp32")
    first, _ = rows.reset(seed=3)
    seen = [frames_in(model, first)[0]]
    rows.action_space.seed(3)
    for t in range(1, 7):
        taken = rows.action_space.sample()
        stack = rows.step(taken)[0]
        assert rows.single_observation_space.contains(stack[0])
        seen.append(frames_in(model, stack)[0])
        for age, frame in zip(AGES, frames_in(model, stack), strict=True):
            if age <= t:
                np.testing.assert_array_equal(frame, seen[t - age])
        planes = stack[..., len(AGES) * model.spec.frame_shape[-1] :]
        levels = action_features(model.spec, torch.as_tensor(taken)).numpy()
        assert (planes == planes[:, :1, :1]).all()
        np.testing.assert_allclose(planes[:, 0, 0] / 127.5 - 1, levels, atol=1 / 255 + 1e-6)


def test_a_dream_begun_anew_shows_its_own_past() -> None:
    model = stacking_world()
    rows = DreamVectorEnv(model, ROWS, observation="frame_stack", max_episode_steps=2, precision="fp32")
    rows.reset(seed=0)
    before = rows.step(rows.action_space.sample())[0]
    fresh, *_, infos = rows.step(rows.action_space.sample())
    contexts = DreamVectorEnv(model, 1, observation="frame_stack", precision="fp32")
    possible = [contexts.reset(options={"start_context": index})[0][0] for index in range(len(model.start_contexts))]
    for row in range(ROWS):
        assert any((fresh[row] == stack).all() for stack in possible)
        last = frames_in(model, infos["final_obs"][row])
        np.testing.assert_array_equal(last[AGES.index(3)], frames_in(model, before[row])[AGES.index(2)])


def test_the_newest_frame_is_what_pixels_show() -> None:
    model = stacking_world()
    stacks = DreamVectorEnv(model, ROWS, observation="frame_stack", precision="fp32")
    pixels = DreamVectorEnv(model, ROWS, observation="pixels", precision="fp32")
    stack, frames = stacks.reset(seed=5)[0], pixels.reset(seed=5)[0]
    for _ in range(8):
        np.testing.assert_array_equal(frames_in(model, stack)[0], frames)
        actions = stacks.action_space.sample()
        stack, frames = stacks.step(actions)[0], pixels.step(actions)[0]


def test_before_the_first_frame_stands_the_first_frame() -> None:
    model = stacking_world()
    env = ObservedEnv(NoiseEnv(model), model, "frame_stack")
    stack, _ = env.reset(seed=0)
    first = frames_in(model, stack)
    for frame in first:
        np.testing.assert_array_equal(frame, first[0])
    for t in range(1, 4):
        stack, *_ = env.step(0)
        for age, frame in zip(AGES, frames_in(model, stack), strict=True):
            if age >= t:
                np.testing.assert_array_equal(frame, first[0])


def test_a_context_shows_the_frames_it_holds() -> None:
    model = stacking_world()
    contexts = model.start_contexts.rows(torch.arange(ROWS))
    state = model.start_from(contexts, [row_generator(row) for row in range(ROWS)])
    shown = observed(model, state, "frame_stack").numpy()
    latents = model.dynamics.scale.to_unit(contexts.latents.float())
    for row in range(ROWS):
        held = latents[row][contexts.present[row]]
        for age, frame in zip(AGES, frames_in(model, shown[row]), strict=True):
            index = max(len(held) - 1 - age, 0)
            np.testing.assert_array_equal(frame, model.decode(held[index]).numpy())


def test_a_saved_dream_goes_on_with_its_past() -> None:
    model = stacking_world()
    model.endings = tiny_reader(model)
    rows = DreamVectorEnv(model, ROWS, observation="frame_stack", precision="fp32")
    rows.reset(seed=1)
    actions = np.zeros((6, ROWS), np.int64)
    for action in actions[:3]:
        before = rows.step(action)[0]
    saved = rows.save_state()
    first = [rows.step(action) for action in actions]
    for row in range(ROWS):  # a row that begins anew is written into what the others hold
        np.testing.assert_array_equal(rows.load_state(saved), before)
        rows.reset(options={"reset_mask": np.arange(ROWS) == row})
    np.testing.assert_array_equal(rows.load_state(saved), before)
    for action, (stack, *_, infos) in zip(actions, first, strict=True):
        again = rows.step(action)
        np.testing.assert_array_equal(again[0], stack)
        np.testing.assert_array_equal(again[4]["termination_probability"], infos["termination_probability"])


def test_some_rows_of_a_state_keep_their_frames() -> None:
    model = stacking_world()
    state = model.start_from(model.start_contexts.rows(torch.arange(ROWS)), [row_generator(r) for r in range(ROWS)])
    stack = observed(model, state, "frame_stack")
    rows = torch.tensor([3, 1])
    torch.testing.assert_close(observed(model, state.select_rows(rows), "frame_stack"), stack[rows])
    fresh = state.select_rows(torch.tensor([0, 2]))
    mixed = model.replace_rows(state.clone(), rows, fresh)
    torch.testing.assert_close(observed(model, mixed, "frame_stack")[rows], stack[[0, 2]])


def test_a_folder_keeps_the_ages(tmp_path: Path) -> None:
    model = stacking_world()
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.stack_ages == AGES
    assert loaded.agent_observation == "frame_stack"


def test_a_model_without_ages_says_what_to_do() -> None:
    model = tiny_world()
    assert model.agent_observation == "features"
    with pytest.raises(UserError, match="stack_ages"):
        DreamVectorEnv(model, 1, observation="frame_stack")


def test_a_new_policy_of_stacks_repeats_its_last_action() -> None:
    model = stacking_world()
    rows = DreamVectorEnv(model, ROWS, observation="frame_stack", precision="fp32")
    policy = PolicyNetwork(network_spec(rows, [8]))
    policy.persist(0.9)
    rows.reset(seed=0)
    taken = rows.action_space.sample()
    stack = rows.step(taken)[0]
    with torch.no_grad():
        chosen = policy(torch.from_numpy(stack))
        probability = chosen.log_prob(torch.from_numpy(taken)).exp()
    np.testing.assert_allclose(probability, 0.9, atol=0.01)
