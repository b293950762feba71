"""Which keys, buttons and sliders the actions of an env get, as plain data for the page."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from worldsim.data.episode import EnvSpec

Action = int | list[int] | list[float]  # as the page sends it: of a discrete space, of several parts, of a box

# Words in the meaning of an action -> the key held for it, by the names that browsers give (KeyboardEvent.code).
KEYS = {
    "left": "ArrowLeft",
    "right": "ArrowRight",
    "up": "ArrowUp",
    "forward": "ArrowUp",
    "gas": "ArrowUp",
    "main": "ArrowUp",
    "down": "ArrowDown",
    "backward": "ArrowDown",
    "brake": "ArrowDown",
    "fire": "Space",
    "attack": "Space",
    "shoot": "Space",
}
# Letters that do the same as the arrows, for keyboards without them.
ALTERNATIVES = {"KeyA": "ArrowLeft", "KeyD": "ArrowRight", "KeyW": "ArrowUp", "KeyS": "ArrowDown"}
NOTHING = ("noop", "nothing", "none", "stay", "torque 0")
PAIRS = (("ArrowLeft", "ArrowRight"), ("ArrowDown", "ArrowUp"), ("KeyJ", "KeyL"), ("KeyK", "KeyI"))


def controls(spec: EnvSpec) -> dict[str, Any]:
    """What the page offers for the actions of `spec`.

    Discrete: {"type", "rest", "alternatives", "buttons": [{"value", "name", "keys"}]}; an action is played while all of
    its keys are held, of several the one with the most keys; `rest` (None where there is no such action) while none
    is. All others: {"type", "rest", "alternatives", "sliders": [{"name", "low", "high", "step", "keys": [of low, of
    high]}]}, a slider for each number of a Box ("box"; step None: any value) or for each part of an action that has
    several ("parts"; step 1).
    """
    if spec.action_space["type"] == "discrete":
        return {
            "type": "discrete",
            "rest": rest_action(spec),
            "alternatives": ALTERNATIVES,
            "buttons": _buttons(spec.action_meanings),
        }
    choices = spec.action_choices
    low, high = box_bounds(spec) if choices is None else ([0] * len(choices), [n - 1 for n in choices])
    step = None if choices is None else 1
    sliders = [
        {"name": name, "low": low[i], "high": high[i], "step": step, "keys": list(PAIRS[i]) if i < len(PAIRS) else []}
        for i, name in enumerate(spec.action_meanings)
    ]
    kind = "box" if choices is None else "parts"
    return {"type": kind, "rest": rest_action(spec), "alternatives": ALTERNATIVES, "sliders": sliders}


def box_bounds(spec: EnvSpec) -> tuple[list[float], list[float]]:
    """The bounds (A,) of a Box action as a slider has them: an unbounded side ends at 3, where tanh is all but flat."""
    sides = (np.asarray(spec.action_space[name], np.float32).reshape(-1) for name in ("low", "high"))
    low, high = (np.nan_to_num(side, posinf=3.0, neginf=-3.0).tolist() for side in sides)
    return low, high


def rest_action(spec: EnvSpec) -> Action | None:
    """The action that does nothing: 0 within the bounds of a Box, and in each part of an action that has several; None
    for a Discrete space that has no such action.
    """
    if spec.action_choices is None:
        low, high = box_bounds(spec)
        return np.clip(0.0, low, high).tolist()
    if spec.action_shape:
        return [0] * len(spec.action_choices)
    names = [meaning.lower() for meaning in spec.action_meanings]
    return next((names.index(name) for name in NOTHING if name in names), None)


def _buttons(meanings: list[str]) -> list[dict[str, Any]]:
    buttons: list[dict[str, Any]] = []
    taken: set[tuple[str, ...]] = set()
    for value, name in enumerate(meanings):
        keys = [] if name.lower() in NOTHING else sorted({KEYS[word] for word in _words(name)})
        if (not keys or tuple(keys) in taken) and name.lower() not in NOTHING and value < 9:
            keys = [f"Digit{value + 1}"]
        taken.add(tuple(keys))
        buttons.append({"value": value, "name": name, "keys": keys})
    return buttons


def _words(name: str) -> list[str]:
    """The words of KEYS in a meaning; Atari writes them together ("upleftfire")."""
    found: list[str] = []
    for word in re.findall("[a-z]+", name.lower()):
        parts = re.findall("|".join(KEYS), word)
        found += parts if "".join(parts) == word else []
    return found
