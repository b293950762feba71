from __future__ import annotations

from dataclasses import replace

import torch

from tests.worlds import tiny_spec
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.inverse_dynamics import (
    chance,
    recorded_windows,
    score_inverse_dynamics,
    train_inverse_dynamics,
    windows_of,
)
from worldsim.evaluation.stretches import draw_stretches


def place(frames: torch.Tensor) -> torch.Tensor:
    """The column's place in each of the four frames, (B, 4)."""
    return frames[:, :, 0, :, 0].argmax(-1)


def test_it_tells_the_actions_of_real_episodes_but_not_those_of_frozen_frames(store: EpisodeStore) -> None:
    # The column goes left, stays or goes right; at the left edge, where it cannot go on, nothing tells.
    network = train_inverse_dynamics(store.spec, recorded_windows(store, 800, "train"), updates=150)
    frames, actions, before = recorded_windows(store, 400, "held_out", seed=1)
    away = place(frames)[:, 1] > 0
    frames, actions, before = held_out = frames[away], actions[away], before[away]
    real = score_inverse_dynamics(store.spec, network, held_out)
    assert real["accuracy"] > 0.95
    assert real["changed_accuracy"] > 0.9
    assert real["changed"] < real["windows"] == len(held_out[1])
    frozen = score_inverse_dynamics(store.spec, network, (frames[:, :1].expand_as(frames), actions, before))
    assert frozen["accuracy"] < chance(store.spec, actions) + 0.1 < real["accuracy"]


def test_a_window_carries_the_actions_that_led_to_its_frames(store: EpisodeStore) -> None:
    stretches = draw_stretches(store, 20, horizon=6, context_frames=3)
    frames, asked, before = windows_of(stretches, stretches.future)
    where = place(frames)
    assert torch.equal((where[:, 0] + before - 1).clamp(min=0), where[:, 1])
    assert torch.equal((where[:, 1] + asked - 1).clamp(min=0), where[:, 2])


def test_box_actions_are_told_as_numbers() -> None:
    spec = replace(tiny_spec("box"), frame_shape=(16, 16, 1))
    generator = torch.Generator().manual_seed(0)
    actions = torch.rand(600, 2, generator=generator) * torch.tensor([2.0, 1.0]) - torch.tensor([1.0, 0.0])
    grey = (128 + 100 * actions[:, :1]).to(torch.uint8)
    frames = torch.zeros(600, 4, 16, 16, 1, dtype=torch.uint8)
    frames[:, 2] = grey[:, :, None, None]
    frames[:, 2, :8] = (255 * actions[:, 1]).to(torch.uint8)[:, None, None, None]
    network = train_inverse_dynamics(spec, (frames[:500], actions[:500], actions[:500]), updates=300)
    assert score_inverse_dynamics(spec, network, (frames[500:], actions[500:], actions[500:]))["r2"] > 0.9
