"""What others recorded, as episodes: the one place that says what a recording must hold to become one.

A source (Minari, npz files, videos) is read in two passes: first the actions of all recordings, from which the action
space follows where nobody states it, then one recording after the other with its frames.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.data.collection import is_held_out
from worldsim.data.episode import EnvSpec, Episode
from worldsim.errors import UserError

DESCRIPTION = "env.json"  # fields of EnvSpec that a folder of recordings states about itself


@dataclass(frozen=True)
class ImportSettings:
    """How recordings become episodes.

    `held_out_fraction` of the episodes are never trained on, where the source does not say which. `size` (H, W):
    frames are scaled to it by averaging; None keeps them as they are. `without_rewards` stores 0 where a source has no
    rewards, which is else refused.
    """

    held_out_fraction: float = 0.1
    size: tuple[int, int] | None = None
    without_rewards: bool = False


@dataclass(frozen=True)
class Recording:
    """One episode as a source holds it, T steps and T + 1 frames; `name` is what its user calls it.

    None: the source does not say. A recording without endings is taken to be cut off (truncated) at its last step.
    """

    name: str
    frames: NDArray[np.uint8]  # (T+1, H, W, C) or (T+1, H, W)
    actions: NDArray[Any]  # (T,) integers, or (T, ...) numbers
    rewards: NDArray[Any] | None = None  # (T,)
    terminated: NDArray[Any] | None = None  # (T,) bool
    truncated: NDArray[Any] | None = None  # (T,) bool
    seed: int | None = None
    policy: str | None = None
    split: str | None = None
    tics: int | None = None
    round: int | None = None


@dataclass(frozen=True)
class Source:
    """A data set to import: its environment, its `count` recordings in order, and what was inferred, a line each."""

    spec: EnvSpec
    count: int
    recordings: Callable[[], Iterator[Recording]]
    remarks: list[str]


def to_episode(recording: Recording, number: int, spec: EnvSpec, settings: ImportSettings) -> Episode:
    """The `number`-th recording as an episode of `spec`. Raises UserError, with its name, where it cannot be one."""
    name, steps = recording.name, len(recording.actions)
    frames = scaled(with_channels(recording.frames, name), settings.size)
    check_lengths(name, len(frames), steps)
    if frames.shape[1:] != spec.frame_shape:
        given = " x ".join(map(str, frames.shape[1:]))
        raise UserError(f"{name}: frames are {given}, others {spec.frame_shape}; make them one size with --size 64x64")
    terminated, truncated = _endings(recording, steps)
    episode = Episode(
        frames=frames,
        actions=_actions(recording, spec),
        rewards=_rewards(recording, steps, settings),
        terminated=terminated,
        truncated=truncated,
        seed=number if recording.seed is None else recording.seed,
        policy=recording.policy or "imported",
        split=recording.split or ("held_out" if is_held_out(number, settings.held_out_fraction) else "train"),
        tics=steps if recording.tics is None else recording.tics,
        round=recording.round or 0,
    )
    try:
        episode.check(spec)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
    return episode


def check_lengths(name: str, frames: int, actions: int) -> None:
    """Raises UserError unless there are actions, and one frame more than actions."""
    if frames == actions:
        raise UserError(
            f"{name}: {actions} actions for {frames} frames, expected one action fewer: action t leads from frame t to "
            "frame t + 1. Drop the last action if each was taken at its frame, the first if each led to its frame"
        )
    if frames != actions + 1:
        raise UserError(f"{name}: {actions} actions for {frames} frames, expected one action fewer than frames")
    if actions < 1:
        raise UserError(f"{name}: no actions; expected at least one step, leave this recording out")


def with_channels(frames: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Frames uint8 (T, H, W, C), from (T, H, W) too. Raises UserError for anything that is no picture."""
    if frames.ndim == 3:
        frames = frames[..., None]
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (1, 3):
        given = f"{frames.dtype} {frames.shape}"
        raise UserError(
            f"{name}: frames are {given}, expected uint8 (T + 1, H, W, C) with C 1 or 3; convert them first"
        )
    return frames


