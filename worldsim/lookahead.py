"""Plans of discrete actions, and what they risk: no frame is dreamt for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def simple_plans(choices: int, steps: int, changes: Sequence[int]) -> Tensor:
    """Plans int64 (P, steps) of discrete actions: all that keep one, and all that change it once.

    changes: after how many steps. The first action of every one of them is of the first `choices`, in ascending order.
    """
    plans = [[first] * steps for first in range(choices)]
    plans += [
        [first] * after + [then] * (steps - after)
        for first in range(choices)
        for then in range(choices)
        for after in changes
        if first != then and after < steps
    ]
    return torch.tensor(sorted(plans))


def plan_risks(
    logits: Tensor, discount: float, *, horizon: int | None = None, afterwards_weight: float = 1.0
) -> Tensor:
    """Probability of an ending within the steps of each plan, (B, P), from its logit at each step, (B, P, H).

    discount: factor on the probability of each step, for each step before it: below 1, what comes later counts less,
    as what comes sooner is surer. horizon: steps of a plan; the probabilities of what comes after them count
    `afterwards_weight` times.
    """
    counted = discount ** torch.arange(logits.shape[-1], device=logits.device)
    if horizon is not None:
        counted[horizon:] *= afterwards_weight
    return 1 - (1 - logits.sigmoid() * counted).prod(-1)


def action_risks(risks: Tensor, plans: Tensor) -> Tensor:
    """Of each first action the risk of the best plan that begins with it, (B, actions).

    risks: (B, P), of the plans int64 (P, H), of which each action begins at least one.
    """
    choices = int(plans[:, 0].max()) + 1
    return torch.stack([risks[:, plans[:, 0] == choice].amin(1) for choice in range(choices)], dim=1)
