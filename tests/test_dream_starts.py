"""Where a dream begins when its user says so."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.worlds import ACTION_SPACES, tiny_world
from worldsim.dream import DreamEnv, DreamVectorEnv
from worldsim.errors import UserError
from worldsim.observations import observe_state
from worldsim.world_model import WorldModel, row_generator


def undying(actions: str = "discrete") -> WorldModel:
    model = tiny_world(actions)
    model.dynamics.head.termination.bias.data.fill_(-1e4)
    return model


def frames_and_actions(model: WorldModel, *shape: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Frames (*shape, H, W, C) and the actions between them."""
    random = np.random.default_rng(0)
    frames = random.integers(256, size=(*shape, *model.spec.frame_shape), dtype=np.uint8)
    space = model.spec.gym_action_space()
    space.seed(0)
    count = int(np.prod(shape[:-1])) * (shape[-1] - 1)
    actions = np.stack([np.asarray(space.sample()) for _ in range(count)])
    return frames, actions.reshape(*shape[:-1], shape[-1] - 1, *(space.shape or ()))


def test_contexts_are_chosen_by_their_index() -> None:
    model = undying()
    rows = DreamVectorEnv(model, 2, observation="features")
    for index, each in (([3, 7], [3, 7]), (12, [12, 12])):
        shown, _ = rows.reset(seed=5, options={"start_context": index})
        contexts = model.start_contexts.rows(torch.tensor(each))
        expected = model.start_from(contexts, [row_generator(5), row_generator(6)])
        assert np.array_equal(shown, observe_state(model, expected, "features"))
    single = DreamEnv(model, observation="features")
    alone, _ = single.reset(seed=6, options={"start_context": 12})
    np.testing.assert_allclose(alone, shown[1], atol=1e-4)


def test_one_frame_needs_no_actions_and_takes_an_empty_list() -> None:
    model = undying("discrete")
    rows = DreamVectorEnv(model, 2, observation="features", precision="fp32")
    frames = frames_and_actions(model, 2)[0][:1]
    without, _ = rows.reset(seed=5, options={"start_frames": frames})
    empty, _ = rows.reset(seed=5, options={"start_frames": frames, "start_actions": []})
    np.testing.assert_array_equal(without, empty)


@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_frames_of_ones_own_begin_a_dream(actions: str) -> None:
    model = undying(actions)
    frames, between = frames_and_actions(model, 3)
    rows = DreamVectorEnv(model, 2, observation="features", precision="fp32")
    shown, _ = rows.reset(seed=5, options={"start_frames": frames, "start_actions": between})
    # By hand: action t leads from frame t to frame t + 1, and nothing led to the first.
    led_to = np.zeros((3, *model.spec.action_shape), model.spec.action_dtype)
    led_to[1:] = between
    known = torch.tensor([[False, True, True]]).expand(2, 3)
    expected = model.start(
        model.encode(torch.from_numpy(frames)).expand(2, -1, -1, -1),
        torch.from_numpy(led_to).expand(2, *led_to.shape),
        known,
        torch.ones_like(known),
        [row_generator(5), row_generator(6)],
    )
    np.testing.assert_allclose(shown, observe_state(model, expected, "features"), atol=2e-3)

    pixels = DreamEnv(model)
    first, _ = pixels.reset(seed=5, options={"start_frames": frames, "start_actions": between})
    np.testing.assert_allclose(first.astype(int), frames[-1], atol=1)
    alone, _ = pixels.reset(seed=5, options={"start_frames": frames[:1]})
    np.testing.assert_allclose(alone.astype(int), frames[0], atol=1)


def test_the_actions_between_the_frames_matter() -> None:
    model = undying()
    frames, between = frames_and_actions(model, 3)
    env = DreamEnv(model, observation="belief")
    one, _ = env.reset(seed=0, options={"start_frames": frames, "start_actions": between})
    other, _ = env.reset(seed=0, options={"start_frames": frames, "start_actions": (between + 1) % 3})
    assert np.abs(one - other).max() > 1e-3


def test_each_row_its_own_frames_and_only_masked_rows_begin() -> None:
    model = undying()
    frames, between = frames_and_actions(model, 3, 4)
    rows = DreamVectorEnv(model, 3)
    before, _ = rows.reset(seed=0)
    mask = np.array([True, False, True])
    options = {"start_frames": frames, "start_actions": between, "reset_mask": mask}
    shown, _ = rows.reset(options=options)
    np.testing.assert_allclose(shown[mask].astype(int), frames[mask][:, -1], atol=1)
    assert np.array_equal(shown[1], before[1])
    assert set(options) == {"start_frames", "start_actions", "reset_mask"}  # left to the caller as they were


