"""Probabilities that learnt their training data by heart, made honest on data held out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST_SCALE, LARGEST_SCALE = 0.1, 2.0  # of logits; what lies outside says that too few endings were held out
FEWEST_ENDINGS = 10


@torch.no_grad()
def rescale_logits(layer: nn.Linear, scale: float, shift: float) -> None:
    """From now on the logits that `layer` gives are scale * logit + shift."""
    layer.weight.mul_(scale)
    layer.bias.mul_(scale).add_(shift)


def fit_logits(logits: Tensor, happened: Tensor, weight: Tensor) -> tuple[float, float]:
    """Scale and shift of `logits` under which they predict best (Platt 1999): sigmoid(scale * logit + shift).

    logits, weight (S,) float; happened (S,) bool. (1, 0), no change, where fewer than FEWEST_ENDINGS happened. The
    scale stays within its bounds.
    """
    if int(happened.sum()) < FEWEST_ENDINGS:
        return 1.0, 0.0
    inputs, target, weight = logits.double(), happened.double(), weight.double()
    scale = torch.ones((), dtype=torch.double, requires_grad=True)
    shift = torch.zeros((), dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([scale, shift], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        bounded = scale.clamp(SMALLEST_SCALE, LARGEST_SCALE)
        losses = F.binary_cross_entropy_with_logits(bounded * inputs + shift, target, weight, reduction="sum")
        mean = losses / weight.sum()
        mean.backward()
        return mean

    optimizer.step(loss)
    return float(scale.clamp(SMALLEST_SCALE, LARGEST_SCALE).detach()), float(shift.detach())
