"""The one wrapper around every simulator: frame skip, cap, action check, pictures."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from worldsim.envs.doom import DoomWrapper
from worldsim.envs.errors import InvalidActionError, UnusableEnvironmentError
from worldsim.envs.pictures import Frame, Source, shrink


class PixelEnv(gym.Wrapper[Frame, Any, Any, Any]):
    """Frames uint8 (H, W, C), rewards summed over the skipped steps, `info["tics"]` underlying steps per step.

    Attributes: `frame_skip`; `max_episode_tics` (None: no cap); `metadata["render_fps"]` in agent steps per second.
    `render()` gives the whole source picture of the present frame, uint8 (H, W, 3).
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        source: Source,
        *,
        frame_size: tuple[int, int],
        grayscale: bool,
        crop: tuple[int, int, int, int] | None,
        frame_skip: int,
        max_episode_tics: int | None,
        frames_per_second: float,
    ) -> None:
        super().__init__(env)
        height, width = source.size
        self._source = source
        self._crop = crop or (0, height, 0, width)
        self._frame_size = frame_size
        self._grayscale = grayscale
        self._doom = env if isinstance(env, DoomWrapper) else None
        self.frame_skip = frame_skip
        self.max_episode_tics = max_episode_tics
        self.metadata = {**env.metadata, "render_modes": ["rgb_array"], "render_fps": frames_per_second}
        shape = (*frame_size, 1 if grayscale else 3)
        self.observation_space = gym.spaces.Box(0, 255, shape, np.uint8)
        self._first_action: Any = 0  # actions are counted from 0 here, whatever the simulator does
        if isinstance(env.action_space, gym.spaces.Discrete):
            self._first_action = int(env.action_space.start)
            self.action_space = gym.spaces.Discrete(int(env.action_space.n))
        elif isinstance(env.action_space, gym.spaces.MultiDiscrete):
            self._first_action = env.action_space.start
            self.action_space = gym.spaces.MultiDiscrete(env.action_space.nvec)
        else:
            self.action_space = env.action_space
        self._observation: Any = None
        self._episode_tics = 0
        self._playing = False

    @property
    def picture_size(self) -> tuple[int, int]:
        """(height, width) in pixels of what is scaled to a frame: the source picture after the crop."""
        top, bottom, left, right = self._crop
        return bottom - top, right - left

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Start an episode: its first frame, and `info["tics"] == 0`."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        self._episode_tics = 0
        self._playing = True
        return self._frame(), {**info, "tics": 0}

    def step(self, action: Any) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """Play up to `frame_skip` underlying steps. Raises InvalidActionError, and ResetNeeded after an ending."""
        if not self._playing:
            raise gym.error.ResetNeeded("the episode has ended or not begun: call reset() before step()")
        action = self._checked(action)
        tics_left = self.frame_skip
        if self.max_episode_tics is not None:
            tics_left = min(tics_left, self.max_episode_tics - self._episode_tics)
        if self._doom is not None:
            self._observation, reward, terminated, truncated, info, tics = self._doom.step_tics(action, tics_left)
        else:
            reward, tics, terminated, truncated = 0.0, 0, False, False
            while tics < tics_left and not (terminated or truncated):
                self._observation, step_reward, terminated, truncated, info = self.env.step(action)
                reward += float(step_reward)
                tics += 1
        self._episode_tics += tics
        if self.max_episode_tics is not None and self._episode_tics >= self.max_episode_tics and not terminated:
            truncated = True
        self._playing = not (terminated or truncated)
        return self._frame(), reward, bool(terminated), bool(truncated), {**info, "tics": tics}

    def render(self) -> Frame:
        """The whole source picture of the present frame, before crop and resize, uint8 (H, W, 3)."""
        if self._observation is None:
            raise gym.error.ResetNeeded("nothing to render yet: call reset() before render()")
        height, width = self._source.size
        return np.array(self._source.band(self._observation, 0, height, 0, width).convert("RGB"), dtype=np.uint8)

    def _frame(self) -> Frame:
        image = self._source.band(self._observation, *self._crop)
        return shrink(image, *self._frame_size, self._grayscale)

    def _checked(self, action: Any) -> Any:
        """The action in the simulator's own type; raises InvalidActionError."""
        space = self.action_space
        array = np.asarray(action)
        if isinstance(space, gym.spaces.Discrete):
            if array.shape == () and np.issubdtype(array.dtype, np.integer) and 0 <= int(array) < int(space.n):
                return int(array) + self._first_action
            raise InvalidActionError(
                f"action {action!r} is not in {space}: expected an integer from 0 to {space.n - 1}"
            )
        if isinstance(space, gym.spaces.MultiDiscrete | gym.spaces.MultiBinary):
            if array.shape == space.shape and np.issubdtype(array.dtype, np.integer) and space.contains(array):
                return array.astype(space.dtype) + np.asarray(self._first_action, space.dtype)
            limits = space.nvec - 1 if isinstance(space, gym.spaces.MultiDiscrete) else 1
            raise InvalidActionError(
                f"action {action!r} is not in {space}: expected {space.shape[0]} integers from 0 to {limits}"
            )
        if not isinstance(space, gym.spaces.Box):
            raise UnusableEnvironmentError(f"action space {space}: see worldsim.envs.make for what is supported")
        if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
            raise InvalidActionError(f"action {action!r} is not in {space}: expected numbers")
        if array.shape != space.shape:
            raise InvalidActionError(f"action {action!r} has shape {array.shape}, {space} expects {space.shape}")
        array = array.astype(space.dtype)
        if not (np.isfinite(array).all() and (array >= space.low).all() and (array <= space.high).all()):
            raise InvalidActionError(f"action {action!r} is not in {space}: low {space.low}, high {space.high}")
        return array
