"""A world that slides past a window: actions move it left or right, a lamp in the corner flashes with each reward."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from tests.episodes import played
from worldsim.data.episode import EnvSpec, Episode
from worldsim.data.motion import motion_features

SHAPE = (16, 32, 3)
SPEED = 2  # pixels a step


def spec() -> EnvSpec:
    return EnvSpec(
        id="Sliding-v0",
        settings={},
        frame_shape=SHAPE,
        action_space={"type": "discrete", "n": 3},
        action_meanings=["stay", "left", "right"],
        frames_per_second=10.0,
        max_episode_steps=None,
        blank_terminal_frame=False,
    )


def episode(
    number: int, steps: int = 120, *, inertia: bool = False, reacts: bool = False, stay: float = 0.8
) -> Episode:
    """One episode of a sticky random policy (`stay`: how sticky).

    inertia: actions push instead of moving. reacts: there is a wind, and half of the actions go against it.
    """
    random = np.random.default_rng(number)
    x = np.arange(400)
    waves = sum(np.sin(x / length) for length in (2.5, 4, 7))  # (400,)
    landscape = np.tile(120 + 30 * waves, (SHAPE[0], 1))  # (16, 400)
    place, speed, wind, action, lamp = 200.0, 0.0, 0.0, 0, False
    frames, actions, rewards = [], [], []
    for step in range(steps + 1):
        frame = np.repeat(landscape[:, round(place) : round(place) + SHAPE[1], None], 3, axis=2).astype(np.uint8)
        frame += random.integers(0, 4, size=SHAPE).astype(np.uint8)
        frame[:4, -4:] = 255 if lamp else 0
        frames.append(frame)
        if step == steps:
            break
        if random.random() > 0.8:
            action = int(random.integers(3))
        if reacts and random.random() < 0.5:
            action = 1 if wind > 0 else 2
        push = (0, -1, 1)[action]
        speed = 0.6 * speed + push if inertia else SPEED * push
        wind = 0.9 * wind + random.normal() if reacts else 0.0
        place = min(max(place + speed + wind, 0), 400 - SHAPE[1])
        lamp = bool(random.random() < 0.1)
        actions.append(action)
        rewards.append(float(lamp))
    return played(
        np.stack(frames),
        np.array(actions, np.int64),
        np.array(rewards, np.float32),
        seed=number,
        policy="sticky",
        split="held_out" if number % 5 == 1 else "train",
    )


@cache
def made(inertia: bool, reacts: bool) -> tuple[Episode, ...]:
    return tuple(episode(number, inertia=inertia, reacts=reacts) for number in range(12))


def episodes(inertia: bool = False, reacts: bool = False) -> list[Episode]:
    return list(made(inertia, reacts))


@cache
def motion(inertia: bool = False, reacts: bool = False) -> tuple[NDArray[np.float32], ...]:
    return tuple(motion_features(one.frames) for one in made(inertia, reacts))
