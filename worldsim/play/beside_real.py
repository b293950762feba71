"""The real env fed the same actions as a dream."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldsim.rendering import Frames, to_rgb


class BesideReal:
    """One real env that follows a dream, until its episode ends or the dream goes back in time.

    observation, frame: the last picture, uint8 (H, W, C) and (H, W, 3). step, total_reward: of the episode so far.
    ended: "terminated", "truncated", "left behind" (a real env cannot go back) or None while it follows.
    """

    def __init__(self, env: gym.Env[NDArray[np.uint8], Any]) -> None:
        self._env = env
        self.restart(seed=None)

    def restart(self, seed: int | None) -> None:
        """Begin a new episode."""
        self.observation, _ = self._env.reset(seed=seed)
        self.step, self.total_reward = 0, 0.0
        self.ended: str | None = None

    @property
    def frame(self) -> Frames:
        return to_rgb(self.observation)

    def follow(self, action: int | NDArray[np.float32]) -> None:
        """One step with the dream's action; nothing once it has ended."""
        if self.ended is not None:
            return
        self.observation, reward, terminated, truncated, _ = self._env.step(action)
        self.step += 1
        self.total_reward += float(reward)
        self.ended = "terminated" if terminated else "truncated" if truncated else None

    def leave_behind(self) -> None:
        """The dream went back; the real env stays where it is."""
        self.ended = self.ended or "left behind"

    def close(self) -> None:
        """End the simulator."""
        self._env.close()
