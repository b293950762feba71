"""What every dynamics offers, and the records that pass between it and the world model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from worldsim.dynamics.config import DynamicsConfig
from worldsim.dynamics.heads import OutcomeHead
from worldsim.dynamics.scale import LatentScale


@dataclass(frozen=True)
class LatentClip:
    """Training clips in unit-scale latents, aligned on frames.

    latents: (B, T, N, D). actions: (B, T, A), features of the action that led to each frame. has_action: bool (B, T),
    False at the first frame of an episode. rewards, terminated: (B, T), of the step that led to each frame.
    present: bool (B, T), False where an episode was over. frame_valid: bool (B, T), False where the frame carries no
    picture. head_weight: (B, T), inverse inclusion density of the step.
    """

    latents: Tensor
    actions: Tensor
    has_action: Tensor
    rewards: Tensor
    terminated: Tensor
    present: Tensor
    frame_valid: Tensor
    head_weight: Tensor


@dataclass(frozen=True)
class Outcome:
    """What a step brings. latents: (B, N, D). belief: (B, belief_size). reward, termination_probability,
    uncertainty: (B,); reward and termination belong to the step that led to the latents.
    """

    latents: Tensor
    belief: Tensor
    reward: Tensor
    termination_probability: Tensor
    uncertainty: Tensor


class DynamicsState(Protocol):
    """The past of B dreams, each kind's own business otherwise."""

    @property
    def belief(self) -> Tensor:
        """(B, belief_size) in [-1, 1]."""

    def clone(self) -> Self:
        """A copy that shares nothing, to branch a dream."""

    def select_rows(self, rows: Tensor) -> Self:
        """A copy of some rows (R,), indices."""


class Dynamics(nn.Module, ABC):
    """A model of the next latent frame.

    latent_shape: (N, D). action_features: A. belief_size: width of its summary of the past. scale: raw latents to
    unit scale and back. head: reward and termination. `config.window` is the most frames that `start` takes. All
    randomness of `start`, `step` and `observe` is in the `noise` that they are given, row by row.
    """

    config: DynamicsConfig
    latent_shape: tuple[int, int]
    action_features: int
    belief_size: int
    scale: LatentScale
    head: OutcomeHead

    def __init__(self, config: DynamicsConfig, tokens: int, channels: int, action_features: int) -> None:
        super().__init__()
        self.config = config
        self.latent_shape = (tokens, channels)
        self.action_features = action_features
        self.belief_size = config.belief_size
        self.scale = LatentScale(tokens, channels)

    @property
    def sampling_choices(self) -> tuple[int, ...]:
        """The numbers of denoising steps that a dream may take, ascending."""
        return (self.config.sampling_steps,)

    def follow_codes(self, codes: Tensor) -> None:
        """The tokens are these codes (K, D) from now on, raw latents: their tokenizer was refined."""

    def outcome_losses(self, belief: Tensor, clip: LatentClip) -> tuple[Tensor, Tensor]:
        """Losses of reward and termination. belief: (B, T - 1, belief_size), before the clip's frames 1, 2, ..."""
        return self.head.losses(
            belief, clip.actions[:, 1:], clip.rewards[:, 1:], clip.terminated[:, 1:], clip.head_weight[:, 1:]
        )

    @abstractmethod
    def loss(self, clip: LatentClip, *, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Training loss and its named parts: "latent", a squared error of the frames, "reward", "termination" and
        "change", how much frames change.
        """

    @abstractmethod
    def termination_logits(self, clip: LatentClip, *, generator: torch.Generator) -> Tensor:
        """What the head says of the steps that led to the frames 1, 2, ... of a clip, (B, T - 1) float."""

    @abstractmethod
    def start(self, latents: Tensor, actions: Tensor, has_action: Tensor, present: Tensor, noise: Tensor) -> Any:
        """State after frames (B, T, N, D) that end now, T from 1 to the window.

        actions: (B, T, A), has_action: bool (B, T). present: bool (B, T), False on the left where a row's history is
        shorter than T. noise: (B, T, N, D), unit normal.
        """

    @abstractmethod
    def restart_rows(self, state: Any, rows: Tensor, fresh: Any) -> Any:
        """`state`, which is consumed, with `rows` (indices) replaced by those of `fresh`, whenever the two began."""

    @abstractmethod
    def step(
        self, state: Any, actions: Tensor, noise: Tensor, sampling_steps: int, temperature: float | Tensor = 1.0
    ) -> tuple[Any, Outcome]:
        """Dream one frame. actions (B, A); noise (B, 2, N, D), unit normal.

        temperature: 0 or more, 1 as trained; of all rows or of each (B,).
        """

    @abstractmethod
    def observe(self, state: Any, latents: Tensor, actions: Tensor, noise: Tensor) -> tuple[Any, Outcome]:
        """The same update with a real frame: latents (B, N, D), actions (B, A), noise (B, 2, N, D)."""

    @abstractmethod
    def description(self) -> str:
        """What it is, in a few words for the model card; begins with "A "."""
