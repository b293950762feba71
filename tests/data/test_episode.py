from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from tests.data.counting import episode, spec
from worldsim.data.episode import EnvSpec
from worldsim.errors import UserError


@pytest.mark.parametrize("box", [False, True])
def test_spec_survives_json(box: bool) -> None:
    original = spec(box)
    assert EnvSpec.from_dict(json.loads(json.dumps(original.to_dict()))) == original


def test_spec_gives_gymnasium_spaces() -> None:
    assert spec().gym_action_space() == gym.spaces.Discrete(5)
    assert spec(box=True).gym_action_space() == gym.spaces.Box(-1, 1, (2,), np.float32)
    assert (spec().action_shape, spec(box=True).action_shape) == ((), (2,))
    assert (spec().action_dtype, spec(box=True).action_dtype) == (np.dtype(np.int64), np.dtype(np.float32))


def test_spec_names_unknown_and_missing_fields() -> None:
    values = spec().to_dict()
    values["frame_rate"] = values.pop("frames_per_second")
    with pytest.raises(UserError, match="frame_rate, frames_per_second"):
        EnvSpec.from_dict(values)
    with pytest.raises(UserError, match="'tuple'"):
        replace(spec(), action_space={"type": "tuple"}).gym_action_space()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": np.zeros((3, 4, 6, 3), np.uint8)}, r"frames: expected uint8 \(4, 4, 6, 3\), given uint8 \(3, "),
        ({"frames": np.zeros((4, 4, 6, 3), np.float32)}, "given float32"),
        ({"actions": np.zeros(3, np.int32)}, "actions: expected int64"),
        ({"actions": np.zeros((3, 1), np.int64)}, "actions"),
        ({"rewards": np.zeros(3, np.float64)}, "rewards: expected float32"),
        ({"terminated": np.array([True, False, False])}, "goes on after"),
        ({"split": "test"}, "'test'"),
        ({"tics": 2}, "tics: 2"),
    ],
)
def test_check_names_what_is_wrong(change: dict[str, Any], message: str) -> None:
    good = episode(1, 3)
    good.check(spec())
    with pytest.raises(ValueError, match=message):
        replace(good, **change).check(spec())
