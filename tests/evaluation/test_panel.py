"""The panel beside a frame says what the agent thinks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.worlds import tiny_spec
from worldsim.evaluation.panel import PANEL_PIXELS, beside_panel, draw_panel, panel_height
from worldsim.rendering import BACKGROUND

ORANGE, BLUE, CURVE = (255, 176, 64), (96, 128, 168), (120, 200, 255)


def pixels(panel: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray((panel == colour).all(-1))


def bar_lengths(panel: NDArray[np.uint8], colour: tuple[int, int, int]) -> list[int]:
    """The longest run of a colour in each line of pixels that has a long one."""
    counts = pixels(panel[:, 76:176], colour).sum(1)
    return sorted({int(count) for count in counts if count > 4})


def test_bars_are_as_long_as_the_shares_and_the_chosen_one_is_marked() -> None:
    spec = tiny_spec()
    panel = draw_panel(spec, 120, ["a", "b"], np.array([0.1, 0.4, 0.5]), np.array(2), None, 0)
    assert panel.shape == (120, PANEL_PIXELS, 3)
    assert bar_lengths(panel, ORANGE) == pytest.approx([50], abs=3)
    assert bar_lengths(panel, BLUE) == pytest.approx([10, 40], abs=3)
    nothing = draw_panel(spec, 120, ["a", "b"], np.array([0.1, 0.4, 0.5]), None, None, 0)
    assert not pixels(nothing, ORANGE).any()


def test_continuous_actions_are_marks_between_their_bounds() -> None:
    panel = draw_panel(tiny_spec("box"), 120, [], np.array([0.0, 1.0]), np.array([-1.0, 1.0]), None, 0)
    marked = pixels(panel[:, 70:], ORANGE).nonzero()[1] + 70
    assert marked.min() < 76 + 3
    assert marked.max() > 176 - 3
    assert not pixels(panel[:, 90:160], ORANGE).any()


def test_the_curve_grows_with_the_moment_and_keeps_its_scale() -> None:
    spec, values = tiny_spec(), np.linspace(0.0, 10.0, 21)

    def curve(moment: int) -> Any:
        return pixels(draw_panel(spec, 160, [], np.ones(3) / 3, np.array(0), values, moment), CURVE)

    early, late = curve(5), curve(20)
    assert late.nonzero()[1].max() > PANEL_PIXELS - 12
    assert early.nonzero()[1].max() < PANEL_PIXELS // 3
    assert late.nonzero()[0].min() < early.nonzero()[0].min()  # it rises


def test_a_flat_curve_and_many_actions_have_room() -> None:
    spec = replace(tiny_spec(), action_meanings=[str(k) for k in range(18)], action_space={"type": "discrete", "n": 18})
    height = panel_height(spec, 80, 4, has_values=True)
    panel = draw_panel(spec, height, ["x"] * 4, np.ones(18) / 18, np.array(17), np.zeros(3), 2)
    assert pixels(panel, ORANGE).nonzero()[0].max() < height - 48
    assert pixels(panel, CURVE).any()
    both = beside_panel(np.full((80, 50, 1), 99, np.uint8), panel)
    assert both.shape == (height, 50 + 4 + PANEL_PIXELS, 3)
    assert (both[: (height - 80) // 2, :50] == BACKGROUND).all()
    assert (both[(height - 80) // 2 :][:80, :50] == 99).all()
