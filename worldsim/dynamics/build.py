"""Dynamics from their settings."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from worldsim.dynamics.config import DynamicsConfig
from worldsim.dynamics.dit_dynamics import DiTDynamics
from worldsim.dynamics.mdn_rnn import MdnRnnDynamics
from worldsim.dynamics.protocol import Dynamics
from worldsim.dynamics.video_gpt import VideoGptDynamics
from worldsim.errors import UserError


def _video_gpt(
    config: DynamicsConfig,
    tokens: int,
    channels: int,
    grid: tuple[int, int],
    action_features: int,
    codes: Tensor | None,
) -> Dynamics:
    if codes is None:
        raise UserError("dynamics.kind=video_gpt predicts codes, which only tokenizer.kind=vq makes: choose that")
    return VideoGptDynamics(config, tokens, channels, action_features, codes)


DYNAMICS: dict[str, Callable[[DynamicsConfig, int, int, tuple[int, int], int, Tensor | None], Dynamics]] = {
    "dit": lambda *given: DiTDynamics(*given[:-1]),
    "mdn_rnn": lambda *given: MdnRnnDynamics(*given[:-1]),
    "video_gpt": _video_gpt,
}


def build_dynamics(
    config: DynamicsConfig,
    tokens: int,
    channels: int,
    grid: tuple[int, int],
    action_features: int,
    codes: Tensor | None = None,
) -> Dynamics:
    """Fresh dynamics for N `tokens` of D `channels` that stand in a `grid` of rows and columns.

    codes: (K, D), raw latents, where these are all the tokens there are. Weights are drawn from torch's global
    generator. Raises UserError for an unknown kind, and for one that needs codes where there are none.
    """
    if config.kind not in DYNAMICS:
        raise UserError(f"dynamics.kind={config.kind!r} is unknown: choose one of {', '.join(DYNAMICS)}")
    return DYNAMICS[config.kind](config, tokens, channels, grid, action_features, codes)
