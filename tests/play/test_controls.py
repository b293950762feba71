from __future__ import annotations

from dataclasses import replace

import pytest

from tests.worlds import tiny_spec
from worldsim.data.episode import EnvSpec
from worldsim.play.controls import controls, rest_action


def discrete(*meanings: str) -> EnvSpec:
    return replace(tiny_spec(), action_space={"type": "discrete", "n": len(meanings)}, action_meanings=list(meanings))


@pytest.mark.parametrize(
    ("meanings", "keys"),
    [
        (["noop", "right", "left"], [[], ["ArrowRight"], ["ArrowLeft"]]),
        (["left", "right"], [["ArrowLeft"], ["ArrowRight"]]),
        (["up", "upleft"], [["ArrowUp"], ["ArrowLeft", "ArrowUp"]]),
        (["leftfire"], [["ArrowLeft", "Space"]]),
        (["noop", "move left", "attack"], [[], ["ArrowLeft"], ["Space"]]),
        (["noop", "left engine", "main engine"], [[], ["ArrowLeft"], ["ArrowUp"]]),
        (["left", "forward", "pickup", "drop"], [["ArrowLeft"], ["ArrowUp"], ["Digit3"], ["Digit4"]]),
        (["action 0", "action 1"], [["Digit1"], ["Digit2"]]),
        (["turn left", "step left"], [["ArrowLeft"], ["Digit2"]]),  # one key, one action
    ],
)  # fmt: skip
def test_keys_follow_the_meanings(meanings: list[str], keys: list[list[str]]) -> None:
    assert [button["keys"] for button in controls(discrete(*meanings))["buttons"]] == keys


def test_no_two_actions_share_their_keys() -> None:
    atari = ["noop", "fire", "up", "right", "left", "down", "upright", "upleft", "downright", "downleft", "upfire"]
    keys = [tuple(button["keys"]) for button in controls(discrete(*atari))["buttons"]]
    assert len(set(keys)) == len(keys)


def test_what_is_played_while_nothing_is_pressed() -> None:
    assert rest_action(discrete("left", "noop")) == 1
    assert rest_action(discrete("left", "right")) is None
    assert rest_action(tiny_spec("box")) == [0.0, 0.0]


def test_sliders_end_at_the_bounds_and_unbounded_ones_where_tanh_is_flat() -> None:
    sliders = controls(tiny_spec("box"))["sliders"]
    assert [(slider["name"], slider["low"], slider["high"]) for slider in sliders] == [
        ("steer", -1.0, 1.0),
        ("gas", 0.0, 1.0),
    ]
    endless = {"type": "box", "shape": [1], "low": [-float("inf")], "high": [float("inf")]}
    [slider] = controls(replace(tiny_spec("box"), action_space=endless, action_meanings=["force"]))["sliders"]
    assert (slider["low"], slider["high"]) == (-3.0, 3.0)


def test_each_part_of_an_action_has_a_slider_that_clicks_into_place() -> None:
    given = controls(tiny_spec("multi_discrete"))
    assert (given["type"], given["rest"]) == ("parts", [0, 0])
    assert [(slider["name"], slider["low"], slider["high"], slider["step"]) for slider in given["sliders"]] == [
        ("steer", 0, 2, 1),
        ("jump", 0, 1, 1),
    ]
    assert [slider["high"] for slider in controls(tiny_spec("multi_binary"))["sliders"]] == [1, 1, 1]
