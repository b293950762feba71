"""The video GPT: one transformer whether whole clips, frames or single codes; rows of their own; a world it learns."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.dynamics.rows import (
    check_a_restarted_row_dreams_as_if_it_had_begun_alone,
    check_heads_say_the_same_in_training_and_while_observing,
    check_rows_never_read_each_other,
)
from worldsim.dynamics.config import DynamicsConfig
from worldsim.dynamics.protocol import LatentClip, Outcome
from worldsim.dynamics.video_gpt import VideoGptDynamics, VideoGptState

TOKENS, CHANNELS, ACTIONS, CODES, WINDOW = 3, 2, 2, 7, 4


def random_dynamics(seed: int = 0) -> VideoGptDynamics:
    torch.manual_seed(seed)
    config = DynamicsConfig(kind="video_gpt", size="debug", window=WINDOW, belief_size=6)
    dynamics = VideoGptDynamics(config, TOKENS, CHANNELS, ACTIONS, torch.randn(CODES, CHANNELS)).eval()
    for parameter in dynamics.parameters():
        nn.init.normal_(parameter, std=0.3)
    dynamics.scale.mean.copy_(torch.randn(TOKENS, CHANNELS))
    dynamics.scale.std.fill_(0.7)
    return dynamics


def random_history(batch: int, frames: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """latents, actions, has_action, present, noise, as `start` takes them; latents are codes of `random_dynamics`."""
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randint(0, CODES, (batch, frames, TOKENS), generator=generator)
    actions = torch.randn(batch, frames, ACTIONS, generator=generator)
    everything = torch.ones(batch, frames, dtype=torch.bool)
    unused = torch.full((batch, frames, TOKENS, CHANNELS), torch.nan)
    return random_dynamics().latents(indices), actions, everything, everything, unused


def draws(batch: int, generator: torch.Generator) -> Tensor:
    return torch.randn(batch, 2, TOKENS, CHANNELS, generator=generator)


def clip_of(history: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]) -> LatentClip:
    latents, actions, has_action, present, _ = history
    zeros = torch.zeros(present.shape)
    return LatentClip(latents, actions, has_action, zeros, zeros.bool(), present, present, zeros)


@torch.no_grad()
def test_codes_are_recovered_from_latents() -> None:
    dynamics = random_dynamics()
    indices = torch.randint(0, CODES, (5, 4, TOKENS))
    latents = dynamics.latents(indices)
    assert torch.equal(dynamics.indices(latents), indices)
    assert torch.equal(dynamics.indices(latents.half()), indices)


@torch.no_grad()
@pytest.mark.parametrize("start_frames", [1, WINDOW])
def test_single_steps_equal_the_whole_sequence(start_frames: int) -> None:
    """Far beyond the window: what is kept of the past is all that the whole sequence would look at."""
    dynamics = random_dynamics()
    history = random_history(2, 12)
    latents, actions, has_action, present, _ = history
    expected = dynamics._read(dynamics.indices(latents), actions, has_action, present).belief
    state = dynamics.start(*(part[:, :start_frames] for part in history))
    torch.testing.assert_close(state.belief, expected[:, start_frames - 1])
    for t in range(start_frames, 12):
        unused = torch.full((2, 2, TOKENS, CHANNELS), torch.nan)
        state, outcome = dynamics.observe(state, latents[:, t], actions[:, t], unused)
        torch.testing.assert_close(outcome.belief, expected[:, t])
        assert torch.equal(outcome.latents, latents[:, t])
        assert (outcome.belief.abs() <= 1).all()
        assert not outcome.uncertainty.any()


@torch.no_grad()
def test_dreaming_code_by_code_equals_observing_what_was_dreamt() -> None:
    dynamics = random_dynamics()
    state, generator = dynamics.start(*random_history(3, 2)), torch.Generator().manual_seed(1)
    for _ in range(2 * WINDOW):
        action, noise = torch.randn(3, ACTIONS, generator=generator), draws(3, generator)
        dreaming, dreamt = dynamics.step(state, action, noise, 1)
        watching, watched = dynamics.observe(state, dreamt.latents, action, noise)
        torch.testing.assert_close(dreamt.belief, watched.belief)
        torch.testing.assert_close(dreaming.memory, watching.memory)
        torch.testing.assert_close(dreamt.reward, watched.reward)
        torch.testing.assert_close(dreamt.termination_probability, watched.termination_probability)
        assert torch.equal(dynamics.latents(dynamics.indices(dreamt.latents)), dreamt.latents)
        state = dreaming


@torch.no_grad()
def test_a_state_is_no_larger_after_many_steps() -> None:
    dynamics = random_dynamics()
    state, generator = dynamics.start(*random_history(1, 1)), torch.Generator()
    size = state.memory.shape
    assert size[-2] == (WINDOW - 1) * (TOKENS + 1)
    for _ in range(3 * WINDOW):
        state, _ = dynamics.step(state, torch.zeros(1, ACTIONS), draws(1, generator), 1)
    assert state.memory.shape == size


@torch.no_grad()
def test_the_frequency_of_dreamt_frames_is_the_probability_that_training_gives_them() -> None:
    """Code by code, from a cache, with a belief: all against the loss of one whole frame."""
    dynamics = random_dynamics()
    dynamics.to_codes.weight.mul_(2.0)  # so that some frames are frequent
    history = random_history(1, 3)
    count = 50_000
    state = dynamics.start(*(part.expand(count, *part.shape[1:]) for part in history))
    action = torch.ones(count, ACTIONS)
    _, outcome = dynamics.step(state, action, draws(count, torch.Generator().manual_seed(0)), 1)
    frames, times = dynamics.indices(outcome.latents).unique(dim=0, return_counts=True)
    often = times > 400
    assert int(often.sum()) > 5
    for frame, share in zip(frames[often], times[often] / count, strict=True):
        longer = [torch.cat([part, part[:, :1]], dim=1) for part in history]
        longer[0][:, -1], longer[1][:, -1] = dynamics.latents(frame), 1.0
        latents, actions, has_action, present, noise = longer
        only_last = torch.tensor([[False, False, True, True]])
        clip = replace(clip_of((latents, actions, has_action, present, noise)), frame_valid=only_last)
        _, parts = dynamics.loss(clip, generator=torch.Generator())
        probability = math.exp(-TOKENS * float(parts["likelihood"]))
        assert float(share) == pytest.approx(probability, rel=0.2)
        assert float(parts["code_bits"]) == pytest.approx(-math.log2(probability), rel=1e-4)


@torch.no_grad()
def test_nothing_looks_ahead() -> None:
    """A changed code changes what is predicted after it, in its frame and later, and nothing before."""
    dynamics = random_dynamics()
    latents, actions, has_action, present, _ = random_history(1, 3)
    indices = dynamics.indices(latents)
    changed = indices.clone()
    changed[0, 1, 1] = (changed[0, 1, 1] + 1) % CODES
    one, other = (dynamics._read(given, actions, has_action, present).stream[0] for given in (indices, changed))
    differs = ((one - other).abs().amax(-1) > 1e-6).flatten()
    first = (TOKENS + 1) + 2  # the second frame's action, its first code, and then the changed one
    assert not differs[:first].any()
    assert differs[first:].all()


@torch.no_grad()
def test_the_window_bounds_what_one_layer_sees() -> None:
    dynamics = random_dynamics()
    dynamics.transformer.blocks = dynamics.transformer.blocks[:1]
    latents, actions, has_action, present, _ = random_history(1, WINDOW + 2)
    indices = dynamics.indices(latents)
    changed = indices.clone()
    changed[0, 0] = (changed[0, 0] + 1) % CODES
    one, other = (dynamics._read(given, actions, has_action, present).belief[0] for given in (indices, changed))
    differs = (one - other).abs().amax(-1) > 1e-7
    assert differs.tolist() == [True] * WINDOW + [False] * 2


def test_heads_say_the_same_in_training_and_while_observing() -> None:
    check_heads_say_the_same_in_training_and_while_observing(random_dynamics(), random_history(2, 6))


@torch.no_grad()
def test_left_padding_changes_nothing() -> None:
    dynamics = random_dynamics()
    short = random_history(2, 2)
    long = [torch.cat([part[:, :2].clone(), part], dim=1) for part in short]
    long[3][:, :2] = False
    alone, padded = dynamics.start(*short), dynamics.start(*long)
    torch.testing.assert_close(alone.belief, padded.belief)
    noise, action = draws(2, torch.Generator().manual_seed(0)), torch.randn(2, ACTIONS)
    (_, one), (_, other) = (dynamics.step(state, action, noise, 1) for state in (alone, padded))
    torch.testing.assert_close(one.belief, other.belief)
    assert torch.equal(one.latents, other.latents)


def test_a_restarted_row_dreams_as_if_it_had_begun_alone() -> None:
    check_a_restarted_row_dreams_as_if_it_had_begun_alone(random_dynamics(), random_history)


def test_rows_never_read_each_other() -> None:
    check_rows_never_read_each_other(random_dynamics(), random_history)


@torch.no_grad()
def test_the_temperature_goes_from_certainty_to_chance() -> None:
    dynamics = random_dynamics()
    state = dynamics.start(*(part.expand(2000, *part.shape[1:]) for part in random_history(1, 3)))
    actions, noise = torch.ones(2000, ACTIONS), draws(2000, torch.Generator().manual_seed(0))

    def dream(temperature: float | Tensor) -> Outcome:
        return dynamics.step(state, actions, noise, 1, temperature)[1]

    def frames(outcome: Outcome) -> int:
        return len(dynamics.indices(outcome.latents).unique(dim=0))

    cold, usual, hot = dream(0.0), dream(1.0), dream(100.0)
    assert frames(cold) == 1
    assert 1 < frames(usual) < frames(hot)
    assert frames(hot) > 0.9 * CODES**TOKENS
    assert 0 < float(usual.uncertainty.mean()) < math.log(CODES)
    mixed = dream(torch.where(torch.arange(2000) < 1000, 0.0, 1.0).double())
    assert torch.equal(mixed.latents[:1000], cold.latents[:1000])
    assert torch.equal(mixed.latents[1000:], usual.latents[1000:])


def coin_clip(dynamics: VideoGptDynamics, batch: int, frames: int, generator: torch.Generator) -> LatentClip:
    """All codes of a frame are 1 or 2 at random, or 0 where the action said so; reward 1 and an ending follow a 2."""
    side = torch.randint(1, 3, (batch, frames), generator=generator)
    wipe = torch.randint(0, 2, (batch, frames), generator=generator)
    index = side * (1 - wipe)
    before = F.pad(index[:, :-1], (1, 0))
    present = torch.ones(batch, frames, dtype=torch.bool)
    return LatentClip(
        latents=dynamics.latents(index[..., None].expand(batch, frames, TOKENS)),
        actions=torch.stack([wipe, 1 - wipe], dim=-1).float(),
        has_action=present,
        rewards=(before == 2).float(),
        terminated=before == 2,
        present=present,
        frame_valid=present,
        head_weight=present.float(),
    )


def test_it_learns_a_world_of_coins_and_keeps_it_random() -> None:
    torch.manual_seed(0)
    config = DynamicsConfig(kind="video_gpt", size="debug", window=3, belief_size=16, head_dropout=0.0)
    dynamics = VideoGptDynamics(config, TOKENS, CHANNELS, ACTIONS, torch.randn(4, CHANNELS))
    optimizer = torch.optim.AdamW(dynamics.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for step in range(250):
        loss, parts = dynamics.loss(coin_clip(dynamics, 32, 5, generator), generator=generator)
        if step == 0:
            assert float(parts["likelihood"]) == pytest.approx(math.log(4), abs=0.01)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # Half of the frames are a fair coin, whose side the first code shows and the others repeat.
    assert float(parts["code_bits"]) == pytest.approx(0.5, abs=0.1)
    clip = coin_clip(dynamics, 512, 3, generator)
    dynamics.eval()
    with torch.no_grad():
        state = dynamics.start(clip.latents, clip.actions, clip.has_action, clip.present, clip.latents)
        wiped = torch.arange(512) % 2 == 0
        actions = torch.stack([wiped.float(), 1 - wiped.float()], dim=-1)
        _, outcome = dynamics.step(state, actions, draws(512, generator), 1)
    frames = dynamics.indices(outcome.latents)
    assert (frames[wiped] == 0).float().mean() > 0.97
    assert (frames[~wiped] == frames[~wiped][:, :1]).float().mean() > 0.97
    assert (frames[~wiped] > 0).float().mean() > 0.97
    assert 0.35 < (frames[~wiped] == 2).float().mean() < 0.65
    ended = dynamics.indices(clip.latents)[:, -1, 0] == 2
    assert ((outcome.termination_probability > 0.5) == ended).float().mean() > 0.97
    assert (outcome.reward - ended.float()).abs().mean() < 0.1
    assert float(outcome.uncertainty[~wiped].mean()) == pytest.approx(math.log(2) / TOKENS, abs=0.08)


@torch.no_grad()
def test_a_cloned_state_shares_nothing() -> None:
    state = random_dynamics().start(*random_history(2, 3))
    copy = state.clone()
    for name in VideoGptState.__dataclass_fields__:
        assert getattr(copy, name).data_ptr() != getattr(state, name).data_ptr()
