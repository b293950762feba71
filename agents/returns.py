"""Lambda-returns."""

from __future__ import annotations

import torch
from torch import Tensor


def lambda_returns(
    rewards: Tensor, next_values: Tensor, continuation: Tensor, ended: Tensor, gamma: float, return_lambda: float
) -> Tensor:
    """Lambda-returns of every step of a rollout, (T, B) float.

    Sutton & Barto (2018), section 12.8, cut at the ends of episodes and of the rollout:
    R[t] = r[t] + gamma c[t] ((1 - lambda) V[t+1] + lambda R[t+1]), where the bracket is V[t+1] at the end of an episode
    and at the last step. The continuation c[t] is 0 at a termination and 1 elsewhere; or, where an env tells it, the
    probability that the episode goes on, as in DreamerV3 (arXiv 2301.04104): its expectation in place of a draw.

    rewards: (T, B) float. next_values: (T, B) float, value of the state that each step led to; at the end of an episode
    that is its final state, not the first one of the next. continuation: (T, B) float in [0, 1]. ended: (T, B) bool.
    Raises ValueError for unequal shapes.
    """
    shapes = {tuple(x.shape) for x in (rewards, next_values, continuation, ended)}
    if len(shapes) != 1 or rewards.ndim != 2 or rewards.shape[0] == 0:
        raise ValueError(f"Expected four tensors of one shape (T, B) with T >= 1, got {sorted(shapes)}.")
    carried = torch.where(ended, 0.0, return_lambda).to(rewards.dtype)
    # R[t] = base[t] + weight[t] * R[t+1]; the last step has no R[t+1], so that its carried share is 0.
    carried[-1] = 0.0
    discount = gamma * continuation.to(rewards.dtype)
    base = rewards + discount * (1.0 - carried) * next_values
    weight = discount * carried
    returns = torch.empty_like(base)
    following = torch.zeros_like(base[0])
    for t in range(base.shape[0] - 1, -1, -1):
        following = base[t] + weight[t] * following
        returns[t] = following
    return returns  # (T, B)
