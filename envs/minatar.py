"""MinAtar's pictures: its boolean planes as colours, without the plotting packages that its own `render()` needs."""

from __future__ import annotations

import colorsys
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image


class MinAtarFrames:
    """One colour per plane on black; where planes overlap the last one shows, as in MinAtar's own display."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        height, width, planes = env.observation_space.shape or (0, 0, 0)
        self.size = (height, width)
        colors = [colorsys.hsv_to_rgb(plane / planes, 0.7, 1.0) for plane in range(planes)]
        self._palette = (np.array([(0.0, 0.0, 0.0), *colors]) * 255).round().astype(np.uint8)
        self._numbers = np.arange(1, planes + 1)

    def band(self, observation: Any, top: int, bottom: int, left: int, right: int) -> Image.Image:
        """Rows top to bottom and columns left to right of the board, one pixel per cell."""
        cells = (np.asarray(observation)[top:bottom, left:right] * self._numbers).max(axis=2)
        return Image.fromarray(self._palette[cells])


def action_meanings(env: gym.Env[Any, Any]) -> list[str] | None:
    """Names of the actions of the set that the id chose (v0: all six, v1: those with an effect)."""
    names = ("noop", "left", "up", "right", "down", "fire")
    action_set = getattr(env.unwrapped, "action_set", None)
    return None if action_set is None else [names[action] for action in action_set]


def register() -> None:
    """Register the ids `MinAtar/...`, which importing the package does not do."""
    from minatar.gym import register_envs

    if "MinAtar/Breakout-v1" not in gym.registry:
        register_envs()
