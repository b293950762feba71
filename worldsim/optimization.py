"""What every trained network here shares: optimizer groups, learning-rate schedule, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from worldsim.distributed import whole
from worldsim.muon import Muon

OPTIMIZERS = ("adamw", "muon")


def warmup_cosine(step: int, warmup_steps: int, steps: int) -> float:
    """The share of the peak learning rate at 0-based `step`: linear warm-up, then cosine decay to a tenth."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
    return 0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * progress))


def set_learning_rate(optimizers: Sequence[torch.optim.Optimizer], learning_rate: float) -> None:
    """The learning rate of the next step, in all parameter groups."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """AdamW with weight decay on the matrices of layers only, not on gains, biases or learned positions."""
    named = list(model.named_parameters())
    decays = {name for name, parameter in named if parameter.ndim >= 2 and name.endswith("weight")}
    matrices = [parameter for name, parameter in named if name in decays]
    others = [parameter for name, parameter in named if name not in decays]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.99), fused=True)]


def muon_and_adamw(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    dtype: torch.dtype,
    hidden: Sequence[str] = ("blocks",),
) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices of the modules named in `hidden`, AdamW for everything else.

    Muon's steps are scaled to AdamW's root mean square, so one learning rate serves both.
    """
    named = list(model.named_parameters())
    inside = {name for name, _ in named if set(hidden) & set(name.split("."))}
    matrices = [parameter for name, parameter in named if parameter.ndim == 2 and name in inside]
    chosen = {id(parameter) for parameter in matrices}
    rest = [parameter for _, parameter in named if id(parameter) not in chosen]
    return [
        Muon(matrices, learning_rate, weight_decay=weight_decay, dtype=dtype),
        torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True),
    ]


def build_optimizers(
    kind: str, model: nn.Module, learning_rate: float, weight_decay: float, dtype: torch.dtype
) -> list[torch.optim.Optimizer]:
    """The optimizers of a `kind` of OPTIMIZERS. dtype: of the training's matrix products, which Muon makes too."""
    if kind == "muon":
        return muon_and_adamw(model, learning_rate, weight_decay, dtype)
    return adamw(model, learning_rate, weight_decay)


def average_decay(decay: float, step: int) -> float:
    """Of the running average at a step from 1 on: a plain mean at first, so that short trainings forget their start."""
    return min(decay, step / (step + 9.0))


@torch.no_grad()
def average_weights(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the running average towards the model.

    Buffers, such as a codebook, which is a running mean itself, are taken as they are.
    """
    for mean, current in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(whole(current), 1.0 - decay)
    for kept, newest in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(newest)
