"""A world whose pixels say which episode and step they are, so that a test sees where each frame came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from tests.episodes import played
from worldsim.data.episode import EnvSpec, Episode
from worldsim.data.store import EpisodeStore

SHAPE = (4, 6, 3)


def spec(box: bool = False, blank_terminal_frame: bool = False) -> EnvSpec:
    continuous = {"type": "box", "shape": [2], "low": [-1.0, -1.0], "high": [1.0, 1.0]}
    return EnvSpec(
        id="Counting-v0",
        settings={"frame_skip": 2},
        frame_shape=SHAPE,
        action_space=continuous if box else {"type": "discrete", "n": 5},
        action_meanings=[] if box else list("abcde"),
        frames_per_second=10.0,
        max_episode_steps=None,
        blank_terminal_frame=blank_terminal_frame,
    )


def picture(number: int, step: int) -> NDArray[np.uint8]:
    frame = np.zeros(SHAPE, np.uint8)
    frame[0, 0] = number >> 16, number >> 8 & 255, number & 255
    frame[0, 1] = 0, step >> 8, step & 255
    return frame


def read_picture(frames: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Episode numbers and steps of frames (..., H, W, C)."""
    bytes_ = frames[..., 0, :2, :].astype(np.int64)  # (..., 2, C)
    values = bytes_[..., 0] * 65536 + bytes_[..., 1] * 256 + bytes_[..., 2]
    return values[..., 0], values[..., 1]


def action_of(number: int, step: int, box: bool = False) -> Any:
    """The action that leads from frame `step` to the next."""
    if box:
        return np.array([number, step], np.float32)
    return (3 * number + step) % 5


def reward_of(number: int, step: int) -> float:
    return 1000.0 * number + step


def episode(number: int, steps: int, *, box: bool = False, terminated: bool = True, split: str = "train") -> Episode:
    dtype = np.float32 if box else np.int64
    return played(
        np.stack([picture(number, step) for step in range(steps + 1)]),
        np.array([action_of(number, step, box) for step in range(steps)], dtype),
        np.array([reward_of(number, step) for step in range(steps)], np.float32),
        seed=number,
        policy="counting",
        split=split,
        terminated=terminated,
        truncated=not terminated,
        tics=2 * steps,
    )


def fill(store: EpisodeStore, shard: str, *episodes: Episode) -> None:
    with store.writer(shard) as writer:
        for one in episodes:
            writer.append(one)
    store.refresh()


def assert_same(first: Episode, second: Episode) -> None:
    for name, value in vars(first).items():
        other = getattr(second, name)
        if isinstance(value, np.ndarray):
            assert value.dtype == other.dtype, name
            np.testing.assert_array_equal(value, other, err_msg=name)
        else:
            assert value == other, name


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class CountingEnv(gym.Env[NDArray[np.uint8], Any]):
    """Episodes of 3 to 40 steps of 2 tics each (the last may be shorter); the seed is the number in the picture."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(0, 255, SHAPE, np.uint8)
        self.action_space = gym.spaces.Discrete(5)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        assert seed is not None
        self.number = seed % 2**24
        self.length = int(self.np_random.integers(3, 41))
        self.count = 0
        return picture(self.number, 0), {"tics": 0}

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        self.count += 1
        ended = self.count >= self.length
        terminated = ended and self.length % 2 == 0
        tics = 1 if ended and self.length % 3 == 0 else 2
        frame = picture(self.number, self.count)
        return frame, float(action), terminated, ended and not terminated, {"tics": tics}
