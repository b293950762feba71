"""What one episode and one environment are, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldsim.errors import UserError
from worldsim.rollouts import EpisodeResult

SPLITS = ("train", "held_out")


@dataclass(frozen=True)
class EnvSpec:
    """Everything a model must know about the environment that its data came from.

    `settings` is the environment's configuration as a plain dict, `frame_shape` is (H, W, C), `action_space` is
    `{"type": "discrete", "n": n}`, `{"type": "multi_discrete", "nvec": [...]}`, `{"type": "multi_binary", "n": n}` or
    `{"type": "box", "shape": [...], "low": [...], "high": [...]}`. `blank_terminal_frame` says that the frame after a
    termination carries no picture.
    """

    id: str
    settings: dict[str, Any]
    frame_shape: tuple[int, int, int]
    action_space: dict[str, Any]
    action_meanings: list[str]
    frames_per_second: float
    max_episode_steps: int | None
    blank_terminal_frame: bool

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return {**asdict(self), "frame_shape": list(self.frame_shape)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EnvSpec:
        """The inverse of `to_dict`. Raises UserError for missing or unknown fields."""
        expected = {field.name for field in fields(cls)}
        if set(values) != expected:
            wrong = ", ".join(sorted(expected ^ set(values)))
            raise UserError(f"environment description: fields missing or unknown: {wrong}; was it written by hand?")
        height, width, channels = (int(size) for size in values["frame_shape"])
        return cls(**{**values, "frame_shape": (height, width, channels)})

    def gym_action_space(self) -> gym.Space[Any]:
        """The action space as Gymnasium has it."""
        space = self.action_space
        if space.get("type") == "discrete":
            return gym.spaces.Discrete(int(space["n"]))
        if space.get("type") == "multi_discrete":
            return gym.spaces.MultiDiscrete([int(n) for n in space["nvec"]])
        if space.get("type") == "multi_binary":
            return gym.spaces.MultiBinary(int(space["n"]))
        if space.get("type") == "box":
            shape = tuple(int(size) for size in space["shape"])
            low, high = (np.asarray(space[name], np.float32).reshape(shape) for name in ("low", "high"))
            return gym.spaces.Box(low, high, shape, np.float32)
        raise UserError(f"action space {space}: expected type discrete, multi_discrete, multi_binary or box")

    @property
    def action_choices(self) -> tuple[int, ...] | None:
        """How many values each part of an action has, counted from 0: (n,) for a discrete one; None for a box.

        The parts of a binary action are discrete ones of two values: on, 1, and off, 0.
        """
        space = self.action_space
        if space["type"] == "discrete":
            return (int(space["n"]),)
        if space["type"] == "multi_discrete":
            return tuple(int(n) for n in space["nvec"])
        return (2,) * int(space["n"]) if space["type"] == "multi_binary" else None

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of one stored action: () for a discrete one, (K,) for one of K parts, (A,) for a flattened box."""
        if self.action_space["type"] == "discrete":
            return ()
        choices = self.action_choices
        return (int(np.prod(self.action_space["shape"])) if choices is None else len(choices),)

    @property
    def action_dtype(self) -> np.dtype[Any]:
        """The dtype of stored actions: float32 for a box, int64 for all others."""
        return np.dtype(np.float32 if self.action_choices is None else np.int64)


@dataclass(frozen=True)
class Episode:
    """T steps and the T + 1 frames around them: `actions[t]` leads from frame t to frame t + 1.

    `tics` counts the steps of the underlying environment (T times the frame skip, or fewer; 0 for a copy, which nobody
    played), `round` the rounds of collection from 0, `split` is "train" or "held_out".
    """

    frames: NDArray[np.uint8]  # (T+1, H, W, C), 0 to 255
    actions: NDArray[Any]  # (T,) or (T, K) int64, or (T, A) float32
    rewards: NDArray[np.float32]  # (T,)
    terminated: NDArray[np.bool_]  # (T,)
    truncated: NDArray[np.bool_]  # (T,)
    seed: int
    policy: str
    split: str
    tics: int
    round: int

    def __len__(self) -> int:
        """T, the number of steps."""
        return len(self.rewards)

    def check(self, spec: EnvSpec) -> None:
        """Raises ValueError unless shapes, dtypes and values are those that `spec` asks for."""
        steps = len(self.rewards)
        expected: dict[str, tuple[NDArray[Any], tuple[int, ...], Any]] = {
            "frames": (self.frames, (steps + 1, *spec.frame_shape), np.uint8),
            "actions": (self.actions, (steps, *spec.action_shape), spec.action_dtype),
            "rewards": (self.rewards, (steps,), np.float32),
            "terminated": (self.terminated, (steps,), np.bool_),
            "truncated": (self.truncated, (steps,), np.bool_),
        }
        if steps < 1:
            raise ValueError("an episode needs at least one step")
        for name, (array, shape, dtype) in expected.items():
            if array.shape != shape or array.dtype != dtype:
                given = f"{array.dtype} {array.shape}"
                raise ValueError(f"episode {name}: expected {np.dtype(dtype)} {shape}, given {given}")
        if self.terminated[:-1].any() or self.truncated[:-1].any():
            raise ValueError("an episode goes on after a step that ended it; store two episodes")
        if self.split not in SPLITS:
            raise ValueError(f"episode split {self.split!r}: expected one of {SPLITS}")
        if self.tics and self.tics < steps:
            raise ValueError(f"episode tics: {self.tics} environment steps cannot make {steps} steps")


def as_episode(result: EpisodeResult, *, policy: str, split: str, round: int = 0) -> Episode:  # noqa: A002
    """What was played, with its frames, as it is stored. policy: the name of who played it."""
    if result.frames is None:
        raise ValueError("an episode is stored with its frames: play it with keep_frames=True")
    last = np.arange(result.length) == result.length - 1
    return Episode(
        frames=result.frames,
        actions=result.actions,
        rewards=result.rewards,
        terminated=last & result.terminated,
        truncated=last & result.truncated,
        seed=result.seed,
        policy=policy,
        split=split,
        tics=result.tics,
        round=round,
    )