def scaled(frames: NDArray[np.uint8], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Frames (T, H, W, C) scaled to (H, W) = `size` by averaging over boxes; as they are if that is None."""
    if size is None or frames.shape[1:3] == size:
        return frames
    from PIL import Image

    def scale(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        picture = Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame)
        small = picture.resize((size[1], size[0]), Image.Resampling.BOX)
        return np.asarray(small, np.uint8).reshape(*size, -1)

    return np.stack([scale(frame) for frame in frames])


def infer_spec(
    folder: Path,
    actions: Iterable[tuple[str, NDArray[Any]]],
    frame_shape: Sequence[int],
    frames_per_second: float,
    settings: ImportSettings,
) -> tuple[EnvSpec, list[str]]:
    """The environment of a folder of recordings: what its `env.json` states, and the rest from the data.

    actions: name and actions of every recording. frame_shape: (H, W) or (H, W, C) before scaling. Returns also what
    was inferred, for the user to check.
    """
    stated = _read_description(folder)
    named = list(actions)
    if not named:
        raise UserError(f"{folder} holds 0 episodes; expected at least one recording")
    space, said = _infer_actions(named)
    height, width = settings.size or (int(frame_shape[0]), int(frame_shape[1]))
    channels = int(frame_shape[2]) if len(frame_shape) > 2 else 1
    count = space["n"] if space["type"] == "discrete" else int(np.prod(space["shape"]))
    longest = max(len(array) for _, array in named)
    inferred: dict[str, Any] = {
        "id": folder.resolve().name,
        "settings": {},
        "frame_shape": [height, width, channels],
        "action_space": space,
        "action_meanings": [f"action {index}" for index in range(count)],
        "frames_per_second": frames_per_second,
        "max_episode_steps": longest,
        "blank_terminal_frame": False,
    }
    sayings = {"action_space": said, "max_episode_steps": f"episodes end after {longest} steps, the longest there is"}
    remarks = [text for field, text in sayings.items() if field not in stated]
    if settings.size is not None:  # no longer the frames that the env of its settings shows
        stated = {name: value for name, value in stated.items() if name not in ("frame_shape", "settings")}
    if remarks:
        remarks[-1] += f"; state it otherwise in {folder / DESCRIPTION}"
    return _read_spec(inferred, stated, folder / DESCRIPTION), remarks


def _read_spec(inferred: dict[str, Any], stated: dict[str, Any], path: Path) -> EnvSpec:
    """The environment as it is stated in `path`, or else inferred. UserError where what is stated cannot be read."""
    try:
        spec = EnvSpec.from_dict({**inferred, **stated})
        if "action_space" in stated:
            spec.gym_action_space()
        spec = replace(
            spec,
            settings=dict(spec.settings),
            action_meanings=list(map(str, spec.action_meanings)),
            frames_per_second=float(spec.frames_per_second),
            max_episode_steps=None if spec.max_episode_steps is None else int(spec.max_episode_steps),
        )
    except (AttributeError, KeyError, TypeError, ValueError, AssertionError, UserError) as error:
        expected = '"frame_shape": [64, 64, 3] and "action_space": {"type": "discrete", "n": 3}, or as `EnvSpec` has it'
        raise UserError(f"{path}: {type(error).__name__}: {error}; expected such as {expected}") from error
    return spec


def _infer_actions(named: Sequence[tuple[str, NDArray[Any]]]) -> tuple[dict[str, Any], str]:
    """The smallest action space that holds all actions, and a sentence about it."""
    arrays = [array for _, array in named if len(array)]
    if not arrays:
        raise UserError(f"{named[0][0]}: no actions; expected at least one step")
    for name, array in named:
        if array.dtype.kind not in "biuf" or array.ndim < 1 or array.shape[1:] != arrays[0].shape[1:]:
            expected = f"numbers (T, {', '.join(map(str, arrays[0].shape[1:]))}) as in the others"
            raise UserError(f"{name}: actions are {array.dtype} {array.shape}, expected {expected}")
    if arrays[0].ndim == 1 and all(array.dtype.kind in "biu" for array in arrays):
        least, most = min(int(array.min()) for array in arrays), max(int(array.max()) for array in arrays)
        if least < 0:
            raise UserError(f"{named[0][0]}: action {least}, expected whole numbers from 0; number the actions anew")
        return {"type": "discrete", "n": most + 1}, f"actions are Discrete({most + 1}), from the largest there is"
    flat = np.concatenate([array.reshape(len(array), -1) for array in arrays]).astype(np.float32)
    low, high = flat.min(axis=0), flat.max(axis=0)
    low, high = np.where(low == high, low - 1, low), np.where(low == high, high + 1, high)
    box = {"type": "box", "shape": [flat.shape[1]], "low": low.tolist(), "high": high.tolist()}
    return box, f"actions are a Box of {flat.shape[1]}, from the smallest and the largest values there are"


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    if not path.exists():
        return {}
    known = {field.name for field in fields(EnvSpec)}
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); mend or remove it") from error
    if not isinstance(stated, dict) or not set(stated) <= known:
        wrong = ", ".join(sorted(set(stated) - known)) if isinstance(stated, dict) else type(stated).__name__
        raise UserError(f"{path}: {wrong}; expected an object with some of {', '.join(sorted(known))}")
    return stated


def _actions(recording: Recording, spec: EnvSpec) -> NDArray[Any]:
    actions = recording.actions
    parts, wanted = int(np.prod(actions.shape[1:])), int(np.prod(spec.action_shape))
    if parts != wanted:
        raise UserError(
            f"{recording.name}: actions have shape {actions.shape}, {parts} for each step, expected {wanted} for each "
            f"step; mend it or {DESCRIPTION}"
        )
    given = actions.reshape(len(actions), *spec.action_shape)
    if not np.isfinite(given.astype(np.float64)).all():
        raise UserError(f"{recording.name}: an action is not finite; mend it or leave this recording out")
    stored = np.ascontiguousarray(given.astype(spec.action_dtype))
    if spec.action_choices is None:
        return stored
    counts = np.asarray(spec.action_choices if spec.action_shape else spec.action_choices[0])
    wrong = (stored != given) | (stored < 0) | (stored >= counts)
    if wrong.any():
        place = tuple(np.argwhere(wrong)[0])
        most = int(np.broadcast_to(counts, stored.shape)[place]) - 1
        expected = f"a whole number from 0 to {most}; mend it or {DESCRIPTION}"
        raise UserError(f"{recording.name}: action {given[place]} in step {place[0]}, expected {expected}")
    return stored


def _rewards(recording: Recording, steps: int, settings: ImportSettings) -> NDArray[np.float32]:
    if recording.rewards is None:
        if not settings.without_rewards:
            raise UserError(
                f"{recording.name}: no rewards; add them, or pass --without-rewards for a world model without a task"
            )
        return np.zeros(steps, np.float32)
    rewards = np.asarray(recording.rewards)
    _check_per_step(recording.name, "rewards", rewards, steps)
    if not np.isfinite(rewards).all():
        raise UserError(f"{recording.name}: a reward is not finite; mend it or leave this recording out")
    return rewards.astype(np.float32)


def _endings(recording: Recording, steps: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    flags: Mapping[str, NDArray[Any] | None] = {
        "terminated": recording.terminated,
        "truncated": recording.truncated,
    }
    terminated, truncated = np.zeros((2, steps), np.bool_)
    if all(given is None for given in flags.values()):
        truncated[-1:] = True
        return terminated, truncated
    for name, target in (("terminated", terminated), ("truncated", truncated)):
        if (given := flags[name]) is not None:
            _check_per_step(recording.name, name, np.asarray(given), steps)
            target[:] = np.asarray(given) != 0
    return terminated, truncated


def _check_per_step(name: str, what: str, values: NDArray[Any], steps: int) -> None:
    if values.shape != (steps,):
        raise UserError(f"{name}: {what} are {values.shape}, expected one for each of the {steps} actions")
