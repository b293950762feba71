"""What every dynamics offers, and the records that pass between it and the world model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


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


class Dynamics(Protocol):
    """A model of the next latent frame; its state is its own business, but can be copied row by row."""

    belief_size: int

    def loss(self, clip: LatentClip, *, generator: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Training loss and its named parts."""

    def start(self, latents: Tensor, actions: Tensor, has_action: Tensor, present: Tensor, noise: Tensor) -> Any:
        """State after real frames (B, T, N, D), the actions that led to them, and the noise that memory wants."""

    def step(self, state: Any, actions: Tensor, noise: Tensor, sampling_steps: int) -> tuple[Any, Outcome]:
        """Dream one frame."""

    def observe(self, state: Any, latents: Tensor, actions: Tensor, noise: Tensor) -> tuple[Any, Outcome]:
        """The same update with a real frame in place of a dreamt one."""
