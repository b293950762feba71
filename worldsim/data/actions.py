"""Actions as the numbers that a network reads."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from worldsim.data.episode import EnvSpec
from worldsim.errors import UserError


def action_feature_count(spec: EnvSpec) -> int:
    """A, the number of features of one action."""
    space = spec.action_space
    return int(space["n"]) if space["type"] == "discrete" else int(np.prod(space["shape"]))


def action_features(spec: EnvSpec, actions: Tensor) -> Tensor:
    """Stored actions -> float32 (..., A): one-hot for discrete actions, scaled to [-1, 1] for bounded box actions.

    actions: int64 (...) or float32 (..., A). An unbounded side of a box passes through tanh. Raises UserError for a
    discrete action outside the space.
    """
    space = spec.action_space
    if space["type"] == "discrete":
        count = int(space["n"])
        if actions.numel() and not 0 <= int(actions.min()) <= int(actions.max()) < count:
            wrong = next(int(value) for value in actions.flatten() if not 0 <= value < count)
            raise UserError(f"action {wrong}: expected 0 to {count - 1} ({', '.join(spec.action_meanings)})")
        return F.one_hot(actions.long(), count).float()
    low = torch.as_tensor(np.asarray(space["low"], np.float32).reshape(-1), device=actions.device)
    high = torch.as_tensor(np.asarray(space["high"], np.float32).reshape(-1), device=actions.device)
    bounded = torch.isfinite(low) & torch.isfinite(high)
    span = torch.where(bounded, high - low, torch.ones_like(low))
    scaled = 2 * (actions - torch.where(bounded, low, torch.zeros_like(low))) / span - 1
    return torch.where(bounded, scaled.clamp(-1, 1), actions.tanh())
