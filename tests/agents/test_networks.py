"""Input statistics, values of any scale, and fresh networks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.worlds import tiny_world
from worldsim.agents.errors import UnusableSpaceError
from worldsim.agents.networks import Inputs, NetworkSpec, PolicyNetwork, TokenReader, network_spec
from worldsim.agents.values import ValueNetwork
from worldsim.dream import DreamVectorEnv
from worldsim.observations import feature_layout

FLAT = NetworkSpec((6,), False, {"type": "discrete", "n": 3, "start": 0}, (16, 16))
PIXELS = NetworkSpec((64, 48, 3), True, {"type": "box", "shape": [2], "low": [-1, -1], "high": [1, 1]}, (16,))

LAYOUT = {"frames": 1, "tokens": 3, "channels": 2, "belief": 4, "action": 3}
TOLD = NetworkSpec((2 * 6 + 4 + 3,), False, {"type": "discrete", "n": 3, "start": 0}, (16,), layout=LAYOUT)

# Two frames of 15 numbers before the newest.
REMEMBERING = NetworkSpec((3 * 15 + 4,), False, TOLD.action_space, (16,), layout={**LAYOUT, "frames": 3})


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


def test_a_channel_has_one_scale_in_all_places_and_actions_stay() -> None:
    inputs = Inputs(TOLD)
    observations = torch.randn(90, 19, generator=torch.Generator().manual_seed(0)) * 3 + 7
    inputs.observe(observations[:40])
    inputs.observe(observations[40:])
    latents, changes = observations[:, :6].reshape(-1, 2), observations[:, 6:12].reshape(-1, 2)
    torch.testing.assert_close(inputs.mean[:6], latents.mean(0).repeat(3))
    torch.testing.assert_close(inputs.variance[:6], latents.var(0, correction=0).repeat(3))
    torch.testing.assert_close(inputs.variance[6:12], changes.var(0, correction=0).repeat(3))
    torch.testing.assert_close(inputs.variance[12:16], observations[:, 12:16].var(0, correction=0))
    torch.testing.assert_close(inputs(observations)[:, 16:], observations[:, 16:].clamp(max=5))


def test_what_is_read_of_a_token_does_not_depend_on_where_it_is_but_for_its_place() -> None:
    reader = TokenReader(LAYOUT)
    torch.nn.init.zeros_(reader.place)
    features = torch.randn(5, 19, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([2, 0, 1])
    moved = torch.cat(
        [
            features[:, :6].reshape(5, 3, 2)[:, order].flatten(1),
            features[:, 6:12].reshape(5, 3, 2)[:, order].flatten(1),
        ],
        1,
    )
    read, moved_read = reader(features), reader(torch.cat([moved, features[:, 12:]], 1))
    torch.testing.assert_close(moved_read[:, :-7], read[:, :-7].reshape(5, 3, -1)[:, order].flatten(1))
    torch.testing.assert_close(moved_read[:, -7:], features[:, 12:])


def test_all_frames_have_the_statistics_of_the_newest_and_actions_stay_as_they_are() -> None:
    inputs = Inputs(REMEMBERING)
    observations = torch.randn(90, 49, generator=torch.Generator().manual_seed(0)) * 3 + 7
    observations[:, 30:] += 5  # the newest frame and the belief
    inputs.observe(observations)
    newest = slice(30, 42)
    for moment in (inputs.mean, inputs.variance):
        for first in (0, 15):
            torch.testing.assert_close(moment[first : first + 12], moment[newest])
    torch.testing.assert_close(inputs.mean[30:36].view(3, 2)[0], observations[:, 30:36].reshape(-1, 2).mean(0))
    for first in (12, 27, 46):
        torch.testing.assert_close(
            inputs(observations)[:, first : first + 3], observations[:, first : first + 3].clamp(max=5)
        )


def test_what_was_seen_earlier_changes_what_a_policy_does_and_when_it_was_seen_too() -> None:
    policy = PolicyNetwork(REMEMBERING, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(policy.head.weight, generator=torch.Generator().manual_seed(1))
    features = torch.randn(1, 49, generator=torch.Generator().manual_seed(2))
    swapped = torch.cat([features[:, 15:30], features[:, :15], features[:, 30:]], 1)
    plain = policy(features).log_probs
    assert not torch.allclose(policy(swapped).log_probs, plain, atol=1e-3)
    assert not torch.allclose(
        policy(torch.cat([features[:, :30] * 0, features[:, 30:]], 1)).log_probs, plain, atol=1e-3
    )


def test_a_controller_sees_the_newest_frame_and_the_belief() -> None:
    trunk = PolicyNetwork(replace(REMEMBERING, hidden=())).trunk
    features = torch.arange(49.0)[None]
    assert trunk(features)[0].tolist() == [*range(30, 36), *range(42, 46)]


def test_a_new_policy_repeats_the_last_action_as_often_as_asked() -> None:
    policy = PolicyNetwork(TOLD, torch.Generator().manual_seed(0))
    policy.persist(0.9)
    observations = torch.randn(2, 19, generator=torch.Generator().manual_seed(1))
    observations[:, -3:] = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])  # the second has no last action
    expected = torch.tensor([[0.05, 0.9, 0.05], [1 / 3, 1 / 3, 1 / 3]])
    torch.testing.assert_close(policy(observations).log_probs.exp(), expected)
    several = NetworkSpec((24,), False, {"type": "multi_binary", "n": 4}, (16,), layout={**LAYOUT, "action": 8})
    repeated = PolicyNetwork(several)
    repeated.persist(0.75)
    observations = torch.zeros(1, 24)
    observations[:, -7::2] = 1.0  # all four parts on
    for part in repeated(observations).parts:
        torch.testing.assert_close(part.log_probs.exp(), torch.tensor([[0.25, 0.75]]))


def test_where_no_last_action_is_told_nothing_persists() -> None:
    policy = PolicyNetwork(FLAT)
    policy.persist(0.9)
    torch.testing.assert_close(policy(torch.randn(1, 6)).log_probs.exp(), torch.full((1, 3), 1 / 3))


def test_a_layout_that_does_not_fit_is_refused() -> None:
    model = tiny_world()
    rows = DreamVectorEnv(model, 1, observation="features")
    assert network_spec(rows, [8]).layout == feature_layout(model)
    rows.observation_layout = LAYOUT
    with pytest.raises(UnusableSpaceError, match="does not describe observations of shape"):
        network_spec(rows, [8])
