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
Given = np.ndarray[Any, Any] | Tensor


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


def reset_seed(seed: int, update: int) -> int:
    """The seed for `envs.reset` at an update: a stable hash within [0, 2**31)."""
    return int(np.random.SeedSequence([seed, update]).generate_state(1)[0]) >> 1


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
    first: Given,
    horizon: int,
    generator: torch.Generator,
    statistics: EpisodeStatistics,
) -> tuple[Rollout, Tensor]:
    """Play `horizon` steps from the observations `first` (B, ...). Returns the rollout and the last observations.

    The env may give arrays or tensors; what is returned lies on the policy's device. Raises ValueError if the env
    gives numbers that are not finite, or no final observation where more could follow.
    """
    rows = envs.num_envs
    device = policy.head.weight.device
    begun = torch.as_tensor(first)
    observations = torch.empty((horizon + 1, *begun.shape), dtype=begun.dtype, device=device)
    observations[0] = begun
    rewards = np.empty((horizon, rows), np.float32)
    terminated = np.empty((horizon, rows), np.bool_)
    truncated = np.empty((horizon, rows), np.bool_)
    continuation = np.empty((horizon, rows), np.float32)
    raw_actions: list[Tensor] = []
    final_at: list[tuple[int, int]] = []
    finals: list[Tensor] = [observations[0, :0]]
    for t in range(horizon):
        with torch.no_grad():
            raw = policy(observations[t]).sample(generator)
        raw_actions.append(raw)
        shown, *outcome, infos = envs.step(policy.actions.decode(raw))
        observations[t + 1] = torch.as_tensor(shown)
        rewards[t], terminated[t], truncated[t] = (_array(part) for part in outcome)
        ended = terminated[t] | truncated[t]
        statistics.step(rewards[t], ended)
        continuation[t] = 1.0 - _array(infos.get("termination_probability", terminated[t]))
        cut = np.flatnonzero(ended & (continuation[t] > 0))
        final_at += [(t, row) for row in cut.tolist()]
        if len(cut):
            finals.append(_final_observations(infos, cut).to(observations))
    if not np.isfinite(rewards).all():
        raise ValueError("The vector env gave rewards that are not finite.")
    if observations.is_floating_point() and not observations.isfinite().all():
        raise ValueError("The vector env gave observations that are not finite.")
    rollout = Rollout(
        observations,
        torch.stack(raw_actions),
        torch.from_numpy(rewards).to(device),
        torch.from_numpy(terminated).to(device),
        torch.from_numpy(truncated).to(device),
        torch.from_numpy(continuation).to(device),
        torch.tensor(final_at, dtype=torch.int64, device=device).reshape(-1, 2),
        torch.cat(finals),
    )
    return rollout, observations[-1]


def _array(values: Given) -> np.ndarray[Any, Any]:
    return values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _final_observations(infos: dict[str, Any], rows: np.ndarray[Any, Any]) -> Tensor:
    """(R, ...) of the rows (R,) that ended: from a tensor of all rows, or from an array of objects."""
    final = infos.get("final_obs")
    if isinstance(final, Tensor):
        return final[torch.from_numpy(rows).to(final.device)]
    for row in rows:
        if final is None or final[row] is None:
            raise ValueError(f"Row {row} ended without infos['final_obs'], which SAME_STEP demands.")
    assert final is not None
    return torch.from_numpy(np.stack([np.asarray(final[row]) for row in rows]))
