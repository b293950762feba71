"""Rollouts: a fixed number of steps in every row of a vector env."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from worldsim.agents.errors import UnusableSpaceError
from worldsim.agents.networks import PolicyNetwork

Envs = gym.vector.VectorEnv[Any, Any, Any]


@dataclass(frozen=True)
class Rollout:
    """What happened in T steps of B rows, on the learner's device.

    observations: (T+1, B, ...), the policy's input at each step and after the last; behind the end of an episode it
        is the first one of the next. raw_actions: int64 (T, B) or (T, B, K), or float32 (T, B, A), see
        `worldsim.agents.actions`. rewards: (T, B) float32.
    terminated, truncated: (T, B) bool. continuation: (T, B) float32, 1 where the episode goes on and 0 at a
        termination; where the env's infos carry "termination_probability" (a dream's do), 1 minus that, whatever was
        drawn. final_at: (K, 2) int64, the (step, row) of ends with a continuation above 0. final_observations:
        (K, ...), the last observations of those episodes.
    """

    observations: Tensor
    raw_actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    continuation: Tensor
    final_at: Tensor
    final_observations: Tensor


@dataclass
class EpisodeStatistics:
    """Returns and lengths of the last 100 finished episodes, and the running ones of each row."""

    rows: int
    returns: deque[float] = field(default_factory=lambda: deque(maxlen=100))
    lengths: deque[int] = field(default_factory=lambda: deque(maxlen=100))

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """All rows begin a new episode; unfinished ones are forgotten."""
        self._returns = np.zeros(self.rows)
        self._lengths = np.zeros(self.rows, np.int64)

    def step(self, rewards: np.ndarray[Any, Any], ended: np.ndarray[Any, Any]) -> None:
        """Count one step. rewards: (B,) float. ended: (B,) bool."""
        self._returns += rewards
        self._lengths += 1
        self.returns.extend(self._returns[ended].tolist())
        self.lengths.extend(self._lengths[ended].tolist())
        self._returns[ended] = 0.0
        self._lengths[ended] = 0


def check_autoreset(envs: Envs) -> None:
    """Raise UnusableSpaceError unless the vector env resets within the step that ends an episode (SAME_STEP)."""
    mode = envs.metadata.get("autoreset_mode")
    if mode not in (AutoresetMode.SAME_STEP, AutoresetMode.SAME_STEP.value, AutoresetMode.SAME_STEP.name):
        raise UnusableSpaceError(
            f"An agent needs envs.metadata['autoreset_mode'] == AutoresetMode.SAME_STEP, got {mode}: make them "
            "with gymnasium.make_vec(..., vector_kwargs={'autoreset_mode': AutoresetMode.SAME_STEP})."
        )


def play_rollout(
    envs: Envs,
    policy: PolicyNetwork,
    first: np.ndarray[Any, Any],
    horizon: int,
    generator: torch.Generator,
    statistics: EpisodeStatistics,
) -> tuple[Rollout, np.ndarray[Any, Any]]:
    """Play `horizon` steps from the observations `first` (B, ...). Returns the rollout and the last observations.

    Raises ValueError if the env gives numbers that are not finite, or no final observation where more could follow.
    """
    rows = envs.num_envs
    device = policy.head.weight.device
    observations = np.empty((horizon + 1, *first.shape), first.dtype)
    observations[0] = first
    rewards = np.empty((horizon, rows), np.float32)
    terminated = np.empty((horizon, rows), np.bool_)
    truncated = np.empty((horizon, rows), np.bool_)
    continuation = np.empty((horizon, rows), np.float32)
    raw_actions: list[Tensor] = []
    final_at: list[tuple[int, int]] = []
    finals: list[np.ndarray[Any, Any]] = []
    for t in range(horizon):
        with torch.no_grad():
            raw = policy(torch.from_numpy(observations[t]).to(device)).sample(generator)
        raw_actions.append(raw)
        observations[t + 1], rewards[t], terminated[t], truncated[t], infos = envs.step(policy.actions.decode(raw))
        ended = terminated[t] | truncated[t]
        statistics.step(rewards[t], ended)
        continuation[t] = 1.0 - infos.get("termination_probability", terminated[t])
        for row in np.flatnonzero(ended & (continuation[t] > 0)):
            final = infos["final_obs"][row] if "final_obs" in infos else None
            if final is None:
                raise ValueError(f"Row {row} ended without infos['final_obs'], which SAME_STEP demands.")
            final_at.append((t, int(row)))
            finals.append(np.array(final, first.dtype))
    if not np.isfinite(rewards).all():
        raise ValueError("The vector env gave rewards that are not finite.")
    if np.issubdtype(first.dtype, np.floating) and not np.isfinite(observations).all():
        raise ValueError("The vector env gave observations that are not finite.")
    final_observations = np.stack(finals) if finals else np.empty((0, *first.shape[1:]), first.dtype)
    rollout = Rollout(
        torch.from_numpy(observations).to(device),
        torch.stack(raw_actions),
        torch.from_numpy(rewards).to(device),
        torch.from_numpy(terminated).to(device),
        torch.from_numpy(truncated).to(device),
        torch.from_numpy(continuation).to(device),
        torch.tensor(final_at, dtype=torch.int64, device=device).reshape(-1, 2),
        torch.from_numpy(final_observations).to(device),
    )
    return rollout, observations[-1]
