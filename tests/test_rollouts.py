from __future__ import annotations

import pickle
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.data.counting import SHAPE, CountingEnv, read_picture
from tests.levers import Levers
from worldsim.errors import UserError
from worldsim.rollouts import Action, EpisodeResult, Policy, play_episode, play_many, play_side_by_side
from worldsim.scripted_policies import Constant, OpenLoop, StickyRandom, UniformRandom

FIVE = gym.spaces.Discrete(5)
PARTS = gym.spaces.MultiDiscrete([3, 2], start=[1, 0])
BUTTONS = gym.spaces.MultiBinary(3)
BOX = gym.spaces.Box(np.array([-1, 0], np.float32), np.array([1, 10], np.float32))
FRAME = np.zeros(SHAPE, np.uint8)


class StepReader:
    """Acts on what it sees: the step in the picture, modulo 5."""

    name = "step-reader"

    def reset(self, seed: int) -> None:
        pass

    def __call__(self, frame: NDArray[np.uint8]) -> Action:
        return int(read_picture(frame)[1]) % 5


class ManyStepReaders:
    """The same for rows side by side, and a record of who played beside whom."""

    name = "step-readers"

    def __init__(self) -> None:
        self.rows: list[list[int]] = []

    def reset(self, seeds: Sequence[int]) -> None:
        self.rows.clear()

    def __call__(self, frames: NDArray[np.uint8], rows: NDArray[np.int64]) -> list[Action]:
        assert len(frames) == len(rows)
        self.rows.append(rows.tolist())
        return [int(step) % 5 for step in read_picture(frames)[1]]


class NoTicsEnv(CountingEnv):
    """Shows all frames in one buffer and does not count tics."""

    buffer = np.zeros(SHAPE, np.uint8)

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        frame, reward, terminated, truncated, _ = super().step(action)
        self.buffer[:] = frame
        return self.buffer, reward, terminated, truncated, {}


class FailingEnv(CountingEnv):
    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        raise RuntimeError("no licence")


def assert_equal(first: EpisodeResult, second: EpisodeResult) -> None:
    for name, value in vars(first).items():
        np.testing.assert_array_equal(value, getattr(second, name), err_msg=name)


def test_action_t_leads_from_frame_t_to_the_next() -> None:
    env = CountingEnv()
    result = play_episode(env, StepReader(), seed=6)
    assert result.length == env.length
    assert result.frames is not None
    numbers, steps = read_picture(result.frames)
    assert (numbers == 6).all()
    assert steps.tolist() == list(range(result.length + 1))
    assert result.actions.dtype == np.int64
    assert result.actions.tolist() == [t % 5 for t in range(result.length)]
    assert result.rewards.dtype == np.float32
    assert result.rewards.tolist() == result.actions.tolist()
    assert result.total_reward == result.actions.sum()
    assert result.tics == 2 * result.length - (result.length % 3 == 0)
    assert (result.terminated, result.truncated) == (result.length % 2 == 0, result.length % 2 == 1)


def test_frames_need_not_be_kept() -> None:
    kept = play_episode(CountingEnv(), UniformRandom(FIVE), 5)
    lean = play_episode(CountingEnv(), UniformRandom(FIVE), 5, keep_frames=False)
    assert lean.frames is None
    np.testing.assert_array_equal(kept.actions, lean.actions)


def test_reused_buffers_and_missing_tics() -> None:
    result = play_episode(NoTicsEnv(), Constant(1), 5)
    assert result.frames is not None
    assert read_picture(result.frames)[1].tolist() == list(range(result.length + 1))
    assert result.tics == result.length


@pytest.mark.parametrize(
    ("limits", "length"),
    [({"max_steps": 2}, 2), ({"max_tics": 4}, 2), ({"max_tics": 5}, 2), ({"max_tics": 1}, 1)],
)
def test_limits_truncate(limits: dict[str, Any], length: int) -> None:
    steps: list[int] = []
    result = play_episode(CountingEnv(), Constant(1), 5, on_step=steps.append, **limits)
    assert (result.length, result.tics, steps) == (length, 2 * length, [2] * length)
    assert (result.terminated, result.truncated) == (False, True)


