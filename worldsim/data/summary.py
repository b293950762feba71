"""A data set at a glance: counts, lengths, returns, how often each action was taken, and a sheet of its frames."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError
from worldsim.rendering import picture_grid, write_picture

BAR = 30  # characters of the longest bar
BINS = 9
SHEET_EPISODES = 6
SHEET_FRAMES = 8
SHEET_PIXELS = 96  # about the height of a frame on the sheet


def describe(store: EpisodeStore) -> list[str]:
    """The lines of `worldsim data info`. Raises UserError for a store without episodes."""
    _check_not_empty(store)
    spec = store.spec
    steps = [store.steps(i) for i in range(len(store))]
    returns = np.array([one["reward"].sum(dtype=np.float64) for one in steps])
    ended = [(bool(one["terminated"][-1]), bool(one["truncated"][-1])) for one in steps]
    terminated, truncated = (sum(flag[k] for flag in ended) for k in (0, 1))
    height, width, channels = spec.frame_shape
    lines = [
        f"{spec.id}: frames {height}x{width}x{channels}, {spec.frames_per_second:g} steps a second, "
        f"actions {spec.gym_action_space()}",
        f"episodes  {len(store):,}: {_splits(store)}",
        f"steps     {int(store.lengths.sum()):,} ({store.total_tics():,} tics)",
        f"lengths   {_spread(store.lengths)}",
        f"returns   {_spread(returns)}",
        f"endings   {terminated:,} terminated, {truncated:,} truncated, "
        f"{sum(not any(flags) for flags in ended):,} open",
        f"policies  {', '.join(_counted([entry.policy for entry in store.entries]))}",
        "actions",
    ]
    return lines + _histograms(store, np.concatenate([one["action"] for one in steps]))


def write_contact_sheet(store: EpisodeStore, path: Path) -> Path:
    """A PNG of up to SHEET_EPISODES episodes, a row each, spread over the store; the columns go through the episode.

    Each row ends at the last frame that is a picture. Raises UserError for a store without episodes.
    """
    _check_not_empty(store)
    rows = []
    for i in np.unique(np.linspace(0, len(store) - 1, SHEET_EPISODES).round().astype(int)).tolist():
        steps = int(store.lengths[i])
        blank = store.spec.blank_terminal_frame and store.terminated(i)
        times = np.linspace(0, steps - blank, SHEET_FRAMES).round().astype(int).tolist()
        rows.append((f"{i}: {steps} steps", [store.read_frames(i, t, t + 1)[0] for t in times]))
    columns = [f"{k / (SHEET_FRAMES - 1):.0%}" for k in range(SHEET_FRAMES)]
    scale = max(1, SHEET_PIXELS // store.spec.frame_shape[0])
    return write_picture(picture_grid(rows, columns, scale=scale), path)


def _splits(store: EpisodeStore) -> str:
    return ", ".join(f"{len(store.indices(split)):,} {split}" for split in ("train", "held_out"))


def _spread(values: NDArray[Any]) -> str:
    least, low, middle, high, most = np.quantile(values, [0, 0.05, 0.5, 0.95, 1])
    return (
        f"mean {values.mean():.4g}, median {middle:.4g}, 5 to 95 %: {low:.4g} to {high:.4g}, "
        f"all: {least:.4g} to {most:.4g}"
    )


def _counted(names: Sequence[str]) -> list[str]:
    return [f"{names.count(name):,} {name}" for name in sorted(set(names))]


def _histograms(store: EpisodeStore, actions: NDArray[Any]) -> list[str]:
    """Bars: of each discrete action, or of each component of the others in BINS bins."""
    meanings = store.spec.action_meanings
    if not store.spec.action_shape:
        counts = np.bincount(actions, minlength=len(meanings))
        return _bars([_name(meanings, k) for k in range(len(counts))], counts)
    lines = []
    for k in range(actions.shape[1]):
        counts, edges = np.histogram(actions[:, k].astype(np.float64), bins=BINS)
        names = [f"{low:+.2f} to {high:+.2f}" for low, high in pairwise(edges)]
        lines += [f"  {_name(meanings, k)}", *_bars(names, counts)]
    return lines


def _bars(names: Sequence[str], counts: NDArray[np.int64]) -> list[str]:
    width, most, total = max(map(len, names)), max(int(counts.max()), 1), max(int(counts.sum()), 1)
    each = zip(names, counts.tolist(), strict=True)
    return [f"    {name:{width}} {count / total:6.1%} {'#' * round(BAR * count / most)}" for name, count in each]


def _name(meanings: Sequence[str], index: int) -> str:
    return meanings[index] if index < len(meanings) else f"action {index}"


def _check_not_empty(store: EpisodeStore) -> None:
    if not len(store):
        raise UserError(f"{store.folder} holds 0 episodes: nothing to show; collect or import some first")
