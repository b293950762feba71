"""Envs that no world model can be made of: `tests.unusable_envs:Unseen-v0`, `Unlisted-v0` and `Unbounded-v0`."""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import numpy as np

PICTURE = gym.spaces.Box(0, 255, (32, 32, 3), np.uint8)
ACTIONS: dict[str, gym.Space[Any]] = {
    "discrete": gym.spaces.Discrete(2),
    "tuple": gym.spaces.Tuple([gym.spaces.Discrete(2), gym.spaces.Discrete(2)]),
    "unbounded": gym.spaces.Box(-np.inf, np.inf, (2,), np.float32),
}


class Unusable(gym.Env[Any, Any]):
    """Shows nothing that changes, or nothing at all; takes actions of the named kind."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, actions: str, pictures: bool, render_mode: str | None = None) -> None:
        self.action_space = ACTIONS[actions]
        self.observation_space = PICTURE if pictures else gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(self.observation_space.shape or (), self.observation_space.dtype), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.reset()[0], 0.0, False, False, {}


for name, actions, pictures in (
    ("Unseen-v0", "discrete", False),
    ("Unlisted-v0", "tuple", True),
    ("Unbounded-v0", "unbounded", True),
):
    gym.register(name, cast(Any, Unusable), kwargs={"actions": actions, "pictures": pictures}, max_episode_steps=50)
