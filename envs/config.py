"""What a user states about a real environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class EnvConfig:
    """One real environment and the pictures wanted from it.

    `frame_skip` underlying steps are played per agent step, their rewards summed. All sizes are in pixels.
    """

    id: str = "CartPole-v1"
    """A registered Gymnasium id; `module:Name-v0` imports the module first."""
    frame_height: int = 64  # of what the model sees: pictures are scaled to it
    frame_width: int = 64  # a patch of the tokenizer divides both
    grayscale: bool = False  # one channel in place of three
    frame_skip: int = 1
    max_episode_tics: int | None = None
    """Truncate after so many underlying steps. None: the family's usual cap if any (Take Cover: 2100). 0: no cap."""
    crop: list[int] | None = None
    """[top, bottom, left, right] of the source picture, ends excluded. None: the family's default, else all of it."""
    image: str = "auto"
    """Where pictures come from: "auto", "observation", "render", or the key of a Dict observation."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Passed to `gymnasium.make`."""
