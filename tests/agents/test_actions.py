"""Distributions against numerical integrals, and the way from raw actions to the env's."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import pytest
import torch

from worldsim.agents.actions import (
    ActionCoder,
    Categorical,
    MultiCategorical,
    SquashedGaussian,
    describe_action_space,
)
from worldsim.agents.errors import UnusableSpaceError


def test_categorical_draws_follow_the_probabilities() -> None:
    probabilities = torch.tensor([0.6, 0.3, 0.1])
    policy = Categorical(probabilities.log().expand(20_000, 3))
    counts = policy.sample(torch.Generator().manual_seed(0)).bincount(minlength=3) / 20_000
    torch.testing.assert_close(counts, probabilities, atol=0.012, rtol=0)
    entropy = -(probabilities * probabilities.log()).sum()
    torch.testing.assert_close(policy.entropy()[0], entropy)
    colder = probabilities**2 / (probabilities**2).sum()
    torch.testing.assert_close(policy.tempered(0.5).log_probs[0].exp(), colder)


def test_independent_parts_equal_the_categorical_over_their_combinations() -> None:
    first, second = (torch.randn(1, n, generator=torch.Generator().manual_seed(n)).log_softmax(-1) for n in (3, 2))
    joint = Categorical((first[:, :, None] + second[:, None, :]).reshape(1, 6))
    policy = MultiCategorical((Categorical(first), Categorical(second)))
    combinations = torch.cartesian_prod(torch.arange(3), torch.arange(2))  # (6, 2), in the order of `joint`
    many = MultiCategorical(tuple(Categorical(part.log_probs.expand(6, -1)) for part in policy.parts))
    torch.testing.assert_close(many.log_prob(combinations), joint.log_probs[0])
    torch.testing.assert_close(policy.entropy(), joint.entropy())
    assert torch.equal(policy.mode()[0], combinations[joint.mode()[0]])
    torch.testing.assert_close(policy.tempered(2.0).entropy(), joint.tempered(2.0).entropy())
    drawn = MultiCategorical(tuple(Categorical(part.log_probs.expand(20_000, -1)) for part in policy.parts))
    actions = drawn.sample(torch.Generator().manual_seed(0))
    shares = (2 * actions[:, 0] + actions[:, 1]).bincount(minlength=6) / 20_000
    torch.testing.assert_close(shares, joint.log_probs[0].exp(), atol=0.012, rtol=0)


@pytest.mark.parametrize(
    "space", [gym.spaces.MultiDiscrete([3, 2], start=[5, -1]), gym.spaces.MultiBinary(4)], ids=["discrete", "binary"]
)
def test_actions_of_parts_belong_to_the_space(space: gym.spaces.MultiDiscrete | gym.spaces.MultiBinary) -> None:
    coder = ActionCoder(describe_action_space(space))
    policy = coder.distribution(torch.zeros(400, coder.size), torch.zeros(0))
    actions = coder.decode(policy.sample(torch.Generator().manual_seed(0)))
    assert gym.vector.utils.batch_space(space, 400).contains(actions)
    rng = np.random.default_rng(0)
    uniform = np.stack([coder.uniform(rng) for _ in range(400)])
    assert all(space.contains(action) for action in uniform)
    expected = np.prod(coder.choices)
    assert len(np.unique(actions, axis=0)) == len(np.unique(uniform, axis=0)) == expected


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, -0.5), (1.0, -0.5), (0.3, -2.0), (-0.5, 0.0)])
def test_squashed_entropy_equals_the_integral(mean: float, log_std: float) -> None:
    policy = SquashedGaussian(torch.tensor([[mean]]), torch.tensor([[log_std]]))
    u = torch.linspace(mean - 8 * math.exp(log_std), mean + 8 * math.exp(log_std), 20_001)
    log_density = policy.log_prob(u[:, None])
    integrand = -log_density.exp() * (log_density - torch.log(1 - u.double().tanh() ** 2))
    torch.testing.assert_close(policy.entropy().double()[0], torch.trapezoid(integrand, u), atol=0.02, rtol=0)


def test_squashed_entropy_has_an_optimal_spread() -> None:
    # Near-uniform actions are best; the unsquashed entropy would prefer the widest spread.
    spreads = torch.linspace(-3, 1, 41)[:, None]
    entropies = SquashedGaussian(torch.zeros(41, 1), spreads).entropy()
    assert -0.4 < spreads[entropies.argmax()].item() < 0.2
    assert 0.6 < entropies.max().item() <= math.log(2) + 0.01


def test_discrete_spaces_keep_their_start() -> None:
    coder = ActionCoder(describe_action_space(gym.spaces.Discrete(3, start=5)))
    np.testing.assert_array_equal(coder.decode(torch.tensor([0, 2])), np.array([5, 7], np.int64))
    assert {int(coder.uniform(np.random.default_rng(i))) for i in range(30)} == {5, 6, 7}


def test_box_actions_stay_inside_the_bounds_and_reach_them() -> None:
    space = gym.spaces.Box(np.array([-1.0, 0.1], np.float32), np.array([3.0, 0.7], np.float32))
    coder = ActionCoder(describe_action_space(space))
    decoded = coder.decode(torch.tensor([[-50.0, 50.0], [0.0, 0.0], [50.0, -50.0]]))
    assert decoded.dtype == np.float32
    assert all(space.contains(action) for action in decoded)
    np.testing.assert_allclose(decoded, [[-1.0, 0.7], [1.0, 0.4], [3.0, 0.1]], rtol=1e-6)
    assert space.contains(coder.uniform(np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (gym.spaces.MultiDiscrete(np.array([[2, 3]])), "one row of parts"),
        (gym.spaces.Text(3), "needs Discrete, MultiDiscrete, MultiBinary"),
        (gym.spaces.Box(-np.inf, np.inf, (2,)), "finite bounds"),
        (gym.spaces.Box(0, 9, (2,), np.int64), "must hold floats"),
    ],
)
def test_other_spaces_are_refused(space: gym.Space[object], message: str) -> None:
    with pytest.raises(UnusableSpaceError, match=message):
        describe_action_space(space)
