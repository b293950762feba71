"""Muon (Jordan et al. 2024): steps of matrices are made orthogonal, so that all directions move alike.

torch.optim.Muon takes one matrix after the other, in bf16: on a CPU that does not multiply bf16 that is three quarters
of a training step of a small network. Here matrices of one shape go together, in the precision of the training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from worldsim import distributed

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, steepest at zero; singular values end within 0.7 and 1.2
ITERATIONS = 5
SMALLEST_NORM = 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are orthogonal matrices, scaled to the root mean square of AdamW's, 0.2 (Liu et al. 2025).

    With processes that share the parameters out, each makes the whole steps, from whole gradients, and takes its part.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: float,
        *,
        weight_decay: float,
        dtype: torch.dtype,
        momentum: float = 0.95,
    ) -> None:
        """matrices: parameters (rows, columns). weight_decay: decoupled, as AdamW's. dtype: of the matrix products."""
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of every matrix that has a gradient."""
        if closure is not None:
            raise NotImplementedError("Muon takes no closure: compute the gradients first")
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
            for (rows, columns), parameters in by_shape.items():
                steps = orthogonal(torch.stack([self._momentum(p, group["momentum"]) for p in parameters]), self._dtype)
                rate = group["lr"] * 0.2 * math.sqrt(max(rows, columns))
                for parameter, step in zip(parameters, steps, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(distributed.part_for(parameter, step.to(parameter.dtype)), alpha=rate)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """The gradient with Nesterov's momentum, whole; the running mean moves on."""
        assert parameter.grad is not None
        gradient = distributed.whole(parameter.grad)
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(mean, momentum)


def orthogonal(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Matrices (B, m, n) with the same singular vectors and all singular values near 1, in `dtype`: U V^T, nearly.

    Five Newton-Schulz iterations X <- a X + (b A + c A A) X with A = X X^T on the shorter side.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
