"""Charts put numbers where they belong, and say them in words."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from worldsim.evaluation.charts import (
    BOTTOM,
    HEIGHT,
    LARGEST_POINTS,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Interval,
    Line,
    interval_chart,
    line_chart,
    number,
    round_numbers,
)


def drawn(chart: str) -> list[list[tuple[float, float]]]:
    """The points of each line."""
    figure = ET.fromstring(chart)
    texts = [line.attrib["points"] for line in figure.iter("polyline")]
    return [[(float(x), float(y)) for x, y in (point.split(",") for point in text.split())] for text in texts]


def test_lines_span_the_chart() -> None:
    [up, down] = drawn(line_chart("loss", [Line("a", [0, 5, 10], [0, 50, 100]), Line("b", [0, 10], [100, 0])], "steps"))
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    assert up == [(left, bottom), ((left + right) / 2, (top + bottom) / 2), (right, top)]
    assert down == [(left, top), (right, bottom)]


def test_a_chart_says_what_it_shows_and_escapes_names() -> None:
    chart = line_chart("<loss> & more", [Line('"a"', [1, 2], [3.25, 0.5])], "steps", ticks={1: "one", 2: "two"})
    figure = ET.fromstring(chart)  # so it is well-formed
    [picture] = figure.iter("svg")
    assert picture.attrib["role"] == "img"
    assert picture.attrib["aria-label"] == '<loss> & more over steps. "a": 3.25 to 0.5.'
    assert {"one", "two"} <= {text.text for text in figure.iter("text")}


def test_long_lines_are_averaged_and_keep_their_ends() -> None:
    xs = list(range(10_000))
    [points] = drawn(line_chart("x", [Line("a", xs, xs)], "steps"))
    assert LARGEST_POINTS / 2 < len(points) <= LARGEST_POINTS
    slopes = np.diff(np.array(points), axis=0)
    assert (slopes[:, 0] > 0).all()
    assert (slopes[:, 1] <= 0).all()


def test_a_constant_line_is_drawn_and_nothing_is_refused() -> None:
    [points] = drawn(line_chart("x", [Line("a", [1, 2], [7, 7])], "steps"))
    assert all(TOP < y < HEIGHT - BOTTOM for _, y in points)
    for lines in ([], [Line("a", [1], [float("nan")])]):
        with pytest.raises(ValueError, match="finite points"):
            line_chart("x", lines, "steps")


def test_intervals_lie_on_one_scale() -> None:
    chart = interval_chart("returns", [Interval("agent", 50, 75, 100, strong=True), Interval("random", -20, 0, 10)])
    ET.fromstring(chart)
    places = [float(place) for place in re.findall(r'class="range" style="left:([\d.]+)%', chart)]
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", chart)]
    means = [float(place) for place in re.findall(r'class="mean" style="left:([\d.]+)%', chart)]
    scale = widths[0] / 50  # per cent of the width for one of return
    assert widths[1] == pytest.approx(30 * scale, abs=0.02)
    assert places[0] - places[1] == pytest.approx(70 * scale, abs=0.02)
    assert means[0] == pytest.approx(places[0] + 25 * scale, abs=0.02)
    assert "75 (50 to 100)" in chart
    with pytest.raises(ValueError, match="at least one"):
        interval_chart("returns", [])


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 17), (0.001, 0.0012), (1e5, 3e7), (5, 5), (0, 0), (-2, -1)])
def test_round_numbers_hold_what_they_label(low: float, high: float) -> None:
    numbers = round_numbers(low, high, 4)
    assert numbers[0] <= low + 1e-12
    assert numbers[-1] >= high - 1e-12
    assert 2 <= len(numbers) <= 8
    steps = np.diff(numbers)
    np.testing.assert_allclose(steps, steps[0])


def test_numbers_are_short() -> None:
    texts = {0: "0", 0.25: "0.25", 1234.5: "1,234", 123.456: "123.5", 1e-6: "1e-06", 3e8: "3e+08", -2.0: "-2"}
    assert {value: number(value) for value in texts} == texts
