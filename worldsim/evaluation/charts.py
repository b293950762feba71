"""Charts as text for a page: lines in SVG, intervals in HTML. Colours and fonts come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 360, 200  # small enough that its letters stay readable on a phone
LEFT, RIGHT, TOP, BOTTOM = 48, 8, 8, 24  # margins
COLOURS = 5  # classes c0 to c4 of the page's style
LARGEST_POINTS = 300  # of a line: more are averaged in groups


@dataclass(frozen=True)
class Line:
    """A line of a chart: `name` in the legend, xs ascending and ys of one length, finite."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]


@dataclass(frozen=True)
class Interval:
    """A mean and its interval; `strong` marks the one that the others are compared with."""

    name: str
    low: float
    mean: float
    high: float
    strong: bool = False


def line_chart(title: str, lines: Sequence[Line], x_name: str, *, ticks: Mapping[float, str] | None = None) -> str:
    """A figure with a line chart and its legend. ticks: the labels of the x axis, by default round numbers.

    Raises ValueError without a point to draw.
    """
    lines = [_thinned(line) for line in lines]
    xs, ys = [x for line in lines for x in line.xs], [y for line in lines for y in line.ys]
    if not xs or not all(math.isfinite(number) for number in (*xs, *ys)):
        raise ValueError(f"chart {title!r}: expected finite points, got {len(xs)}")
    x_low, x_high = min(xs), max(xs)
    y_ticks = round_numbers(min(ys), max(ys), 4)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        across = 0.5 if x_high == x_low else (x - x_low) / (x_high - x_low)
        up = 0.5 if y_high == y_low else (y - y_low) / (y_high - y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = []
    for y in y_ticks:
        _, height = at(x_low, y)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text x="{LEFT - 4}" y="{height + 4:.1f}" text-anchor="end">{number(y)}</text>')
    if ticks is None:
        ticks = {tick: number(tick) for tick in round_numbers(x_low, x_high, 4) if x_low <= tick <= x_high}
    for x, label in ticks.items():
        across, _ = at(x, y_low)
        anchor = "end" if across > WIDTH - RIGHT - 20 else "middle"
        parts.append(f'<text x="{across:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{escape(label)}</text>')
    for k, line in enumerate(lines):
        places = [at(x, y) for x, y in zip(line.xs, line.ys, strict=True)]
        points = " ".join(f"{across:.1f},{height:.1f}" for across, height in places)
        colour = f"c{k % COLOURS}"
        parts.append(f'<polyline class="curve {colour}" points="{points}"/>')
        if len(places) <= 12:
            parts += [f'<circle class="dot {colour}" cx="{a:.1f}" cy="{b:.1f}" r="2.5"/>' for a, b in places]
    told = "; ".join(f"{line.name}: {number(line.ys[0])} to {number(line.ys[-1])}" for line in lines)
    spoken = escape(f"{title} over {x_name}. {told}.", quote=True)
    legend = "".join(
        f'<li><span class="key c{k % COLOURS}"></span>{escape(line.name)} <b>{number(line.ys[-1])}</b></li>'
        for k, line in enumerate(lines)
    )
    return (
        f'<figure class="chart"><figcaption>{escape(title)} <small>over {escape(x_name)}</small></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{spoken}">{"".join(parts)}</svg>'
        f'<ul class="legend">{legend}</ul></figure>'
    )


def interval_chart(title: str, intervals: Sequence[Interval]) -> str:
    """A figure with a bar for each interval and a mark for its mean, on one scale that holds zero.

    Raises ValueError without an interval.
    """
    if not intervals:
        raise ValueError(f"chart {title!r}: expected at least one interval")
    numbers = [0.0] + [value for row in intervals for value in (row.low, row.mean, row.high)]
    ticks = round_numbers(min(numbers), max(numbers), 4)
    low, high = ticks[0], ticks[-1]

    def percent(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%"

    rows = []
    for row in intervals:
        told = f"{number(row.mean)} ({number(row.low)} to {number(row.high)})"
        width = f"{100 * (row.high - row.low) / (high - low):.2f}%"
        rows.append(
            f'<div class="row{" strong" if row.strong else ""}"><span class="name">{escape(row.name)}</span>'
            f'<span class="track"><span class="range" style="left:{percent(row.low)};width:{width}"></span>'
            f'<span class="mean" style="left:{percent(row.mean)}"></span></span><span class="told">{told}</span></div>'
        )
    scale = "".join(f'<span style="left:{percent(tick)}">{number(tick)}</span>' for tick in ticks)
    return (
        f'<figure class="intervals"><figcaption>{escape(title)}</figcaption>{"".join(rows)}'
        f'<div class="row scale" aria-hidden="true"><span class="name"></span><span class="track">{scale}</span>'
        f'<span class="told"></span></div></figure>'
    )


def round_numbers(low: float, high: float, count: int) -> list[float]:
    """About `count` + 1 round numbers at equal distances, the first at most `low`, the last at least `high`."""
    if high <= low:
        low, high = low - (abs(low) or 1) / 2, low + (abs(low) or 1) / 2
    rough = (high - low) / count
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, last + 1)]


def number(value: float) -> str:
    """Short, for an axis or a table."""
    if value != 0 and (abs(value) >= 1e7 or abs(value) < 1e-4):
        return f"{value:.2g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{float(f'{value:.4g}'):g}"


def _thinned(line: Line) -> Line:
    """The means of groups of neighbours where a line has more points than anybody can see."""
    size = -(-len(line.xs) // LARGEST_POINTS)
    if size <= 1:
        return line
    groups = [slice(first, first + size) for first in range(0, len(line.xs), size)]
    xs, ys = ([sum(values[group]) / len(values[group]) for group in groups] for values in (line.xs, line.ys))
    return Line(line.name, xs, ys)
