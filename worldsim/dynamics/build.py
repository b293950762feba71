"""Dynamics from their settings."""

from __future__ import annotations

from collections.abc import Callable

from worldsim.dynamics.config import DynamicsConfig
from worldsim.dynamics.dit_dynamics import DiTDynamics
from worldsim.dynamics.mdn_rnn import MdnRnnDynamics
from worldsim.dynamics.protocol import Dynamics
from worldsim.errors import UserError

DYNAMICS: dict[str, Callable[[DynamicsConfig, int, int, tuple[int, int], int], Dynamics]] = {
    "dit": DiTDynamics,
    "mdn_rnn": MdnRnnDynamics,
}


def build_dynamics(
    config: DynamicsConfig, tokens: int, channels: int, grid: tuple[int, int], action_features: int
) -> Dynamics:
    """Fresh dynamics for N `tokens` of D `channels` that stand in a `grid` of rows and columns.

    Weights are drawn from torch's global generator. Raises UserError for an unknown kind.
    """
    if config.kind not in DYNAMICS:
        raise UserError(f"dynamics.kind={config.kind!r} is unknown: choose one of {', '.join(DYNAMICS)}")
    return DYNAMICS[config.kind](config, tokens, channels, grid, action_features)
