"""A world model that watches recorded episodes: what it says and believes at each of their steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.data.store import EpisodeStore
from worldsim.evaluation.stretches import pictured_frames
from worldsim.world_model import WorldModel, row_generator
from worldsim.world_state import DreamStep, WorldState


@dataclass(frozen=True)
class Watched:
    """The model after frame t of some episodes, a row each; the caller may not `step` the state.

    running: bool (B,), whether the row's episode has such a frame (else the row stands still for nothing).
    step: what the step that led here brought, and records (B,) its action, reward, terminated, truncated; None at the
    first frame.
    """

    t: int
    running: NDArray[np.bool_]
    state: WorldState
    step: DreamStep | None
    records: NDArray[np.void] | None


def watch(model: WorldModel, store: EpisodeStore, episodes: Sequence[int], seed: int = 0) -> Iterator[Watched]:
    """Frames 0, 1, ... of `episodes` side by side, until the last has ended. A row draws from `seed` + its episode.

    A frame without a picture (after a termination, in some environments) counts as a frame, but the one before it is
    shown once more.
    """
    steps = [store.steps(i) for i in episodes]
    last_frame = [pictured_frames(store, i) - 1 for i in episodes]

    def frames_at(t: int) -> Tensor:
        positions = [min(t, last) for last in last_frame]
        pictures = [store.read_frames(i, at, at + 1)[0] for i, at in zip(episodes, positions, strict=True)]
        return torch.from_numpy(np.stack(pictures))  # (B, H, W, C)

    state = model.start_episode(frames_at(0), [row_generator(seed + i) for i in episodes])
    yield Watched(0, np.ones(len(steps), np.bool_), state, None, None)
    for t in range(max(len(records) for records in steps)):
        now = np.stack([records[min(t, len(records) - 1)] for records in steps])
        actions = torch.from_numpy(np.stack([np.asarray(record["action"]) for record in now]))
        state, step = model.observe(state, frames_at(t + 1), actions)
        running = np.array([t < len(records) for records in steps])
        yield Watched(t + 1, running, state, step, now)


def groups_by_length(store: EpisodeStore, episodes: NDArray[np.int64], rows_at_once: int) -> list[list[int]]:
    """The episodes in groups whose members end at about one time."""
    ordered = episodes[np.argsort(store.lengths[episodes], kind="stable")]
    return [ordered[first : first + rows_at_once].tolist() for first in range(0, len(ordered), rows_at_once)]
