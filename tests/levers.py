"""An env whose actions have several parts, MultiDiscrete or MultiBinary: `tests.levers:Levers-v0`."""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray


class Levers(gym.Env[NDArray[np.uint8], Any]):
    """Three levers, bars in a picture (16, 48, 3), as high as the last action says; the sum of the parts is paid."""

    def __init__(self, binary: bool = False, render_mode: str | None = None) -> None:
        self.observation_space = gym.spaces.Box(0, 255, (16, 48, 3), np.uint8)
        self.action_space = gym.spaces.MultiBinary(3) if binary else gym.spaces.MultiDiscrete([2, 3, 2])
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(10, 40))
        return self._frame([0, 0, 0]), {}

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.left -= 1
        return self._frame(action), float(np.sum(action)), self.left == 0, False, {}

    def _frame(self, heights: Any) -> NDArray[np.uint8]:
        frame = np.zeros((16, 48, 3), np.uint8)
        for lever, height in enumerate(heights):
            frame[: 5 * int(height), 16 * lever + 4 : 16 * lever + 12] = 255
        return frame


gym.register("Levers-v0", entry_point=cast(Any, Levers), max_episode_steps=60)
