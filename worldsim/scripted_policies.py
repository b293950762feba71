"""Policies that do not look at what they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldsim.errors import UserError
from worldsim.rollouts import Action

# A policy's streams of random numbers must differ from the environment's, which starts from the same seed.
POLICY_STREAM, NOISE_STREAM = 0x706F6C, 0x6E6F69

Drawable = gym.spaces.Discrete | gym.spaces.MultiDiscrete | gym.spaces.MultiBinary | gym.spaces.Box


class UniformRandom:
    """Each action anew, uniform over a space of discrete parts or a bounded Box."""

    name = "uniform"

    def __init__(self, action_space: gym.Space[Any]) -> None:
        self._space = drawable(action_space)
        self._random = np.random.default_rng()

    def reset(self, seed: int) -> None:
        """Seeds the episode's draws."""
        self._random = np.random.default_rng((seed, POLICY_STREAM))

    def __call__(self, frame: NDArray[np.uint8]) -> Action:
        """A fresh draw."""
        return draw(self._space, self._random)


class StickyRandom:
    """Repeats its last action with probability `stickiness`, else draws a new one: random play that goes places.

    "mixed" draws the stickiness of each episode from U(0.5, 0.98).
    """

    def __init__(self, action_space: gym.Space[Any], stickiness: float | str = "mixed") -> None:
        if stickiness != "mixed" and not (isinstance(stickiness, int | float) and 0 <= stickiness <= 1):
            raise UserError(f"stickiness: {stickiness!r}, expected a number from 0 to 1 or 'mixed'")
        self.name = f"sticky-{stickiness}"
        self._space = drawable(action_space)
        self._stickiness = stickiness
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Seeds the episode's draws, forgets the last action and draws a mixed stickiness."""
        self._random = np.random.default_rng((seed, POLICY_STREAM))
        mixed = float(self._random.uniform(0.5, 0.98))
        self._probability = mixed if isinstance(self._stickiness, str) else self._stickiness
        self._last: Action | None = None

    def __call__(self, frame: NDArray[np.uint8]) -> Action:
        """The last action or a fresh draw."""
        if self._last is None or self._random.random() >= self._probability:
            self._last = draw(self._space, self._random)
        return self._last


class OpenLoop:
    """Plays `actions` in turn, each for `hold` steps, and begins anew at the end: a policy without eyes."""

    def __init__(self, actions: Sequence[Action], hold: int = 1, name: str = "open-loop") -> None:
        if not actions or hold < 1:
            raise UserError(f"open-loop policy: {len(actions)} actions held {hold} steps, expected 1 or more of each")
        self.name = name
        self._actions = list(actions)
        self._hold = hold
        self._step = 0

    def reset(self, seed: int) -> None:
        """Begins with the first action."""
        self._step = 0

    def __call__(self, frame: NDArray[np.uint8]) -> Action:
        """The action whose turn it is."""
        action = self._actions[self._step // self._hold % len(self._actions)]
        self._step += 1
        return action


class Constant(OpenLoop):
    """The same action at each step."""

    def __init__(self, action: Action) -> None:
        super().__init__([action], name="constant")


def drawable(space: gym.Space[Any]) -> Drawable:
    """`space`, if random actions can be drawn from it. Raises UserError if not."""
    if isinstance(space, gym.spaces.Box) and not space.is_bounded("both"):
        raise UserError(f"action space {space}: random play needs a bounded Box")
    if not isinstance(space, Drawable):
        raise UserError(
            f"action space {space}: random play needs Discrete, MultiDiscrete, MultiBinary or a bounded Box"
        )
    return space


def draw(space: Drawable, random: np.random.Generator) -> Action:
    """A random action, uniform over the space."""
    if isinstance(space, gym.spaces.Discrete):
        return int(space.start + random.integers(space.n))
    if isinstance(space, gym.spaces.MultiDiscrete):
        return (space.start + random.integers(space.nvec)).astype(space.dtype)
    if isinstance(space, gym.spaces.MultiBinary):
        return random.integers(2, size=space.shape, dtype=np.int8)
    return random.uniform(space.low, space.high).astype(np.float32)
