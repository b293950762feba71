"""The frontier with another weight on the loss of each noise level: is the ramp worth its line?

    python -m benchmarks.loss_weights velocity --out runs/weights --seconds 500 --model "velocity loss = runs/dit"

The first argument names the weight, a key of WEIGHTS; the others are those of `benchmarks.frontier`. With x the clean
latents and tau the share of signal, the dynamics learn x with a weight that grows with tau:

    ramp      0.9 tau + 0.1, what worldsim trains with (Dreamer 4, equation 8)
    flat      the same for all levels
    velocity  1 / (1 - tau)^2: the squared error of the flow's velocity, x minus noise, that follows from x

Each is divided by its mean over the levels, so that the learning rate means the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks import frontier
from worldsim import diffusion
from worldsim.errors import UserError

Weight = Callable[[Tensor, int], Tensor]


def flat_weight(tau: Tensor, finest_steps: int) -> Tensor:
    """1 for every tau."""
    return torch.ones_like(tau)


def velocity_weight(tau: Tensor, finest_steps: int) -> Tensor:
    """1 / (1 - tau)^2 over its mean; tau below 1, a multiple of 1 / finest_steps."""
    levels = torch.arange(finest_steps, device=tau.device) / finest_steps
    return (1 - tau) ** -2 / ((1 - levels) ** -2).mean()


WEIGHTS: dict[str, Weight] = {"ramp": diffusion.ramp_weight, "flat": flat_weight, "velocity": velocity_weight}


def main() -> None:
    """Put the weight in the ramp's place, then do what `benchmarks.frontier` does."""
    if "--help" in sys.argv or "-h" in sys.argv:
        print(__doc__)
        return
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in WEIGHTS:
        raise UserError(f"weight {name!r}: expected one of {', '.join(WEIGHTS)} as the first argument")
    # No setting of the dynamics: it is chosen here once, by figures, and not again by everybody who writes a config.
    module: Any = diffusion
    module.ramp_weight = WEIGHTS[name]
    frontier.main()


if __name__ == "__main__":
    main()
