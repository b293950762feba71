"""What a page may ask for. Whatever it sends is checked here, before anything acts on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worldsim.data.episode import EnvSpec
from worldsim.play.controls import Action, box_bounds

LARGEST_MESSAGE = 4096  # characters
SHOWN_CHARACTERS = 60  # of a refused value, in a log line
SPEEDS = (0.1, 100.0)
TEMPERATURES = (0.0, 4.0)
LARGEST_COUNT = 2**53


class RefusedMessage(Exception):
    """A message that no page of ours would send; the text says what was expected. Nothing was done."""


@dataclass(frozen=True)
class Command:
    """One checked message: its type, and its value where the type has one."""

    type: str
    value: Any = None


def read_command(text: str | bytes, spec: EnvSpec, sampling_steps: list[int]) -> Command:
    """The command in a message, {"type": ..., "value": ...}. Raises RefusedMessage for anything else.

    sampling_steps: those to choose from.
    """
    if not isinstance(text, str):
        raise RefusedMessage("binary message: expected text")
    if len(text) > LARGEST_MESSAGE:
        raise RefusedMessage(f"message of {len(text)} characters: expected at most {LARGEST_MESSAGE}")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise RefusedMessage(f"{shown(text)} is not JSON") from None
    if not isinstance(message, dict) or not set(message) <= {"type", "value"}:
        raise RefusedMessage(f'{shown(text)}: expected {{"type": ..., "value": ...}}')
    kind, value = message.get("type"), message.get("value")
    checks: dict[str, Callable[[Any], Any]] = {
        "action": lambda given: _action(given, spec),
        "shown": lambda given: _integer(given, 0, LARGEST_COUNT),
        "play": _nothing,
        "pause": _nothing,
        "step": _nothing,
        "restart": _nothing,
        "save": _nothing,
        "load": lambda given: _integer(given, 0, LARGEST_COUNT),
        "rewind": _nothing,
        "policy": _switch,
        "record": _switch,
        "temperature": lambda given: _number(given, *TEMPERATURES),
        "speed": lambda given: _number(given, *SPEEDS),
        "sampling_steps": lambda given: _one_of(given, sampling_steps),
    }
    if not isinstance(kind, str) or kind not in checks:
        raise RefusedMessage(f"type {shown(kind)}: expected one of {', '.join(checks)}")
    try:
        return Command(kind, checks[kind](value))
    except RefusedMessage as refused:
        raise RefusedMessage(f"{kind} {shown(value)}: {refused}") from None


def shown(value: Any) -> str:
    """A value as a short piece of one log line, whatever is in it."""
    text = ascii(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def _nothing(given: Any) -> None:
    if given is not None:
        raise RefusedMessage("expected no value")


def _switch(given: Any) -> bool:
    if not isinstance(given, bool):
        raise RefusedMessage("expected true or false")
    return given


def _integer(given: Any, low: int, high: int) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not low <= given <= high:
        raise RefusedMessage(f"expected an integer from {low} to {high}")
    return given


def _number(given: Any, low: float, high: float) -> float:
    if not isinstance(given, int | float) or isinstance(given, bool) or not low <= given <= high:  # nan is not
        raise RefusedMessage(f"expected a number from {low:g} to {high:g}")
    return float(given)


def _one_of(given: Any, choices: list[int]) -> int:
    if isinstance(given, bool) or given not in choices:
        raise RefusedMessage(f"expected one of {', '.join(map(str, choices))}")
    return int(given)


def _action(given: Any, spec: EnvSpec) -> Action:
    choices = spec.action_choices
    if choices is not None and not spec.action_shape:
        return _integer(given, 0, choices[0] - 1)
    [count] = spec.action_shape
    if not isinstance(given, list) or len(given) != count:
        raise RefusedMessage(f"expected a list of {count} numbers")
    if choices is not None:
        return [_integer(number, 0, n - 1) for number, n in zip(given, choices, strict=True)]
    low, high = box_bounds(spec)
    return [_number(number, *bounds) for number, *bounds in zip(given, low, high, strict=True)]
