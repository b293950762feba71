"""Actions as features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.worlds import ACTION_SPACES, tiny_spec
from worldsim.data.actions import action_feature_count, action_features
from worldsim.errors import UserError


def test_each_discrete_part_is_a_one_hot_of_its_own() -> None:
    assert action_features(tiny_spec("discrete"), torch.tensor([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]
    features = action_features(tiny_spec("multi_discrete"), torch.tensor([[2, 0], [0, 1]]))
    assert features.tolist() == [[0, 0, 1, 1, 0], [1, 0, 0, 0, 1]]
    features = action_features(tiny_spec("multi_binary"), torch.tensor([[1, 0, 1]], dtype=torch.int8))
    assert features.tolist() == [[0, 1, 1, 0, 0, 1]]


@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_every_sample_of_the_space_has_features_of_its_own(actions: str) -> None:
    spec = tiny_spec(actions)
    space = spec.gym_action_space()
    space.seed(0)
    samples = np.unique(np.stack([np.asarray(space.sample()) for _ in range(200)]), axis=0)
    stored = torch.from_numpy(samples.astype(spec.action_dtype))
    features = action_features(spec, stored.unflatten(0, (-1, 1)))
    assert features.shape == (len(samples), 1, action_feature_count(spec))
    assert features.dtype == torch.float32
    assert len(torch.unique(features.flatten(0, 1), dim=0)) == len(samples)
    assert stored.shape[1:] == spec.action_shape


@pytest.mark.parametrize(
    ("actions", "wrong", "message"),
    [
        ("discrete", [0, 3], r"action 3: expected 0 to 2 \(left, stay, right\)"),
        ("discrete", [-1], "action -1"),
        ("multi_discrete", [[2, 1], [1, 2]], r"action \[1, 2\]: expected 0 to 2, 0 to 1 \(steer, jump\)"),
        ("multi_binary", [[0, 0, 2]], r"action \[0, 0, 2\]"),
        ("discrete", [0.9, 1.7], r"dtype torch.float32: Tiny-v0 takes integers \(left"),
        ("box", [[0.0, 1.0], [0.5, float("nan")]], r"action \[0.5, nan\]: expected finite"),
        ("box", [[float("inf"), 1.0]], r"action \[inf, 1.0\]"),
    ],
)
def test_actions_outside_the_space_are_named(actions: str, wrong: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        action_features(tiny_spec(actions), torch.tensor(wrong))


def test_what_lies_outside_a_box_counts_as_its_nearest_point() -> None:
    outside, edge = (torch.tensor([values]) for values in ([-3.0, 7.0], [-1.0, 1.0]))
    assert torch.equal(action_features(tiny_spec("box"), outside), action_features(tiny_spec("box"), edge))
