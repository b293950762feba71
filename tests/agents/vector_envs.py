"""Tiny vector envs with SAME_STEP autoreset and known answers."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

Array = np.ndarray[Any, Any]


class TinyVectorEnv(gym.vector.VectorEnv[Array, Array, Array]):
    """Rows that share one generator; subclasses say what a state is, what is seen of it and what a step does."""

    def __init__(self, num_envs: int, observation: gym.spaces.Space[Any], action: gym.spaces.Space[Any]) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.num_envs = num_envs
        self.single_observation_space = observation
        self.single_action_space = action
        self.observation_space = gym.vector.utils.batch_space(observation, num_envs)
        self.action_space = gym.vector.utils.batch_space(action, num_envs)
        self.rng = np.random.default_rng(0)
        self.reset_seeds: list[int | None] = []
        self.state = self.fresh()

    def fresh(self) -> Array:
        raise NotImplementedError

    def observe(self) -> Array:
        raise NotImplementedError

    def advance(self, actions: Array) -> tuple[Array, Array, Array]:
        """Change `self.state`; returns rewards, terminated, truncated."""
        raise NotImplementedError

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        self.reset_seeds.append(seed)
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.state = self.fresh()
        return self.observe(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        rewards, terminated, truncated = self.advance(actions)
        ended = terminated | truncated
        infos = {"final_obs": self.observe(), "_final_obs": ended} if ended.any() else {}
        fresh = self.fresh()
        self.state = np.where(ended.reshape(-1, *[1] * (fresh.ndim - 1)), fresh, self.state)
        return self.observe(), rewards, terminated, truncated, infos


class OneState(TinyVectorEnv):
    """One state, reward 1, nothing to choose; ends with probability `hazard` as `ending` says. Two noises are seen."""

    def __init__(self, num_envs: int, hazard: float, ending: str) -> None:
        self.hazard, self.ending = hazard, ending
        super().__init__(num_envs, gym.spaces.Box(-9, 9, (2,), np.float32), gym.spaces.Discrete(2))

    def fresh(self) -> Array:
        return np.zeros((self.num_envs, 2), np.float32)

    def observe(self) -> Array:
        return self.state.copy()

    def advance(self, actions: Array) -> tuple[Array, Array, Array]:
        self.state = self.rng.normal(size=(self.num_envs, 2)).astype(np.float32)
        ended = self.rng.random(self.num_envs) < self.hazard
        never = np.zeros(self.num_envs, np.bool_)
        endings = (ended, never) if self.ending == "terminated" else (never, ended)
        return np.ones(self.num_envs), *endings


class Corridor(TinyVectorEnv):
    """Seven cells, one-hot; action 1 goes right, 0 left. The right end pays 1 and terminates; 30 steps truncate."""

    cells = 7

    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs, gym.spaces.Box(0, 1, (self.cells,), np.float32), gym.spaces.Discrete(2))

    def fresh(self) -> Array:
        return np.zeros((self.num_envs, 2), np.int64)  # cell, step

    def observe(self) -> Array:
        return np.eye(self.cells, dtype=np.float32)[self.state[:, 0]]

    def advance(self, actions: Array) -> tuple[Array, Array, Array]:
        cell = np.clip(self.state[:, 0] + 2 * actions - 1, 0, self.cells - 1)
        self.state = np.stack([cell, self.state[:, 1] + 1], 1)
        arrived = cell == self.cells - 1
        return arrived.astype(np.float64), arrived, self.state[:, 1] >= 30


class Target(TinyVectorEnv):
    """A number in [-1, 1] is shown; the Box action should equal `2 + number`. Reward: minus the distance."""

    def __init__(self, num_envs: int) -> None:
        action = gym.spaces.Box(np.float32(1.0), np.float32(3.0), (1,), np.float32)
        super().__init__(num_envs, gym.spaces.Box(-1, 1, (1,), np.float32), action)

    def fresh(self) -> Array:
        return self.rng.uniform(-1, 1, (self.num_envs, 1)).astype(np.float32)

    def observe(self) -> Array:
        return self.state.copy()

    def advance(self, actions: Array) -> tuple[Array, Array, Array]:
        assert actions.dtype == np.float32
        assert self.action_space.contains(actions)
        rewards = -np.abs(actions - 2 - self.state)[:, 0]
        never = np.zeros(self.num_envs, np.bool_)
        return rewards, ~never, never


class BrightSide(TinyVectorEnv):
    """A 16x16 picture with one bright block left or right; actions start at 5; the block's side pays 1."""

    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs, gym.spaces.Box(0, 255, (16, 16, 3), np.uint8), gym.spaces.Discrete(2, start=5))

    def fresh(self) -> Array:
        rows = self.rng.integers(0, 13, self.num_envs)
        sides = self.rng.integers(0, 2, self.num_envs)
        columns = self.rng.integers(0, 5, self.num_envs) + 8 * sides
        return np.stack([rows, columns, sides], 1)

    def observe(self) -> Array:
        frames = np.zeros((self.num_envs, 16, 16, 3), np.uint8)
        for frame, (row, column, _) in zip(frames, self.state, strict=True):
            frame[row : row + 3, column : column + 3] = 255
        return frames

    def advance(self, actions: Array) -> tuple[Array, Array, Array]:
        right = (actions - 5) == self.state[:, 2]
        never = np.zeros(self.num_envs, np.bool_)
        return right.astype(np.float64), ~never, never


class Lock(TinyVectorEnv):
    """Two dials are shown, one-hot; each part of the action that is its dial's number pays 1/2."""

    def __init__(self, num_envs: int) -> None:
        action = gym.spaces.MultiDiscrete([3, 2], start=[1, 7])
        super().__init__(num_envs, gym.spaces.Box(0, 1, (5,), np.float32), action)

    def fresh(self) -> Array:
        return np.stack([self.rng.integers(n, size=self.num_envs) for n in (3, 2)], 1)

    def observe(self) -> Array:
        return np.concatenate([np.eye(n, dtype=np.float32)[self.state[:, i]] for i, n in enumerate((3, 2))], 1)

    def advance(self, actions: Array) -> tuple[Array, Array, Array]:
        assert self.action_space.contains(actions)
        right = (actions - np.array([1, 7])) == self.state
        never = np.zeros(self.num_envs, np.bool_)
        return right.mean(1), ~never, never
