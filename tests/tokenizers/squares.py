"""Frames that show a small bright square somewhere on a textured background, and episodes made of frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tests.episodes import played
from worldsim.data.episode import Episode
from worldsim.data.store import EpisodeStore
from worldsim.tokenizers.config import TokenizerConfig
from worldsim.tokenizers.learner import TokenizerLearner
from worldsim.training import fit

SIZE = 32
SQUARE = 3
BRIGHTNESS = 250

MakeStore = Callable[..., EpisodeStore]


def square_frames(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Frames (count, SIZE, SIZE, 3) and the square's upper left corner in each, (count, 2)."""
    waves = 25 * np.sin(np.arange(SIZE) * 0.9)[:, None] + 25 * np.cos(np.arange(SIZE) * 0.5)[None]
    background = (90 + waves[..., None] + np.array([0, 10, 20])).astype(np.uint8)
    corners = np.random.default_rng(seed).integers(0, SIZE - SQUARE + 1, size=(count, 2))
    frames = np.repeat(background[None], count, axis=0)
    for frame, (row, column) in zip(frames, corners, strict=True):
        frame[row : row + SQUARE, column : column + SQUARE] = BRIGHTNESS
    return frames, corners


def make_episode(frames: NDArray[np.uint8], split: str = "train", terminated: bool = False) -> Episode:
    steps = len(frames) - 1
    nothing = np.zeros(steps, np.int64)
    return played(frames, nothing, nothing.astype(np.float32), policy="none", split=split, terminated=terminated)


def trained_for(
    steps: int, config: TokenizerConfig, store: EpisodeStore, dtype: torch.dtype, folder: Path
) -> TokenizerLearner:
    """A learner after so many steps, of which those that an earlier one saved in `folder` are not made again."""
    torch.manual_seed(len(folder.name) + steps)  # nothing may depend on the global state
    learner = TokenizerLearner(config, store, "cpu", dtype, seed=4)
    fit(learner, steps=steps, folder=folder, name="tokenizer", progress=False)
    return learner
