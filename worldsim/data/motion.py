"""What changes from one frame to the next, as a few dozen numbers: they show what an action does, without training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GRIDS = ((32, 4), (16, 2), (8, 1))  # side of the shrunken frame in pixels, blocks along each side
FLAT = 4.0  # squared gradient, in grey levels, below which a place is too flat to show where it moves


def motion_features(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Frames (T+1, H, W, C) -> float32 (T, F), a row for each pair of neighbours.

    On three scales, in each block: the movement to the right and down in pixels of that scale (the least-squares
    solution of brightness constancy, Lucas and Kanade 1981, each axis alone), and the mean of the change and of its
    size in grey levels.
    """
    grey = frames.mean(axis=-1, dtype=np.float32)  # (T+1, H, W)
    features = []
    for side, blocks in GRIDS:
        small = shrunken(grey, min(side, grey.shape[1]), min(side, grey.shape[2]))  # (T+1, h, w)
        count = (min(blocks, small.shape[1]), min(blocks, small.shape[2]))
        change, middle = np.diff(small, axis=0), (small[1:] + small[:-1]) / 2  # (T, h, w)
        for axis in (2, 1):
            slope = np.gradient(middle, axis=axis) if small.shape[axis] > 1 else np.zeros_like(middle)
            moved = _block_means(change * slope, count) / (_block_means(slope * slope, count) + FLAT)
            features.append(-moved)
        features += [_block_means(change, count), _block_means(np.abs(change), count)]
    return np.concatenate(features, axis=1).astype(np.float32)


def shrunken(pictures: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Means over boxes: (T, H, W) -> (T, height, width)."""
    rows, columns = _starts(pictures.shape[1], height), _starts(pictures.shape[2], width)
    sums = np.add.reduceat(np.add.reduceat(pictures, rows, axis=1), columns, axis=2)
    sizes = np.outer(np.diff([*rows, pictures.shape[1]]), np.diff([*columns, pictures.shape[2]]))
    return (sums / sizes).astype(np.float32)


def _block_means(pictures: NDArray[np.float32], count: tuple[int, int]) -> NDArray[np.float32]:
    """(T, h, w) -> (T, count[0] * count[1])."""
    return shrunken(pictures, *count).reshape(len(pictures), -1)


def _starts(size: int, parts: int) -> NDArray[np.int64]:
    return np.arange(parts) * size // parts
