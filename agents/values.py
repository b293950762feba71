"""The value network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldsim.agents.networks import NetworkSpec, build_trunk, initialise_layers

MOMENT_RATE = 0.2  # share of the newest update in the running moments of the returns
MIN_SCALE = 0.01
MIN_SHARE = 0.1  # least scale as a share of the returns' root mean square


class ValueNetwork(nn.Module):
    """Network inputs to the value of the state, for returns of any scale.

    The last layer predicts (return - mean) / scale with running moments of the returns. When the moments move, the
    layer is rescaled so that its values stay the same (PopArt: van Hasselt et al., 2016, "Learning values across many
    orders of magnitude", proposition 1). The scale is at least a tenth of the returns' root mean square: returns that
    hardly differ would otherwise magnify every error of the values. A new network's value is 0 everywhere, and the mean
    of the first returns after the first `observe`.
    """

    mean: Tensor
    square: Tensor
    scale: Tensor
    updates: Tensor

    def __init__(self, spec: NetworkSpec, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.trunk, size = build_trunk(spec)
        self.head = nn.Linear(size, 1)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("square", torch.ones(()))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.initialise(generator)

    def initialise(self, generator: torch.Generator | None) -> None:
        """Trunk: see `initialise_layers`. Head: zeros."""
        initialise_layers(self.trunk, generator)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def normalised(self, inputs: Tensor) -> Tensor:
        """(value - mean) / scale, (B,), for network inputs (B, ...) as `Inputs` gives them."""
        output: Tensor = self.head(self.trunk(inputs)).squeeze(-1)
        return output

    def forward(self, inputs: Tensor) -> Tensor:
        return self.mean + self.scale * self.normalised(inputs)

    def loss(self, inputs: Tensor, returns: Tensor) -> Tensor:
        """Half the mean squared error in units of the running scale. returns: (B,)."""
        return 0.5 * (self.normalised(inputs) - (returns - self.mean) / self.scale).square().mean()

    @torch.no_grad()
    def observe(self, returns: Tensor) -> None:
        """Fold an update's returns (S,) into the running moments; after the first time the values stay as they are."""
        first = int(self.updates) == 0
        rate = 1.0 if first else MOMENT_RATE
        old_mean, old_scale = self.mean.clone(), self.scale.clone()
        self.mean.lerp_(returns.mean(), rate)
        self.square.lerp_(returns.square().mean(), rate)
        variance = torch.maximum(self.square - self.mean.square(), MIN_SHARE**2 * self.square)
        self.scale.copy_(variance.clamp_min(MIN_SCALE**2).sqrt())
        self.updates.add_(1)
        if first:
            return
        self.head.weight.mul_(old_scale / self.scale)
        self.head.bias.mul_(old_scale / self.scale).add_((old_mean - self.mean) / self.scale)