def test_rows_have_a_temperature_until_the_next_reset() -> None:
    model = undying()
    actions = np.zeros(2, np.int64)

    def dream(temperature: float, options: dict[str, Any] | None) -> np.ndarray[Any, Any]:
        rows = DreamVectorEnv(model, 2, observation="latent", temperature=temperature, max_episode_steps=2)
        rows.reset(seed=3, options=options)
        return np.stack([rows.step(actions)[0] for _ in range(4)])  # over an autoreset

    cold, hot = dream(0.0, None), dream(4.0, None)
    mixed = dream(1.0, {"temperature": [0.0, 4.0]})
    np.testing.assert_allclose(mixed[:, 0], cold[:, 0], atol=1e-5)
    np.testing.assert_allclose(mixed[:, 1], hot[:, 1], atol=1e-5)
    assert not np.allclose(cold[:, 1], hot[:, 1], atol=1e-2)

    rows = DreamVectorEnv(model, 2, observation="latent")
    rows.reset(seed=3, options={"temperature": 0.0})
    rows.reset(seed=3)
    again, *_ = rows.step(actions)
    rows.reset(seed=3, options={"temperature": model.temperature})
    assert np.array_equal(again, rows.step(actions)[0])


def test_a_rewound_dream_keeps_its_temperature() -> None:
    rows = DreamVectorEnv(undying(), 1, observation="latent")
    rows.reset(seed=0, options={"temperature": 3.0})
    saved = rows.save_state()
    after = rows.step(np.array([1]))[0]
    rows.reset(seed=1)
    rows.load_state(saved)
    assert np.array_equal(rows.step(np.array([1]))[0], after)


def test_wrong_options_are_named() -> None:
    model = undying()
    frames, between = frames_and_actions(model, 3)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"start": 3}, "'start' is unknown: choose among reset_mask, start_context"),
        ({"start_context": 20}, "start_context=20: expected 0 to 19"),
        ({"start_context": -1}, "start_context=-1"),
        ({"start_context": 1.5}, "expected one int64"),
        ({"start_context": [1, 2, 3]}, "one for each of 2 rows"),
        ({"start_context": 1, "start_frames": frames}, "give one of them"),
        ({"start_actions": between}, "without the start_frames"),
        ({"start_frames": frames}, "3 start_frames need start_actions, the 2 actions"),
        ({"start_frames": frames, "start_actions": between[:1]}, r"shape \(1,\): expected \(2,\)"),
        ({"start_frames": frames / 255.0, "start_actions": between}, "are float64"),
        ({"start_frames": frames[:, :8], "start_actions": between}, r"\(16, 16, 3\)"),
        ({"start_frames": np.repeat(frames, 2, 0), "start_actions": np.zeros(5, int)}, "T from 1 to 4"),
        ({"start_frames": frames[0]}, "expected uint8"),
        ({"start_frames": frames, "start_actions": between + 5}, "action"),
        ({"start_frames": frames, "start_actions": between + 0.5}, "start_actions are float64: expected int64"),
        ({"temperature": -1.0}, "temperature=-1"),
        ({"temperature": [1.0, float("inf")]}, "temperature=inf"),
        ({"temperature": "hot"}, "temperature=hot"),
        ({"reset_mask": np.array([False, False])}, "with 0 rows"),
        ({"reset_mask": np.array([1, 0])}, "expected bool"),
        ({"reset_mask": np.ones(3, np.bool_)}, r"\(3,\)"),
    ]
    for options, message in wrong:
        rows = DreamVectorEnv(model, 2)
        with pytest.raises(UserError, match=message):
            rows.reset(seed=0, options=options)
    with pytest.raises(gym.error.ResetNeeded):
        DreamVectorEnv(model, 2).reset(options={"reset_mask": np.array([True, False])})


def test_what_is_refused_changes_nothing() -> None:
    model = undying()
    frames, between = frames_and_actions(model, 3)
    one, other = (DreamVectorEnv(model, 2, observation="features") for _ in range(2))
    for env in (one, other):
        env.reset(seed=0)
    with pytest.raises(UserError):
        one.step(np.array([0, 7]))
    wrong = {"start_frames": frames, "start_actions": between + 5, "temperature": 9.0}
    with pytest.raises(UserError):
        one.reset(seed=99, options=wrong)
    for _ in range(3):
        assert np.array_equal(one.step(np.array([0, 1]))[0], other.step(np.array([0, 1]))[0])


def test_a_dream_may_begin_after_as_many_frames_as_anybody_looks_back_at() -> None:
    model = undying()
    model.stack_ages = (0, 6)
    assert model.dynamics.config.window == 4
    frames, between = frames_and_actions(model, 7)
    env = DreamEnv(model, observation="frame_stack")
    shown, _ = env.reset(seed=0, options={"start_frames": frames, "start_actions": between})
    decoded = model.decode(model.encode(torch.from_numpy(frames[[6, 0]])).half().float()).numpy()
    assert np.abs(shown[..., :3].astype(int) - decoded[0]).max() <= 1
    assert np.abs(shown[..., 3:6].astype(int) - decoded[1]).max() <= 1
    with pytest.raises(UserError, match="T from 1 to 7"):
        env.reset(options={"start_frames": np.repeat(frames, 2, 0), "start_actions": np.zeros(13, int)})


def test_seeds_beyond_32_bits_are_seeds_of_their_own() -> None:
    env = DreamEnv(undying(), observation="features")
    shown = [env.reset(seed=seed)[0] for seed in (5, 5 + 2**32, 5 + 2**63)]
    assert not any(np.array_equal(shown[0], other) for other in shown[1:])
    assert np.array_equal(env.reset(seed=5 + 2**32)[0], shown[1])
