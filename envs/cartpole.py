"""CartPole's pictures without the work that only a window needs: the pixels of `render()`, several times faster."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
from PIL import Image

SIZE = (400, 600)
BAND = (160, 320, 0, 600)
"""Default crop (top, bottom, left, right): all that ever moves lies between rows 172 and 315 of the 400."""

WHITE, BLACK, BROWN, BLUE = (255, 255, 255), (0, 0, 0), (202, 152, 101), (129, 132, 203)
CART_WIDTH, CART_HEIGHT, POLE_WIDTH = 50.0, 30.0, 10.0
RAIL = 100  # the cart's height above the lower edge, pixels


def read_state(env: gym.Env[Any, Any]) -> dict[str, float]:
    """CartPole's four numbers, in metres, radians and seconds."""
    base: Any = env.unwrapped
    names = ("cart position", "cart velocity", "pole angle", "pole angular velocity")
    return {name: float(value) for name, value in zip(names, base.state, strict=True)}


def frames_of(env: gym.Env[Any, Any]) -> CartPoleFrames | None:
    """The pictures of Gymnasium's own CartPole; None for one that was given another `render()`."""
    return CartPoleFrames(env) if _draws_as_gymnasium(env) else None


def crop_of(env: gym.Env[Any, Any]) -> tuple[int, int, int, int] | None:
    """BAND, for pictures that look as those of Gymnasium's own CartPole do."""
    base: Any = env.unwrapped
    return BAND if _draws_as_gymnasium(env) and (base.screen_height, base.screen_width) == SIZE else None


def _draws_as_gymnasium(env: gym.Env[Any, Any]) -> bool:
    from gymnasium.envs.classic_control import CartPoleEnv

    return getattr(type(env.unwrapped), "render", None) is CartPoleEnv.render


class CartPoleFrames:
    """Draws the state of Gymnasium's CartPole (the attributes `state`, `x_threshold`, `length`, screen sizes).

    Gymnasium allocates a surface, flips it, copies it to a second surface and that one to an array, for each picture.
    Here one surface is kept, only the wanted rows are painted, and the flip happens while they are copied out.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        import pygame  # imported here: 0.1 s and a banner that only users of CartPole should pay
        from pygame import gfxdraw

        base: Any = env.unwrapped
        self._base = base
        self._draw = gfxdraw
        self.size = (int(base.screen_height), int(base.screen_width))
        self._surface = pygame.Surface((base.screen_width, base.screen_height), depth=32)  # needs no display
        self._masks = self._surface.get_masks()

    def band(self, observation: Any, top: int, bottom: int, left: int, right: int) -> Image.Image:
        """Rows top to bottom and columns left to right of the picture of the present state."""
        height, width = self.size
        self._surface.set_clip((0, height - bottom, width, bottom - top))  # the surface is painted upside down
        self._paint()
        pitch = self._surface.get_pitch()
        buffer: Any = self._surface.get_buffer()
        rows = bytes(memoryview(buffer)[(height - bottom) * pitch : (height - top) * pitch])
        order = "BGRX" if self._masks[0] == 0xFF0000 else "RGBX"
        image = Image.frombuffer("RGB", (width, bottom - top), rows, "raw", order, pitch, -1)
        return image if (left, right) == (0, width) else image.crop((left, 0, right, bottom - top))

    def _paint(self) -> None:
        """The shapes, coordinates and rounding of CartPole's own `render()`."""
        base, surface, draw = self._base, self._surface, self._draw
        position, angle = float(base.state[0]), float(base.state[2])
        scale = base.screen_width / (base.x_threshold * 2)
        center = position * scale + base.screen_width / 2.0
        axle = RAIL + CART_HEIGHT / 4.0
        surface.fill(WHITE)

        half_width, half_height = CART_WIDTH / 2, CART_HEIGHT / 2
        cart = [
            (center - half_width, RAIL - half_height),
            (center - half_width, RAIL + half_height),
            (center + half_width, RAIL + half_height),
            (center + half_width, RAIL - half_height),
        ]
        draw.aapolygon(surface, cart, BLACK)
        draw.filled_polygon(surface, cart, BLACK)

        half, tip = POLE_WIDTH / 2, scale * 2 * base.length - POLE_WIDTH / 2
        cos, sin = math.cos(-angle), math.sin(-angle)
        pole = [
            (center + x * cos - y * sin, axle + x * sin + y * cos)
            for x, y in ((-half, -half), (-half, tip), (half, tip), (half, -half))
        ]
        draw.aapolygon(surface, pole, BROWN)
        draw.filled_polygon(surface, pole, BROWN)

        draw.aacircle(surface, int(center), int(axle), int(half), BLUE)
        draw.filled_circle(surface, int(center), int(axle), int(half), BLUE)
        draw.hline(surface, 0, base.screen_width, RAIL, BLACK)
