"""Distributions against numerical integrals, and the way from raw actions to the env's."""

from __future__ import annotations

import math

import gymnasium as gym
import numpy as np
import pytest
import torch

from worldsim.agents.actions import ActionCoder, Categorical, SquashedGaussian, describe_action_space
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
        (gym.spaces.MultiDiscrete([2, 3]), "needs Discrete or Box actions"),
        (gym.spaces.Box(-np.inf, np.inf, (2,)), "finite bounds"),
        (gym.spaces.Box(0, 9, (2,), np.int64), "must hold floats"),
    ],
)
def test_other_spaces_are_refused(space: gym.Space[object], message: str) -> None:
    with pytest.raises(UnusableSpaceError, match=message):
        describe_action_space(space)
