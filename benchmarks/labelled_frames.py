"""Take Cover frames with the place and size of each fireball and monster, as ViZDoom itself labels them.

The simulator draws 320x240 and says which pixel belongs to which object; boxes and areas are in pixels of the small
frame (64x64), the one that a world model learns from.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from worldsim.envs import EnvConfig, make

Frames = NDArray[np.uint8]  # (..., H, W, C)

KINDS = ("fireball", "monster")
KIND_OF_LABEL = {"DoomImpBall": 0, "DoomImp": 1}
TAKE_COVER = EnvConfig(id="VizdoomTakeCover-v1", frame_skip=4, max_episode_tics=2100)


class Box(NamedTuple):
    """One visible object in one frame; lengths in pixels of the small frame, (0, 0) its upper left corner."""

    kind: int
    """Index into KINDS."""
    identity: int
    """The same for one object through an episode."""
    area: float
    """Visible pixels (of the small frame: a fireball of 1.5 pixels fills one and a half)."""
    top: float
    bottom: float
    left: float
    right: float


@dataclass(frozen=True)
class LabelledEpisode:
    """T+1 frames (H, W, C), the T actions between them, the objects of each frame. Without the blank frame at death."""

    frames: Frames
    actions: NDArray[np.int64]
    boxes: list[list[Box]]


def collect(num_frames: int, seed: int, config: EnvConfig = TAKE_COVER) -> list[LabelledEpisode]:
    """Episodes of a random policy that holds its action for 10 steps on average, until they hold `num_frames` frames.

    The config's picture is taken as it is, except that a crop is refused (boxes are those of the whole picture).
    """
    if not config.id.startswith("VizdoomTakeCover") or config.crop is not None:
        raise ValueError(f"objects are labelled in uncropped VizdoomTakeCover frames, not in {config}")
    env = make(replace(config, kwargs={**config.kwargs, "labels_buffer_enabled": True}))
    simulator = cast(Any, env.unwrapped)
    rng = np.random.default_rng(seed)
    episodes: list[LabelledEpisode] = []
    frames_left, started = num_frames, time.monotonic()
    try:
        while frames_left > 0:
            frame, _ = env.reset(seed=int(rng.integers(2**31)))
            frames, actions, boxes = [frame], [], [_boxes(simulator.state, frame.shape)]
            action, over = 0, False
            while not over and len(frames) < frames_left:
                if rng.random() < 0.1:
                    action = int(rng.integers(3))
                frame, _, terminated, truncated, _ = env.step(action)
                over = terminated or truncated
                if simulator.state is not None:
                    frames.append(frame)
                    actions.append(action)
                    boxes.append(_boxes(simulator.state, frame.shape))
            episodes.append(LabelledEpisode(np.stack(frames), np.array(actions, np.int64), boxes))
            frames_left -= len(frames)
    finally:
        env.close()
    print(f"{num_frames} labelled frames from {len(episodes)} episodes in {time.monotonic() - started:.0f} s")
    return episodes


def _boxes(state: Any, frame_shape: tuple[int, ...]) -> list[Box]:
    labels = state.labels_buffer  # (240, 320), the value of the object that each pixel shows
    rows, columns = frame_shape[0] / labels.shape[0], frame_shape[1] / labels.shape[1]
    pixels = np.bincount(labels.ravel(), minlength=256)
    return [
        Box(
            kind=KIND_OF_LABEL[label.object_name],
            identity=int(label.object_id),
            area=float(pixels[label.value]) * rows * columns,
            top=label.y * rows,
            bottom=(label.y + label.height) * rows,
            left=label.x * columns,
            right=(label.x + label.width) * columns,
        )
        for label in state.labels
        if label.object_name in KIND_OF_LABEL and pixels[label.value] > 0
    ]
