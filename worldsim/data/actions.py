"""Actions as the numbers that a network reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldsim.data.episode import EnvSpec
from worldsim.errors import UserError


def action_feature_count(spec: EnvSpec) -> int:
    """A, the number of features of one action."""
    choices = spec.action_choices
    return int(np.prod(spec.action_space["shape"])) if choices is None else sum(choices)


def action_features(spec: EnvSpec, actions: Tensor) -> Tensor:
    """Stored actions -> float32 (..., A): one-hot for each part of a discrete action, scaled to [-1, 1] for a box.

    actions: integers (...) or (..., K), or float32 (..., A). What lies outside a box counts as its nearest point; an
    unbounded side passes through tanh. Raises UserError for a discrete action that is no integer or outside the space,
    and for an action of a box that is not finite.
    """
    choices = spec.action_choices
    return _box_features(spec.action_space, actions) if choices is None else _one_hots(spec, choices, actions)


def _one_hots(spec: EnvSpec, choices: tuple[int, ...], actions: Tensor) -> Tensor:
    if actions.is_floating_point():
        raise UserError(
            f"actions of dtype {actions.dtype}: {spec.id} takes integers ({', '.join(spec.action_meanings)})"
        )
    parts = actions.long() if spec.action_shape else actions.long().unsqueeze(-1)  # (..., K)
    counts = torch.tensor(choices, device=parts.device)
    wrong = ((parts < 0) | (parts >= counts)).any(-1)
    if wrong.any():
        given = parts[wrong][0].tolist()
        values = ", ".join(f"0 to {count - 1}" for count in choices)
        shown = given if spec.action_shape else given[0]
        raise UserError(f"action {shown}: expected {values} ({', '.join(spec.action_meanings)})")
    features = torch.zeros(*parts.shape[:-1], sum(choices), device=parts.device)
    return features.scatter_(-1, parts + counts.cumsum(0) - counts, 1.0)  # (..., A)


def _box_features(space: dict[str, Any], actions: Tensor) -> Tensor:
    if not actions.isfinite().all():
        given = actions.reshape(-1, actions.shape[-1])
        raise UserError(f"action {given[~given.isfinite().all(-1)][0].tolist()}: expected finite numbers")
    low = torch.as_tensor(np.asarray(space["low"], np.float32).reshape(-1), device=actions.device)
    high = torch.as_tensor(np.asarray(space["high"], np.float32).reshape(-1), device=actions.device)
    bounded = torch.isfinite(low) & torch.isfinite(high)
    span = torch.where(bounded, high - low, torch.ones_like(low))
    scaled = 2 * (actions - torch.where(bounded, low, torch.zeros_like(low))) / span - 1
    return torch.where(bounded, scaled.clamp(-1, 1), actions.tanh())
