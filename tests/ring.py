"""An env whose next frame is a known function of the action: `tests.ring:Ring-v0`."""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

CELLS = 8
END = 4  # whoever steps there is done
MOVES = (-1, 0, 1)  # of the three actions


def cell_after(cell: NDArray[Any] | int, action: NDArray[Any] | int) -> Any:
    """Where an action leads: one cell to the left, nowhere, one cell to the right, round the ring."""
    return (cell + np.asarray(MOVES)[action]) % CELLS


class Ring(gym.Env[NDArray[np.uint8], Any]):
    """A bright cell in a row of eight, a picture (16, 64, 3). A step pays the index of the cell that it leads to."""

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space = gym.spaces.Box(0, 255, (16, 8 * CELLS, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(len(MOVES))
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self.cell = int(self.np_random.choice([cell for cell in range(CELLS) if cell != END]))
        return self._frame(), {}

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        self.cell = int(cell_after(self.cell, int(action)))
        return self._frame(), float(self.cell), self.cell == END, False, {}

    def _frame(self) -> NDArray[np.uint8]:
        frame = np.zeros((16, 8 * CELLS, 3), np.uint8)
        frame[:, 8 * self.cell : 8 * self.cell + 8] = 255
        return frame


gym.register("Ring-v0", entry_point=cast(Any, Ring), max_episode_steps=60)
