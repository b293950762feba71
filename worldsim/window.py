"""A window that shows frames on the screen, through pygame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.errors import UserError
from worldsim.rendering import to_rgb

SHORTEST_SIDE = 384  # pixels that a window is high or wide at least
GAP = 2  # pixels of a frame between frames


class Window:
    """Opens with the first `show`. frames_per_second: `show` waits so that no more are shown."""

    def __init__(self, title: str, frames_per_second: float) -> None:
        self._title = title
        self._frames_per_second = frames_per_second
        self._screen: Any = None
        self._clock: Any = None

    def show(self, frames: Sequence[NDArray[np.uint8]]) -> None:
        """Frames (H, W, C) of one size, side by side in a square. UserError without pygame or without a screen."""
        picture = tiled([to_rgb(frame) for frame in frames])
        scale = max(1, math.ceil(SHORTEST_SIDE / min(picture.shape[:2])))
        size = (picture.shape[1] * scale, picture.shape[0] * scale)
        pygame = _pygame()
        try:
            if self._screen is None:
                pygame.display.init()
                pygame.display.set_caption(self._title)
                self._screen = pygame.display.set_mode(size)
                self._clock = pygame.time.Clock()
            surface = pygame.surfarray.make_surface(picture.swapaxes(0, 1))
            self._screen.blit(pygame.transform.scale(surface, size), (0, 0))
            pygame.event.pump()  # else the desktop takes the window for dead
            pygame.display.flip()
        except pygame.error as error:
            raise UserError(
                f"render_mode='human' cannot open a window ({error}): use a desktop, or render_mode='rgb_array'"
            ) from None
        self._clock.tick(self._frames_per_second)

    def close(self) -> None:
        """Closes the window, if it is open; a later `show` opens another."""
        if self._screen is not None:
            _pygame().display.quit()
            self._screen = None


def tiled(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Frames (H, W, 3) from left to right and top to bottom, in as many columns as rows or one more, with gaps."""
    columns = math.ceil(math.sqrt(len(frames)))
    rows = math.ceil(len(frames) / columns)
    height, width = (size + GAP for size in frames[0].shape[:2])
    picture = np.zeros((rows * height - GAP, columns * width - GAP, 3), np.uint8)
    for number, frame in enumerate(frames):
        top, left = number // columns * height, number % columns * width
        picture[top : top + height - GAP, left : left + width - GAP] = frame
    return picture


def _pygame() -> Any:
    try:
        import pygame
    except ImportError:
        raise UserError(
            "render_mode='human' needs pygame: pip install pygame-ce, or use render_mode='rgb_array'"
        ) from None
    return pygame
