"""Single frames drawn from an EpisodeStore, uniformly over all frames that carry a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worldsim.data.clips import ALL_ROWS
from worldsim.data.store import EpisodeStore


class FramePool:
    """All frames of one split as one sequence, without blank terminal frames. Frames stay on disk until asked for."""

    def __init__(self, store: EpisodeStore, split: str) -> None:
        self._store = store
        self._episodes = np.flatnonzero(np.asarray(store.splits) == split).astype(np.int64)
        counts = np.asarray(store.lengths, np.int64)[self._episodes] + 1
        if store.spec.blank_terminal_frame:
            blank = [bool(store.steps(int(i))["terminated"][-1:].any()) for i in self._episodes]
            counts = counts - np.asarray(blank, np.int64)
        self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def gather(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Frames uint8 (len(indices), H, W, C) at positions in [0, len(self))."""
        which = np.searchsorted(self._starts, indices, side="right") - 1
        episodes, positions = self._episodes[which].tolist(), (indices - self._starts[which]).tolist()
        out = np.empty((len(indices), *self._store.spec.frame_shape), np.uint8)
        for row, (episode, position) in enumerate(zip(episodes, positions, strict=True)):
            out[row] = self._store.read_frames(episode, position, position + 1)[0]
        return out

    def sample(self, count: int, generator: np.random.Generator, rows: slice = ALL_ROWS) -> NDArray[np.uint8]:
        """`count` frames, uniform with replacement, of which only `rows` are read; the pool must not be empty."""
        return self.gather(generator.integers(0, len(self), size=count)[rows])

    def spread(self, count: int) -> NDArray[np.uint8]:
        """`count` frames at equal distances, the same ones on every call; the pool must not be empty."""
        return self.gather(np.linspace(0, len(self) - 1, num=count).round().astype(np.int64))
