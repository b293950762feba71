"""Action spaces and the distributions over them.

A distribution works on *raw* actions, tensors that losses can be computed from: class indices int64, (B,) for Discrete
and (B, K) for MultiDiscrete and MultiBinary, numbers before squashing (B, A) float32 for Box. `ActionCoder` turns raw
actions into those of the env.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from worldsim.agents.errors import UnusableSpaceError

# Five-point Gauss-Hermite quadrature for a standard normal variable (probabilists' weights, which sum to 1).
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
LOG_STD_RANGE = (-4.0, 1.0)

# What actions are drawn with: one for all rows, or one for each; None: torch's own. They live on the CPU, so that no
# draw depends on the device.
Generators = torch.Generator | Sequence[torch.Generator] | None


@dataclass(frozen=True)
class Categorical:
    """Distribution over class indices. log_probs: (B, A) float, normalised."""

    log_probs: Tensor

    def sample(self, generator: Generators) -> Tensor:
        """Raw actions (B,) int64."""
        noise = _drawn(self.log_probs, generator, lambda rows, one: rows.exponential_(generator=one))
        return (self.log_probs - noise.log()).argmax(-1)  # Gumbel-max

    def mode(self) -> Tensor:
        """The most probable raw actions (B,) int64."""
        return self.log_probs.argmax(-1)

    def log_prob(self, raw: Tensor) -> Tensor:
        """Log-probabilities (B,)."""
        return self.log_probs.gather(-1, raw.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Entropies in nats (B,)."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def tempered(self, temperature: float) -> Categorical:
        """The distribution with its logits divided by `temperature` (above 0)."""
        return Categorical(torch.log_softmax(self.log_probs / temperature, -1))


@dataclass(frozen=True)
class MultiCategorical:
    """Independent distributions over the class indices of K parts of an action."""

    parts: tuple[Categorical, ...]

    def sample(self, generator: Generators) -> Tensor:
        """Raw actions (B, K) int64."""
        return torch.stack([part.sample(generator) for part in self.parts], -1)

    def mode(self) -> Tensor:
        """The most probable raw actions (B, K) int64."""
        return torch.stack([part.mode() for part in self.parts], -1)

    def log_prob(self, raw: Tensor) -> Tensor:
        """Log-probabilities (B,) of whole actions."""
        return torch.stack([part.log_prob(raw[..., k]) for k, part in enumerate(self.parts)]).sum(0)

    def entropy(self) -> Tensor:
        """Entropies in nats (B,): the sum of the parts'."""
        return torch.stack([part.entropy() for part in self.parts]).sum(0)

    def tempered(self, temperature: float) -> MultiCategorical:
        """The distribution with all logits divided by `temperature` (above 0)."""
        return MultiCategorical(tuple(part.tempered(temperature) for part in self.parts))


