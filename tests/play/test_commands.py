from __future__ import annotations

import json
from typing import Any

import pytest

from tests.worlds import tiny_spec
from worldsim.play.commands import LARGEST_MESSAGE, Command, RefusedMessage, read_command, shown

DISCRETE, BOX = tiny_spec(), tiny_spec("box")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("action", 2),
        ("shown", 17),
        ("play", None),
        ("load", 3),
        ("policy", True),
        ("temperature", 1.5),
        ("speed", 100.0),
        ("sampling_steps", 4),
    ],
)
def test_what_a_page_asks_for(kind: str, value: Any) -> None:
    assert read_command(json.dumps({"type": kind, "value": value}), DISCRETE, [1, 2, 4]) == Command(kind, value)


def test_actions_of_a_box() -> None:
    assert read_command('{"type": "action", "value": [-1, 0.5]}', BOX, [1]).value == [-1.0, 0.5]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"\x00\xff", "text"),
        ("", "not JSON"),
        ("hello", "not JSON"),
        ("[" * 4000, "not JSON"),
        ("9" * 4000, "type"),
        ("null", "type"),
        ('{"type": "play", "more": 1}', "type"),
        ('{"type": ["play"]}', "expected one of action"),
        ('{"type": "__class__"}', "expected one of action"),
        ('{"type": "play", "value": 0}', "no value"),
        ('{"type": "action"}', "integer from 0 to 2"),
        ('{"type": "action", "value": 3}', "integer from 0 to 2"),
        ('{"type": "action", "value": -1}', "integer from 0 to 2"),
        ('{"type": "action", "value": 1.0}', "integer from 0 to 2"),
        ('{"type": "action", "value": true}', "integer from 0 to 2"),
        ('{"type": "action", "value": ' + "9" * 900 + "}", "integer from 0 to 2"),
        ('{"type": "policy", "value": "yes"}', "true or false"),
        ('{"type": "temperature", "value": NaN}', "number from 0 to 4"),
        ('{"type": "temperature", "value": -0.1}', "number from 0 to 4"),
        ('{"type": "speed", "value": Infinity}', "number from 0.1 to 100"),
        ('{"type": "speed", "value": 0}', "number from 0.1 to 100"),
        ('{"type": "sampling_steps", "value": 3}', "one of 1, 2, 4"),
        ('{"type": "sampling_steps", "value": true}', "one of 1, 2, 4"),
        ('{"type": "sampling_steps", "value": {}}', "one of 1, 2, 4"),
        (" " * (LARGEST_MESSAGE + 1), f"at most {LARGEST_MESSAGE}"),
    ],
)  # fmt: skip
def test_everything_else_is_refused_in_one_short_line(message: str | bytes, expected: str) -> None:
    with pytest.raises(RefusedMessage, match=expected) as refused:
        read_command(message, DISCRETE, [1, 2, 4])
    assert len(str(refused.value)) < 300
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(("kind", "value"), [("multi_discrete", [2, 1]), ("multi_binary", [1, 0, 1])])
def test_actions_of_several_parts(kind: str, value: list[int]) -> None:
    def read(given: Any) -> Any:
        return read_command(json.dumps({"type": "action", "value": given}), tiny_spec(kind), [1]).value

    assert read(value) == value
    for wrong in (value[:1], 1, [3, *value[1:]], [-1, *value[1:]], [0.5, *value[1:]], [True, *value[1:]]):
        with pytest.raises(RefusedMessage, match="action"):
            read(wrong)


@pytest.mark.parametrize("value", [[0.0], [0.0, 0.0, 0.0], [0.0, -0.1], [2.0, 0.0], ["a", 0.0], 1, None, [[0.0], 0.0]])
def test_actions_outside_a_box(value: Any) -> None:
    with pytest.raises(RefusedMessage, match="action"):
        read_command(json.dumps({"type": "action", "value": value}), BOX, [1])


def test_nothing_in_a_log_line_can_pose_as_another() -> None:
    assert shown("a\nviewer 1: \x1b[31m") == r"'a\nviewer 1: \x1b[31m'"
