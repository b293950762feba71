"""A teacher who says what actions risk, and a network that listens."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from benchmarks.take_cover_ceiling import Planner
from benchmarks.taught_policy import Lessons, Pupil, loss_of, mirrored, teach
from worldsim.agents.actions import describe_action_space
from worldsim.agents.networks import NetworkSpec, PolicyNetwork


class Told(Planner):
    """A teacher who always says the same."""

    def __init__(self) -> None:
        self.met: set[int] = set()

    def risks(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """The second action is safe."""
        return np.array([0.5, 0.0, 1.0])


def flat_network(size: int) -> PolicyNetwork:
    spec = NetworkSpec((size,), False, describe_action_space(gym.spaces.Discrete(3)), (32,))
    return PolicyNetwork(spec, torch.Generator().manual_seed(0))


def test_the_loss_is_least_where_the_safe_action_is_wanted() -> None:
    risks = torch.tensor([[0.0, 0.5, 1.0]])
    wanted, undecided, wrong = (
        loss_of(torch.tensor([logits]), risks) for logits in ([8.0, 0, 0], [0.0] * 3, [0, 0, 8.0])
    )
    assert wanted < undecided < wrong
    assert wanted < 0.02


def test_a_network_is_taught_what_its_observations_tell() -> None:
    random = np.random.default_rng(0)
    safe = random.integers(0, 3, 2000)
    seen = np.eye(3, dtype=np.float16)[safe] + random.normal(0, 0.1, (2000, 3)).astype(np.float16)
    risks = (1 - np.eye(3, dtype=np.float32))[safe] * 0.3
    figures = teach(flat_network(3), seen, risks, np.arange(2000) % 8 == 0, seconds=0.5, seed=0)
    assert figures["excess_of_a_constant"] == pytest.approx(0.2, abs=0.02)
    assert figures["excess_learned"] < 0.01
    assert figures["excess_held_out"] < 0.01


def test_who_plays_first_is_the_teacher_and_then_the_pupil() -> None:
    lessons = Lessons()
    teacher, pupil = Pupil(Told(), None, lessons), Pupil(Told(), flat_network(4), lessons)
    for policy in (teacher, pupil):
        policy.reset(seed=7)
    observation = np.zeros(4, np.float32)
    assert np.mean([teacher.act(observation) == 1 for _ in range(200)]) > 0.8
    assert {pupil.act(observation) for _ in range(10)} == {0}  # the likeliest of equals is the first
    seen, risks, held_out = lessons.arrays()
    assert seen.shape == (210, 4)
    np.testing.assert_array_equal(risks, np.tile(np.array([0.5, 0.0, 1.0], np.float32), (210, 1)))
    assert not held_out.any()  # episode 7


def test_a_mirror_swaps_sides_and_actions() -> None:
    stacks = torch.zeros(2, 4, 6, 6 + 3, dtype=torch.uint8)
    stacks[:, 1, 0, 2] = 9  # something at the left edge of the first frame
    stacks[..., 6 + 1] = 255  # the last action: right
    shown = mirrored(stacks, planes=3)
    assert shown[0, 1, 5, 2] == 9
    assert shown[..., :6].sum() == 2 * 9
    assert (shown[..., 6 + 2] == 255).all()
    torch.testing.assert_close(mirrored(shown, planes=3), stacks)