@dataclass(frozen=True)
class SquashedGaussian:
    """tanh of a Gaussian with independent components. mean, log_std: (B, A) float."""

    mean: Tensor
    log_std: Tensor

    def sample(self, generator: Generators) -> Tensor:
        """Raw actions (B, A) float32, before tanh."""
        noise = _drawn(self.mean, generator, lambda rows, one: rows.normal_(generator=one))
        return self.mean + self.log_std.exp() * noise

    def mode(self) -> Tensor:
        """Raw actions (B, A) at the Gaussian's mean."""
        return self.mean

    def log_prob(self, raw: Tensor) -> Tensor:
        """Log-densities (B,) of raw actions, before tanh: in a ratio of policies the Jacobian of tanh cancels."""
        z = (raw - self.mean) * (-self.log_std).exp()
        return (-0.5 * z.square() - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """Entropies in nats (B,) of the *squashed* actions in [-1, 1].

        H[tanh u] = H[u] + E[log(1 - tanh(u)^2)], the expectation by quadrature. The entropy before squashing grows
        without bound with the spread and would reward a policy that only jumps between the two bounds.
        """
        gaussian = self.log_std + 0.5 * math.log(2 * math.pi * math.e)  # (B, A)
        nodes = torch.as_tensor(_NODES, dtype=self.mean.dtype, device=self.mean.device)
        weights = torch.as_tensor(_WEIGHTS, dtype=self.mean.dtype, device=self.mean.device)
        u = self.mean.unsqueeze(-1) + self.log_std.exp().unsqueeze(-1) * nodes  # (B, A, 5)
        log_slope = 2.0 * (math.log(2.0) - u - torch.nn.functional.softplus(-2.0 * u))  # log(1 - tanh(u)^2), stable
        return (gaussian + log_slope @ weights).sum(-1)

    def tempered(self, temperature: float) -> SquashedGaussian:
        """The distribution with its standard deviation multiplied by `temperature` (above 0)."""
        return SquashedGaussian(self.mean, self.log_std + math.log(temperature))


Distribution = Categorical | MultiCategorical | SquashedGaussian


def _drawn(like: Tensor, generator: Generators, fill: Callable[[Tensor, torch.Generator | None], Tensor]) -> Tensor:
    """Noise float32 (B, A) on the device of `like` (B, A)."""
    if isinstance(generator, Sequence):
        return torch.stack([fill(torch.empty(like.shape[1:]), one) for one in generator]).to(like.device)
    return fill(torch.empty(like.shape), generator).to(like.device)


def describe_action_space(space: gym.Space[Any]) -> dict[str, Any]:
    """The space as plain data, {"type": "discrete", "n", "start"}, {"type": "multi_discrete", "nvec", "start"},
    {"type": "multi_binary", "n"} or {"type": "box", "shape", "low", "high"}.

    Raises UnusableSpaceError for anything but Discrete, one-dimensional MultiDiscrete and MultiBinary, and a bounded
    Box of floats.
    """
    if isinstance(space, gym.spaces.Discrete):
        return {"type": "discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, gym.spaces.MultiDiscrete) and len(space.shape) == 1:
        return {"type": "multi_discrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, gym.spaces.MultiBinary) and len(space.shape) == 1:
        return {"type": "multi_binary", "n": int(space.shape[0])}
    if isinstance(space, gym.spaces.Box):
        if not np.issubdtype(space.dtype, np.floating):
            raise UnusableSpaceError(f"A Box action space must hold floats, got {space.dtype}.")
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            raise UnusableSpaceError(f"A Box action space needs finite bounds, got {space}: wrap it in RescaleAction.")
        low, high = space.low.reshape(-1).tolist(), space.high.reshape(-1).tolist()
        return {"type": "box", "shape": list(space.shape), "low": low, "high": high}
    raise UnusableSpaceError(
        f"An agent needs Discrete, MultiDiscrete, MultiBinary (one row of parts) or Box actions, got {space}."
    )


class ActionCoder:
    """Raw actions to environment actions, for one action space given as plain data.

    size: how many numbers a network gives for an action. choices: how many values each discrete part has, () for Box.
    """

    def __init__(self, description: dict[str, Any]) -> None:
        self.description = description
        kind = description["type"]
        self.single = kind == "discrete"  # actions are integers, not arrays
        if kind == "box":
            self.choices: tuple[int, ...] = ()
            self._shape = tuple(int(n) for n in description["shape"])
            self._low = np.asarray(description["low"], np.float32).reshape(self._shape)
            self._high = np.asarray(description["high"], np.float32).reshape(self._shape)
            self.size = math.prod(self._shape)
            return
        counts = description["nvec"] if kind == "multi_discrete" else description["n"]
        self.choices = tuple(int(n) for n in np.atleast_1d(counts)) if kind != "multi_binary" else (2,) * int(counts)
        self.size = sum(self.choices)
        self._start = np.asarray(description.get("start", 0), np.int64)
        self._dtype = np.int8 if kind == "multi_binary" else np.int64  # the space refuses larger ones

    def distribution(self, output: Tensor, log_std: Tensor) -> Distribution:
        """The distribution for a network's output (B, size). log_std: (size,), which only Box actions have."""
        if not self.choices:
            return SquashedGaussian(output, log_std.clamp(*LOG_STD_RANGE).expand_as(output))
        parts = tuple(Categorical(torch.log_softmax(part, -1)) for part in output.split(self.choices, -1))
        return parts[0] if self.single else MultiCategorical(parts)

    def decode(self, raw: Tensor) -> np.ndarray[Any, Any]:
        """Raw actions (B,), (B, K) or (B, A) to those of the env: int64 (B,), integers (B, K), float32 (B, *shape)."""
        values = raw.detach().cpu().numpy()
        if self.choices:
            return np.asarray(values + self._start, self._dtype)
        unit = (np.tanh(values.reshape(-1, *self._shape)) + 1.0) / 2.0
        # The sum can leave the bounds by a rounding error, which Box.contains does not forgive.
        return np.asarray(np.clip(self._low + unit * (self._high - self._low), self._low, self._high), np.float32)

    def uniform(self, rng: np.random.Generator) -> np.ndarray[Any, Any]:
        """One uniformly random environment action: int64 (), integers (K,) or float32 (*shape)."""
        if self.choices:
            drawn = rng.integers(self.choices[0] if self.single else np.asarray(self.choices))
            return np.asarray(drawn + self._start, self._dtype)
        return np.asarray(rng.uniform(self._low, self._high), np.float32)
