"""What holds of all dynamics that keep to the protocol: each row is a dream of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from worldsim.dynamics.protocol import Dynamics, LatentClip

History = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
MakeHistory = Callable[..., History]
"""Rows, frames and perhaps a seed to latents, actions, has_action, present and noise, as `start` takes them."""


def draws(dynamics: Dynamics, batch: int, generator: torch.Generator) -> Tensor:
    """The noise of a step, (B, 2, N, D)."""
    return torch.randn(batch, 2, *dynamics.latent_shape, generator=generator)


@torch.no_grad()
def check_heads_say_the_same_in_training_and_while_observing(dynamics: Dynamics, history: History) -> None:
    latents, actions, has_action, present, noise = history
    zeros = torch.zeros(present.shape)
    clip = LatentClip(latents, actions, has_action, zeros, zeros.bool(), present, present, zeros)
    logits = dynamics.termination_logits(clip, generator=torch.Generator())
    state = dynamics.start(*(part[:, :1] for part in history))
    for t in range(1, present.shape[1]):
        state, outcome = dynamics.observe(state, latents[:, t], actions[:, t], noise[:, :2])
        torch.testing.assert_close(outcome.termination_probability, logits[:, t - 1].sigmoid())


@torch.no_grad()
def check_a_restarted_row_dreams_as_if_it_had_begun_alone(dynamics: Dynamics, history: MakeHistory) -> None:
    state, generator = dynamics.start(*history(3, 4)), torch.Generator().manual_seed(1)
    actions = dynamics.action_features
    for _ in range(3):
        action = torch.randn(3, actions, generator=generator)
        state, _ = dynamics.step(state, action, draws(dynamics, 3, generator), 1)
    alone = dynamics.start(*history(1, 2, seed=7))
    untouched = state.clone()
    state = dynamics.restart_rows(state, torch.tensor([1]), alone)
    for _ in range(5):
        noise, action = draws(dynamics, 3, generator), torch.randn(3, actions, generator=generator)
        state, together = dynamics.step(state, action, noise, 1)
        untouched, others = dynamics.step(untouched, action, noise, 1)
        alone, single = dynamics.step(alone, action[1:2], noise[1:2], 1)
        torch.testing.assert_close(together.latents[1:2], single.latents)
        torch.testing.assert_close(together.belief[1:2], single.belief)
        torch.testing.assert_close(together.latents[[0, 2]], others.latents[[0, 2]])


@torch.no_grad()
def check_rows_never_read_each_other(dynamics: Dynamics, history: MakeHistory) -> None:
    order = torch.tensor([2, 0, 3, 1])
    state: Any = dynamics.start(*history(4, 3))
    noise = draws(dynamics, 4, torch.Generator().manual_seed(0))
    action = torch.randn(4, dynamics.action_features)
    _, one = dynamics.step(state, action, noise, 1)
    _, other = dynamics.step(state.select_rows(order), action[order], noise[order], 1)
    torch.testing.assert_close(one.latents[order], other.latents)
    torch.testing.assert_close(one.termination_probability[order], other.termination_probability)
