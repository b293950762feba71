"""The two passes: cached equals uncached, rows are their own, actions and outcomes stand at the right frame."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from worldsim import diffusion
from worldsim.dynamics.attention import Rotary, time_angles
from worldsim.dynamics.config import DynamicsConfig
from worldsim.dynamics.denoiser import Denoiser
from worldsim.dynamics.dit import Block
from worldsim.dynamics.dit_dynamics import DiTDynamics, DiTState, band
from worldsim.dynamics.protocol import LatentClip

TOKENS, CHANNELS, ACTIONS, WINDOW = 3, 5, 2, 4


def trained_looking(seed: int = 0) -> DiTDynamics:
    """A small dynamics whose zero-initialised parts are random, so that every path matters."""
    torch.manual_seed(seed)
    config = DynamicsConfig(size="debug", window=WINDOW, clip_frames=8, belief_size=6, time_every=1)
    dynamics = DiTDynamics(config, TOKENS, CHANNELS, (1, TOKENS), ACTIONS).eval()
    for parameter in dynamics.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    dynamics.scale.persistence.uniform_(0.0, 0.9)
    return dynamics


def random_history(batch: int, frames: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, frames, TOKENS, CHANNELS, generator=generator)
    actions = torch.randn(batch, frames, ACTIONS, generator=generator)
    everything = torch.ones(batch, frames, dtype=torch.bool)
    noise = torch.randn(batch, frames, TOKENS, CHANNELS, generator=generator)
    return latents, actions, everything, everything, noise


@torch.no_grad()
def full_pass_beliefs(dynamics: DiTDynamics, latents: Tensor, actions: Tensor, noise: Tensor) -> Tensor:
    """Beliefs (B, T, belief_size) of one parallel context pass over the whole history."""
    batch, frames = latents.shape[:2]
    tau = torch.full((batch, frames), 1 - dynamics.config.context_noise)
    context = diffusion.corrupt(latents, noise, tau)
    previous = torch.cat([torch.zeros_like(context[:, :1]), context[:, :-1]], dim=1)
    condition = dynamics.dit.condition(tau, None, actions, torch.ones(batch, frames, dtype=torch.bool))
    positions = torch.arange(frames) % (2 * WINDOW)
    visible = band(frames, WINDOW, torch.device("cpu"))
    inputs = dynamics.context_inputs(context, previous)
    return dynamics.dit(inputs, condition, None, positions, None, visible).belief


def observe_all(dynamics: DiTDynamics, state: DiTState, latents: Tensor, actions: Tensor, noise: Tensor) -> Tensor:
    beliefs = []
    with torch.no_grad():
        for t in range(latents.shape[1]):
            pair = torch.stack([torch.zeros_like(noise[:, t]), noise[:, t]], dim=1)
            state, outcome = dynamics.observe(state, latents[:, t], actions[:, t], pair)
            beliefs.append(outcome.belief)
    return torch.stack(beliefs, dim=1)


@pytest.mark.parametrize("start_frames", [1, 2, WINDOW])
def test_the_cache_equals_the_full_history_far_beyond_the_window(start_frames: int) -> None:
    dynamics = trained_looking()
    frames = 5 * WINDOW
    latents, actions, _, present, noise = random_history(2, frames)
    expected = full_pass_beliefs(dynamics, latents, actions, noise)
    with torch.no_grad():
        first = slice(0, start_frames)
        state = dynamics.start(
            latents[:, first], actions[:, first], present[:, first], present[:, first], noise[:, first]
        )
    assert torch.allclose(state.belief, expected[:, start_frames - 1], atol=1e-5)
    rest = slice(start_frames, frames)
    beliefs = observe_all(dynamics, state, latents[:, rest], actions[:, rest], noise[:, rest])
    assert torch.allclose(beliefs, expected[:, rest], atol=1e-5)


@pytest.mark.parametrize("noise_scale", [1.0, 4.0])
def test_innovations_lead_back_to_latents(noise_scale: float) -> None:
    """What is denoised is the frame less what is expected of it, in standard deviations of the noise."""
    dynamics = trained_looking()
    dynamics.config = replace(dynamics.config, noise_scale=noise_scale)
    dynamics.scale.innovation.fill_(0.3)
    latents, actions, present, _, _ = random_history(2, 3)
    previous = torch.randn_like(latents)
    denoiser = Denoiser(
        dynamics.config,
        dynamics.scale,
        dynamics.dit,
        previous,
        actions,
        present,
        torch.zeros(2, 3, 6),
        torch.arange(3),
        torch.empty(0),
        torch.empty(0),
    )
    innovation = denoiser.innovation(latents)
    assert torch.allclose(denoiser.latents(innovation), latents, atol=1e-5)
    expected = dynamics.expectation(previous).mean
    assert torch.allclose(0.3 * noise_scale * innovation, latents - expected, atol=1e-5)


def test_the_future_does_not_reach_back() -> None:
    dynamics = trained_looking()
    latents, actions, _, _, noise = random_history(1, 8)
    before = full_pass_beliefs(dynamics, latents, actions, noise)
    latents[:, 5] += 1.0
    after = full_pass_beliefs(dynamics, latents, actions, noise)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])


def test_left_padding_changes_nothing() -> None:
    dynamics = trained_looking()
    latents, actions, has_action, present, noise = random_history(1, 2)
    with torch.no_grad():
        short = dynamics.start(latents, actions, has_action, present, noise)
        padded = [
            torch.cat([torch.randn_like(part[:, :1].float()).to(part.dtype), part], dim=1)
            for part in (latents, actions, has_action, present, noise)
        ]
        padded[3][:, 0] = False
        long = dynamics.start(padded[0], padded[1], padded[2], padded[3], padded[4])
        assert torch.allclose(short.belief, long.belief, atol=1e-5)
        action, more = torch.randn(1, ACTIONS), torch.randn(1, 2, TOKENS, CHANNELS)
        _, first = dynamics.step(short, action, more, 2)
        _, second = dynamics.step(long, action, more, 2)
    assert torch.allclose(first.latents, second.latents, atol=1e-4)


@pytest.mark.parametrize("later", [1, 3, 11])
def test_a_restarted_row_dreams_as_if_it_had_begun_alone(later: int) -> None:
    dynamics = trained_looking()
    latents, actions, has_action, present, noise = random_history(3, 3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        state = dynamics.start(latents, actions, has_action, present, noise)
        for _ in range(later):
            draws = torch.randn(3, 2, TOKENS, CHANNELS, generator=generator)
            state, _ = dynamics.step(state, torch.randn(3, ACTIONS, generator=generator), draws, 1)
        fresh_history = [part[:1] for part in random_history(1, 3, seed=7)]
        fresh = dynamics.start(*fresh_history)
        untouched = state.clone()
        state = dynamics.restart_rows(state, torch.tensor([1]), fresh)
        alone = dynamics.start(*fresh_history)
        for _ in range(2 * WINDOW):
            draws = torch.randn(3, 2, TOKENS, CHANNELS, generator=generator)
            action = torch.randn(3, ACTIONS, generator=generator)
            state, together = dynamics.step(state, action, draws, 2)
            untouched, others = dynamics.step(untouched, action, draws, 2)
            alone, single = dynamics.step(alone, action[1:2], draws[1:2], 2)
            assert torch.allclose(together.latents[1:2], single.latents, atol=1e-4)
            assert torch.allclose(together.belief[1:2], single.belief, atol=1e-4)
            assert torch.allclose(together.latents[[0, 2]], others.latents[[0, 2]], atol=1e-4)


def test_rows_never_read_each_other() -> None:
    dynamics = trained_looking()
    history = random_history(4, 3)
    order = torch.tensor([2, 0, 3, 1])
    draws = torch.randn(4, 2, TOKENS, CHANNELS)
    action = torch.randn(4, ACTIONS)
    with torch.no_grad():
        state = dynamics.start(*history)
        shuffled = dynamics.start(*(part[order] for part in history))
        _, one = dynamics.step(state, action, draws, 2)
        _, other = dynamics.step(shuffled, action[order], draws[order], 2)
    assert torch.allclose(one.latents[order], other.latents, atol=1e-5)


def test_time_rotation_is_relative_and_wraps() -> None:
    rotary = Rotary(time_angles(WINDOW, 8))
    query, key = torch.randn(1, 8), torch.randn(1, 8)

    def score(at: int, before: int) -> Tensor:
        positions = (torch.tensor([at % (2 * WINDOW)]), torch.tensor([(at - before) % (2 * WINDOW)]))
        return (rotary(query, positions[0]) * rotary(key, positions[1])).sum()

    for distance in range(WINDOW):
        scores = torch.stack([score(at, distance) for at in (3, 8, 9, 1000, 123_456)])
        assert torch.allclose(scores, scores[0].expand_as(scores), atol=1e-5)
    distinct = torch.stack([score(9, distance) for distance in range(WINDOW)])
    assert len(torch.unique(distinct.round(decimals=4))) == WINDOW


def test_a_fresh_block_is_the_identity() -> None:
    block = Block(16, 2, with_time=True)
    torch.nn.init.zeros_(block.modulation.weight)
    torch.nn.init.zeros_(block.modulation.bias)
    tokens = torch.randn(2, 3, TOKENS, 16)
    rotary = Rotary(torch.zeros(TOKENS, 4))
    out, _ = block(
        tokens,
        torch.randn(2, 3, 16),
        rotary,
        Rotary(time_angles(WINDOW, 8)),
        torch.arange(3),
        None,
        band(3, WINDOW, tokens.device),
    )
    assert torch.equal(out, tokens)


def moving_clip(batch: int, frames: int, generator: torch.Generator) -> LatentClip:
    """A world whose frame is all +1 or all -1 as the action says; reward 1 and an ending follow a positive frame.

    The outcome of step t depends on the frame before it, which only a belief can tell the head.
    """
    sign = 2.0 * torch.randint(0, 2, (batch, frames), generator=generator) - 1
    latents = sign[..., None, None].expand(batch, frames, TOKENS, CHANNELS).clone()
    actions = torch.stack([(sign > 0).float(), (sign < 0).float()], dim=-1)
    before = torch.cat([torch.zeros_like(sign[:, :1]), sign[:, :-1]], dim=1)
    present = torch.ones(batch, frames, dtype=torch.bool)
    return LatentClip(
        latents=latents,
        actions=actions,
        has_action=present,
        rewards=(before > 0).float(),
        terminated=before > 0,
        present=present,
        frame_valid=present,
        head_weight=present.float(),
    )


def test_it_learns_a_world_that_obeys_actions() -> None:
    torch.manual_seed(0)
    config = DynamicsConfig(
        size="debug",
        window=WINDOW,
        clip_frames=8,
        belief_size=8,
        shortcut_fraction=0.25,
        sampling_steps=2,
        self_context_fraction=0.25,
    )
    dynamics = DiTDynamics(config, TOKENS, CHANNELS, (1, TOKENS), ACTIONS)
    optimizer = torch.optim.AdamW(dynamics.parameters(), lr=4e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(350):
        loss, _ = dynamics.loss(moving_clip(32, 8, generator), generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    clip = moving_clip(64, 8, generator)
    dynamics.eval()
    right, calls, ends = [], [], []
    with torch.no_grad():
        first = slice(0, 2)
        state = dynamics.start(
            clip.latents[:, first],
            clip.actions[:, first],
            clip.has_action[:, first],
            clip.present[:, first],
            torch.randn(64, 2, TOKENS, CHANNELS, generator=generator),
        )
        for t in range(2, 8):
            draws = torch.randn(64, 2, TOKENS, CHANNELS, generator=generator)
            state, outcome = dynamics.step(state, clip.actions[:, t], draws, 2)
            right.append(((outcome.latents > 0) == (clip.latents[:, t] > 0)).float().mean())
            calls.append((outcome.reward - clip.rewards[:, t]).abs().mean())
            ends.append(((outcome.termination_probability > 0.5) == clip.terminated[:, t]).float().mean())
    assert torch.stack(right).mean() > 0.95
    assert torch.stack(calls).mean() < 0.15
    assert torch.stack(ends).mean() > 0.95