def test_actions_of_several_parts_are_recorded_as_int64() -> None:
    actions = [np.array([1, 0, 1], np.int8), np.array([0, 0, 1], np.int8)]
    result = play_episode(Levers(binary=True), OpenLoop(actions), 5, max_steps=3)
    assert result.actions.dtype == np.int64
    assert result.actions.tolist() == [[1, 0, 1], [0, 0, 1], [1, 0, 1]]


def test_a_limit_at_the_very_end_does_not_truncate_a_termination() -> None:
    seed = next(seed for seed in range(100) if play_episode(CountingEnv(), Constant(1), seed).terminated)
    whole = play_episode(CountingEnv(), Constant(1), seed)
    limited = play_episode(CountingEnv(), Constant(1), seed, max_steps=whole.length)
    assert_equal(whole, limited)
    assert not limited.truncated


def test_side_by_side_each_plays_its_own_episode() -> None:
    seeds = [6, 3, 12, 6]
    policy = ManyStepReaders()
    results = play_side_by_side([CountingEnv() for _ in seeds], policy, seeds)
    for seed, result in zip(seeds, results, strict=True):
        assert_equal(result, play_episode(CountingEnv(), StepReader(), seed))
    lengths = [result.length for result in results]
    assert len(set(lengths)) > 1, "some rows must go on when others have ended"
    assert policy.rows == [[row for row in range(4) if lengths[row] > t] for t in range(max(lengths))]
    lean = play_side_by_side([CountingEnv() for _ in seeds], policy, seeds, keep_frames=False)
    assert [result.actions.tolist() for result in lean] == [result.actions.tolist() for result in results]
    with pytest.raises(ValueError, match="4 episodes side by side need as many envs, got 1"):
        play_side_by_side([CountingEnv()], policy, seeds)


@pytest.mark.parametrize("budget", [1, 6, 7, 13, 20, 35])
def test_episodes_side_by_side_share_their_tics(budget: int) -> None:
    spent: list[int] = []
    results = play_side_by_side(
        [CountingEnv() for _ in range(3)], ManyStepReaders(), [5, 8, 9], max_tics=budget, on_step=spent.append
    )
    assert all(result.length >= 1 and (result.terminated or result.truncated) for result in results)
    assert sum(spent) == sum(result.tics for result in results)
    assert sum(spent) <= max(budget, 6)  # one step of each may not be refused
    whole = [play_episode(CountingEnv(), StepReader(), seed).length for seed in (5, 8, 9)]
    if sum(2 * length for length in whole) > budget:
        assert any(result.length < length for result, length in zip(results, whole, strict=True))


def test_blocks_do_not_depend_on_the_workers() -> None:
    seeds = list(range(11))
    one = play_many(CountingEnv, ManyStepReaders, seeds, side_by_side=3, keep_frames=True)
    two = play_many(CountingEnv, ManyStepReaders, seeds, 2, side_by_side=3, keep_frames=True)
    for seed, first, second in zip(seeds, one, two, strict=True):
        assert_equal(first, second)
        assert_equal(first, play_episode(CountingEnv(), StepReader(), seed))


def test_frames_of_another_kind_are_a_user_error() -> None:
    env = gym.wrappers.DtypeObservation(CountingEnv(), np.float32)
    with pytest.raises(UserError, match=r"float32 \(4, 6, 3\): expected frames uint8"):
        play_episode(env, Constant(0), 0)


def test_many_episodes_do_not_depend_on_the_workers() -> None:
    seeds = [9, 2, 7, 4, 11]
    make_policy = partial(StickyRandom, FIVE)
    one = play_many(CountingEnv, make_policy, seeds, keep_frames=True)
    heard: list[int] = []
    two = play_many(
        CountingEnv, make_policy, seeds, 2, keep_frames=True, on_episode=lambda result: heard.append(result.seed)
    )
    assert [result.seed for result in one] == seeds
    assert sorted(heard) == sorted(seeds)
    for first, second in zip(one, two, strict=True):
        assert_equal(first, second)
    assert play_many(CountingEnv, make_policy, [], 4) == []


