"""The MDN-RNN: one LSTM whether whole clips or single steps, rows of their own, and a world that it learns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.dynamics.rows import (
    check_a_restarted_row_dreams_as_if_it_had_begun_alone,
    check_heads_say_the_same_in_training_and_while_observing,
    check_rows_never_read_each_other,
)
from worldsim.dynamics.config import DynamicsConfig
from worldsim.dynamics.mdn_rnn import MdnRnnDynamics, MdnRnnState
from worldsim.dynamics.protocol import LatentClip

TOKENS, CHANNELS, ACTIONS, SIZE = 2, 3, 2, 6


def random_dynamics(seed: int = 0) -> MdnRnnDynamics:
    torch.manual_seed(seed)
    config = DynamicsConfig(kind="mdn_rnn", window=8, belief_size=SIZE, mixtures=3)
    dynamics = MdnRnnDynamics(config, TOKENS, CHANNELS, (1, TOKENS), ACTIONS).eval()
    for parameter in dynamics.parameters():
        nn.init.normal_(parameter, std=0.5)
    return dynamics


def random_history(batch: int, frames: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """latents, actions, has_action, present, noise, as `start` takes them."""
    generator = torch.Generator().manual_seed(seed)
    latents, noise = torch.randn(2, batch, frames, TOKENS, CHANNELS, generator=generator)
    actions = torch.randn(batch, frames, ACTIONS, generator=generator)
    everything = torch.ones(batch, frames, dtype=torch.bool)
    return latents, actions, everything, everything, noise


def draws(batch: int, generator: torch.Generator) -> Tensor:
    return torch.randn(batch, 2, TOKENS, CHANNELS, generator=generator)


@torch.no_grad()
def test_it_is_the_lstm_that_torch_knows() -> None:
    dynamics = random_dynamics()
    latents, actions, _, present, _ = random_history(3, 7)
    lstm = nn.LSTM(TOKENS * CHANNELS + ACTIONS, SIZE, batch_first=True)
    lstm.load_state_dict(
        {
            "weight_ih_l0": dynamics.input.weight,
            "weight_hh_l0": dynamics.recurrent.weight,
            "bias_ih_l0": dynamics.input.bias,
            "bias_hh_l0": torch.zeros(4 * SIZE),
        }
    )
    expected, (_, cell) = lstm(torch.cat([latents[:, :-1].flatten(2), actions[:, 1:]], dim=-1))
    hidden, last_cell = dynamics._unroll(latents, actions, present)
    assert not hidden[:, 0].any()
    torch.testing.assert_close(hidden[:, 1:], expected)
    torch.testing.assert_close(last_cell, cell[0])


@torch.no_grad()
@pytest.mark.parametrize("start_frames", [1, 3])
def test_single_steps_equal_the_whole_sequence(start_frames: int) -> None:
    dynamics = random_dynamics()
    latents, actions, has_action, present, noise = random_history(2, 12)
    expected, _ = dynamics._unroll(latents, actions, present)
    first = [part[:, :start_frames] for part in (latents, actions, has_action, present, noise)]
    state = dynamics.start(*first)
    torch.testing.assert_close(state.belief, expected[:, start_frames - 1])
    for t in range(start_frames, 12):
        unused = torch.full((2, 2, TOKENS, CHANNELS), torch.nan)
        state, outcome = dynamics.observe(state, latents[:, t], actions[:, t], unused)
        torch.testing.assert_close(outcome.belief, expected[:, t])
        assert torch.equal(outcome.latents, latents[:, t])
        assert (outcome.belief.abs() <= 1).all()
        assert not outcome.uncertainty.any()


def test_heads_say_the_same_in_training_and_while_observing() -> None:
    check_heads_say_the_same_in_training_and_while_observing(random_dynamics(), random_history(2, 6))


@torch.no_grad()
def test_left_padding_changes_nothing() -> None:
    dynamics = random_dynamics()
    short = random_history(2, 3)
    long = [torch.cat([part[:, :2].clone(), part], dim=1) for part in short]
    long[3][:, :2] = False
    alone, padded = dynamics.start(*short), dynamics.start(*long)
    torch.testing.assert_close(alone.hidden, padded.hidden)
    torch.testing.assert_close(alone.cell, padded.cell)


def test_a_restarted_row_dreams_as_if_it_had_begun_alone() -> None:
    check_a_restarted_row_dreams_as_if_it_had_begun_alone(random_dynamics(), random_history)


def test_rows_never_read_each_other() -> None:
    check_rows_never_read_each_other(random_dynamics(), random_history)


@torch.no_grad()
def test_dreams_of_one_moment_have_the_spread_that_they_are_said_to_have() -> None:
    dynamics = random_dynamics()
    dynamics.scale.low.fill_(-1e9)
    dynamics.scale.high.fill_(1e9)
    one = dynamics.start(*random_history(1, 3))
    many = MdnRnnState(*(part.expand(50_000, *part.shape[1:]) for part in (one.latents, one.hidden, one.cell)))
    actions, generator = torch.ones(50_000, ACTIONS), torch.Generator().manual_seed(0)
    spreads = []
    for temperature in (0.0, 1.0, 1.3):
        _, outcome = dynamics.step(many, actions, draws(50_000, generator), 1, temperature)
        spreads.append(float(outcome.latents.var(0).mean().sqrt()))
    assert spreads[0] < 1e-6
    assert spreads[1] == pytest.approx(float(outcome.uncertainty[0]), rel=0.02)
    assert spreads[2] > 1.05 * spreads[1]


def coin_clip(batch: int, frames: int, generator: torch.Generator) -> LatentClip:
    """A frame is all +1 or all -1 at random, or 0 where the action said so; reward 1 and an ending follow a +1."""
    sign = 2.0 * torch.randint(0, 2, (batch, frames), generator=generator) - 1
    wipe = torch.randint(0, 2, (batch, frames), generator=generator).float()
    value = sign * (1 - wipe) + 0.02 * torch.randn(batch, frames, generator=generator)
    before = torch.cat([torch.zeros_like(value[:, :1]), value[:, :-1]], dim=1)
    present = torch.ones(batch, frames, dtype=torch.bool)
    return LatentClip(
        latents=value[..., None, None].expand(batch, frames, TOKENS, CHANNELS).clone(),
        actions=torch.stack([wipe, 1 - wipe], dim=-1),
        has_action=present,
        rewards=(before > 0.5).float(),
        terminated=before > 0.5,
        present=present,
        frame_valid=present,
        head_weight=present.float(),
    )


def test_it_learns_a_world_of_coins_and_keeps_it_random() -> None:
    torch.manual_seed(0)
    config = DynamicsConfig(kind="mdn_rnn", window=4, belief_size=32, mixtures=3, head_dropout=0.0)
    dynamics = MdnRnnDynamics(config, TOKENS, CHANNELS, (1, TOKENS), ACTIONS)
    optimizer = torch.optim.AdamW(dynamics.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        loss, parts = dynamics.loss(coin_clip(64, 8, generator), generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # Half of the frames are N(0, 0.02), the others fall on either side: -(1/2)(2 log(0.02 sqrt(2 pi e))) + log(2) / 2.
    entropy = (
        0.5 * torch.log(torch.tensor(2.0)) + torch.log(torch.tensor(0.02)) + 0.5 * (1 + torch.tensor(6.2832).log())
    )
    assert float(parts["likelihood"]) == pytest.approx(float(entropy), abs=0.35)
    clip = coin_clip(512, 4, generator)
    dynamics.eval()
    with torch.no_grad():
        history = (clip.latents, clip.actions, clip.has_action, clip.present, clip.latents)
        state = dynamics.start(*history)
        wiped = torch.arange(512) % 2 == 0
        actions = torch.stack([wiped.float(), 1 - wiped.float()], dim=-1)
        _, outcome = dynamics.step(state, actions, draws(512, generator), 1)
    values = outcome.latents[:, 0, 0]
    assert values[wiped].abs().mean() < 0.1
    assert (values[~wiped].abs() - 1).abs().mean() < 0.2
    assert 0.35 < (values[~wiped] > 0).float().mean() < 0.65
    ended = clip.latents[:, -1, 0, 0] > 0.5
    assert ((outcome.termination_probability > 0.5) == ended).float().mean() > 0.97
    assert (outcome.reward - ended.float()).abs().mean() < 0.1
