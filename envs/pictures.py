"""From a simulator's picture to the frame an agent sees: find it, crop it, turn it grey, resize it."""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from PIL import Image

from worldsim.envs.errors import UnusableEnvironmentError

Frame = npt.NDArray[np.uint8]
SMALLEST_PICTURE = 16  # pixels; smaller uint8 boxes (MiniGrid's 7x7x3) are encodings of objects, not pictures


class Source(Protocol):
    """Gives the picture that belongs to the observation just returned by the simulator."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the source picture in pixels."""
        ...

    def band(self, observation: Any, top: int, bottom: int, left: int, right: int) -> Image.Image:
        """Rows top to bottom and columns left to right of the picture, ends excluded, in mode L or RGB."""
        ...


class ArrayFrames:
    """Pictures that are uint8 arrays (H, W), (H, W, 1), (H, W, 3) or (3 or 1, H, W) in the observation."""

    def __init__(self, space: gym.spaces.Box, key: str | None) -> None:
        self.key = key
        self.channels_first = _channels_first(space.shape)
        height, width = space.shape[1:3] if self.channels_first else space.shape[:2]
        self.size = (int(height), int(width))

    def _array(self, observation: Any) -> Frame:
        array = np.asarray(observation if self.key is None else observation[self.key])
        if self.channels_first:
            array = array.transpose(1, 2, 0)
        return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array

    def band(self, observation: Any, top: int, bottom: int, left: int, right: int) -> Image.Image:
        """Rows top to bottom and columns left to right of the observed array."""
        return _image(self._array(observation)[top:bottom, left:right])


class RenderedFrames:
    """Pictures from `render()` of an environment that shows no picture in its observation."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.env = env
        self._size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width); known after a first `render()`, which needs a first `reset`."""
        if self._size is None:
            self.env.reset()  # unseeded, so that a user's later reset() without a seed stays random
            height, width = self._array().shape[:2]
            self._size = (int(height), int(width))
        return self._size

    def _array(self) -> Frame:
        array: Any = self.env.render()
        if isinstance(array, list):  # render_mode="rgb_array_list"
            array = array[-1]
        if not (isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.ndim == 3):
            raise UnusableEnvironmentError(
                f"render() returned {type(array).__name__}, expected a uint8 array (H, W, 3)"
            )
        return array

    def band(self, observation: Any, top: int, bottom: int, left: int, right: int) -> Image.Image:
        """Rows top to bottom and columns left to right of a new `render()`."""
        return _image(self._array()[top:bottom, left:right])


def shrink(image: Image.Image, height: int, width: int, grayscale: bool) -> Frame:
    """The frame uint8 (height, width, 1 or 3): box filter, so that a small thing darkens its pixel and never vanishes.

    The result owns its memory.
    """
    mode = "L" if grayscale else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BOX)
    frame = np.array(image, dtype=np.uint8)
    return frame[..., None] if grayscale else frame


def resize(frame: Frame, height: int, width: int) -> Frame:
    """A frame uint8 (H, W, 3) at another size, as `shrink` would show it."""
    return shrink(_image(frame), height, width, grayscale=False)


def is_picture(space: gym.Space[Any]) -> bool:
    """Whether a space holds uint8 pictures that are large enough to be one."""
    if not isinstance(space, gym.spaces.Box) or space.dtype != np.uint8:
        return False
    shape = space.shape
    if len(shape) == 2:
        return min(shape) >= SMALLEST_PICTURE
    if len(shape) != 3:
        return False
    if _channels_first(shape):
        return min(shape[1:]) >= SMALLEST_PICTURE
    return shape[2] in (1, 3) and min(shape[:2]) >= SMALLEST_PICTURE


def find_picture(space: gym.Space[Any], image: str) -> tuple[gym.spaces.Box, str | None] | None:
    """The picture's box and its key (None: the observation itself), or None if the observation shows no picture.

    Raises UnusableEnvironmentError where `image` names something that is not there or several keys would do.
    """
    if isinstance(space, gym.spaces.Dict):
        named = image not in ("auto", "observation")
        if named and image not in space.spaces:
            raise UnusableEnvironmentError(
                f"image={image!r}: no such key in the observation; keys: {', '.join(space.spaces)}"
            )
        candidates = [image] if named else [key for key, inner in space.spaces.items() if is_picture(inner)]
        if len(candidates) > 1:
            preferred = [key for key in candidates if key in ("screen", "rgb", "image", "pixels")]
            if not preferred:
                raise UnusableEnvironmentError(
                    f"the observation holds several pictures ({', '.join(candidates)}); name one: image=<key>"
                )
            candidates = preferred[:1]
        for key in candidates:
            inner = space.spaces[key]
            if isinstance(inner, gym.spaces.Box) and is_picture(inner):
                return inner, key
            raise UnusableEnvironmentError(f"image={key!r} holds {inner}, expected uint8 pixels (H, W, 1 or 3)")
        return None
    if image not in ("auto", "observation"):
        raise UnusableEnvironmentError(f"image={image!r}: the observation is {space}, it has no keys")
    return (space, None) if isinstance(space, gym.spaces.Box) and is_picture(space) else None


def _channels_first(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] in (1, 3) and shape[2] not in (1, 3)


def _image(array: Frame) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(array))
