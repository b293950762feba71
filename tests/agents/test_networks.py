"""Input statistics, values of any scale, and fresh networks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from worldsim.agents.networks import Inputs, NetworkSpec, PolicyNetwork
from worldsim.agents.values import ValueNetwork

FLAT = NetworkSpec((6,), False, {"type": "discrete", "n": 3, "start": 0}, (16, 16))
PIXELS = NetworkSpec((64, 48, 3), True, {"type": "box", "shape": [2], "low": [-1, -1], "high": [1, 1]}, (16,))


def test_input_statistics_are_those_of_all_observations() -> None:
    inputs = Inputs(FLAT)
    observations = torch.randn(90, 6, generator=torch.Generator().manual_seed(0)) * 3 + 7
    torch.testing.assert_close(inputs(torch.ones(1, 6)), torch.ones(1, 6))  # nothing seen yet: as they are
    for part in observations.split([10, 50, 30]):
        inputs.observe(part)
    torch.testing.assert_close(inputs.mean, observations.mean(0))
    torch.testing.assert_close(inputs.variance, observations.var(0, correction=0))
    scaled = inputs(observations)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    assert inputs(observations * 100).abs().max() == 5.0


def test_constant_features_do_not_blow_up() -> None:
    inputs = Inputs(FLAT)
    inputs.observe(torch.full((50, 6), 0.3))
    torch.testing.assert_close(inputs(torch.full((1, 6), 0.301)), torch.full((1, 6), 0.1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("spec", [FLAT, PIXELS])
def test_a_fresh_policy_is_uniform_and_a_fresh_value_zero(spec: NetworkSpec) -> None:
    policy, value = PolicyNetwork(spec, torch.Generator().manual_seed(0)), ValueNetwork(spec)
    observations = torch.randint(0, 256, (5, *spec.observation_shape), dtype=torch.uint8)
    actions = policy.act(observations.numpy(), greedy=True)
    torch.testing.assert_close(value(policy.inputs(observations)), torch.zeros(5))
    if spec.pixels:
        np.testing.assert_array_equal(actions, np.zeros((5, 2), np.float32))
    else:
        torch.testing.assert_close(policy(observations).log_prob(torch.arange(5) % 3), torch.full((5,), -math.log(3)))


def test_sampling_belongs_to_the_generator() -> None:
    policy = PolicyNetwork(FLAT, torch.Generator().manual_seed(0))
    observations = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    first, second = (policy.act(observations, torch.Generator().manual_seed(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len(set(first.tolist())) == 3
    assert (first != policy.act(observations, torch.Generator().manual_seed(4))).any()


def test_a_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"Expected observations of shape .*6.*got \(2, 5\)"):
        PolicyNetwork(FLAT).act(np.zeros((2, 5), np.float32))


def test_new_moments_leave_the_values_as_they_were() -> None:
    value = ValueNetwork(FLAT, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(value.head.weight, generator=torch.Generator().manual_seed(1))
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(2))
    value.observe(torch.tensor([1.0, 3.0]))
    before = value(x)
    value.observe(torch.tensor([300.0, 900.0]))
    assert value.scale > 100
    torch.testing.assert_close(value(x), before, rtol=1e-4, atol=1e-3)
    assert value.normalised(x).abs().max() < 5
