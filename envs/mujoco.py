"""What MuJoCo needs: an OpenGL that works without a screen, a camera that follows, pictures that are quickly drawn."""

from __future__ import annotations

import os
import sys
from typing import Any

import gymnasium as gym

PICTURE_SIZE = 128  # pixels per side, where the user's kwargs do not say; Gymnasium's own 480 are drawn to be shrunk
CAMERA = "track"  # that of the models of Gymnasium whose body walks away
CAMERA_KWARGS = ("camera_id", "camera_name", "default_camera_config")


def prepare() -> None:
    """Without a screen Gymnasium would open a window all the same and fail; EGL needs none."""
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")


def set_up_pictures(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """The same env with pictures as a world model wants them, unless the user's kwargs say otherwise.

    No shadows and no multisampling, and a smaller picture: some twenty times as many frames. Where the model has a
    camera that follows the body it is used: the free one of Gymnasium 1.4 stands still while the body leaves.
    """
    import mujoco

    base: Any = env.unwrapped
    quality = base.model.vis.quality
    quality.shadowsize = 0
    quality.offsamples = 0
    given = base.spec.kwargs if base.spec else {}
    for side in ("width", "height"):
        if side not in given:
            setattr(base.mujoco_renderer, side, PICTURE_SIZE)
    camera = mujoco.mj_name2id(base.model, mujoco.mjtObj.mjOBJ_CAMERA, CAMERA)
    if camera >= 0 and not any(name in given for name in CAMERA_KWARGS):
        base.mujoco_renderer.camera_id = camera
    return env