def test_a_failing_worker_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"worker \d failed: RuntimeError: no licence"):
        play_many(FailingEnv, partial(Constant, 1), [1, 2], 2)
    with pytest.raises(UserError, match="workers: 0"):
        play_many(CountingEnv, partial(Constant, 1), [1], 0)


def draw(policy: Policy, seed: int, count: int) -> list[Any]:
    policy.reset(seed)
    return [policy(FRAME) for _ in range(count)]


@pytest.mark.parametrize(
    "policy",
    [
        UniformRandom(FIVE),
        StickyRandom(FIVE),
        StickyRandom(BOX, 0.5),
        OpenLoop([1, 2], 3),
        UniformRandom(BOX),
        StickyRandom(PARTS),
        UniformRandom(BUTTONS),
    ],
)
def test_policies_follow_from_the_seed_and_are_picklable(policy: Policy) -> None:
    first = draw(policy, 3, 50)
    draw(policy, 4, 7)
    np.testing.assert_array_equal(first, draw(policy, 3, 50))
    np.testing.assert_array_equal(first, draw(pickle.loads(pickle.dumps(policy)), 3, 50))


def test_uniform_actions_fill_their_space() -> None:
    actions = draw(UniformRandom(gym.spaces.Discrete(5, start=2)), 0, 2000)
    assert set(actions) == {2, 3, 4, 5, 6}
    assert all(isinstance(action, int) for action in actions)
    assert max(np.bincount(actions)) < 500
    boxes = np.stack(draw(UniformRandom(BOX), 0, 2000))
    assert boxes.dtype == np.float32
    np.testing.assert_allclose(boxes.min(0), [-1, 0], atol=0.05)
    np.testing.assert_allclose(boxes.max(0), [1, 10], atol=0.05)


def test_uniform_actions_of_several_parts_are_all_combinations() -> None:
    for space in (PARTS, BUTTONS):
        policy = UniformRandom(space)
        policy.reset(0)
        actions = [policy(FRAME) for _ in range(300)]
        assert all(space.contains(action) for action in actions)
        assert len({tuple(np.asarray(action).tolist()) for action in actions}) == (6 if space is PARTS else 8)


@pytest.mark.parametrize("stickiness", [0.0, 0.5, 0.9])
def test_sticky_actions_repeat_as_often_as_asked(stickiness: float) -> None:
    actions = np.array(draw(StickyRandom(FIVE, stickiness), 1, 5000))
    repeated = (actions[1:] == actions[:-1]).mean()
    assert repeated == pytest.approx(stickiness + (1 - stickiness) / 5, abs=0.03)


def test_mixed_stickiness_is_drawn_for_each_episode() -> None:
    policy = StickyRandom(BOX)
    repeated = []
    for seed in range(100):
        actions = np.stack(draw(policy, seed, 400))
        repeated.append((actions[1:] == actions[:-1]).all(1).mean())
    assert 0.45 < min(repeated) < 0.6
    assert 0.9 < max(repeated) <= 1
    assert np.mean(repeated) == pytest.approx(0.74, abs=0.05)
    assert policy.name == "sticky-mixed"


def test_a_policy_does_not_draw_the_numbers_of_its_environment() -> None:
    numbers = np.random.default_rng(5).integers(5, size=50)  # what an environment with this seed draws
    assert draw(UniformRandom(FIVE), 5, 50) != numbers.tolist()


def test_open_loop_holds_and_begins_anew() -> None:
    assert draw(OpenLoop([1, 2, 0], hold=2), 0, 8) == [1, 1, 2, 2, 0, 0, 1, 1]
    assert draw(Constant(3), 0, 3) == [3, 3, 3]


def test_unusable_policies() -> None:
    with pytest.raises(UserError, match="bounded Box"):
        UniformRandom(gym.spaces.Box(-np.inf, np.inf, (2,)))
    with pytest.raises(UserError, match=r"stickiness: 1\.5"):
        StickyRandom(FIVE, 1.5)
    with pytest.raises(UserError, match="stickiness: 'some'"):
        StickyRandom(FIVE, "some")
    with pytest.raises(UserError, match="0 actions"):
        OpenLoop([])
