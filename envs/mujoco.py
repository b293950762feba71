"""What MuJoCo needs: an OpenGL that works without a screen, and pictures that are not drawn for a poster."""

from __future__ import annotations

import os
import sys
from typing import Any

import gymnasium as gym

PICTURE_SIZE = 128  # pixels per side, where the user's kwargs do not say; Gymnasium's own 480 are drawn to be shrunk


def prepare() -> None:
    """Without a screen Gymnasium would open a window all the same and fail; EGL needs none."""
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")


def lighten(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """The same env without shadows and multisampling, and with a smaller picture: some twenty times as many frames."""
    base: Any = env.unwrapped
    quality = base.model.vis.quality
    quality.shadowsize = 0
    quality.offsamples = 0
    given = base.spec.kwargs if base.spec else {}
    for side in ("width", "height"):
        if side not in given:
            setattr(base.mujoco_renderer, side, PICTURE_SIZE)
    return env
