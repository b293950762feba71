"""What an agent thinks, drawn beside what it sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.data.episode import EnvSpec
from worldsim.rendering import BACKGROUND, INK, TEXT_PIXELS, Frames, to_rgb

PANEL_PIXELS = 216  # width
CURVE_PIXELS = 48  # least height of the curve of values
_LINE = TEXT_PIXELS + 4
_LABEL = 72  # pixels for the name of an action
_NUMBER = 40  # for what stands behind its bar
_CHOSEN, _OTHER, _EMPTY, _CURVE = (255, 176, 64), (96, 128, 168), (56, 56, 56), (120, 200, 255)


@dataclass(frozen=True)
class Thoughts:
    """What an agent makes of observations, a row each.

    actions: (B,) int64, (B, K) integers or (B, *shape) float32, those it takes. shares: (B, A) in [0, 1], of Discrete
    actions their probabilities; of actions of several discrete parts the expected choice in each, from the first to the
    last; of Box actions where the most likely one lies between the bounds. values: (B,) float, the
    discounted return that it expects from here on; None where no value network is known.
    """

    actions: NDArray[Any]
    shares: NDArray[np.float64]
    values: NDArray[np.float64] | None


Think = Callable[[NDArray[Any]], Thoughts]


def panel_height(spec: EnvSpec, frame_height: int, lines: int, has_values: bool) -> int:
    """Pixels that a panel of so many lines of text needs, at least those of the frame beside it."""
    return max(frame_height, _LINE * (lines + len(spec.action_meanings)) + 8 + (CURVE_PIXELS if has_values else 0))


def beside_panel(frame: Frames, panel: Frames) -> Frames:
    """A frame (H, W, C), in the middle of the panel's height, and the panel (H', W', 3), H' >= H."""
    above = (panel.shape[0] - frame.shape[0]) // 2
    below = panel.shape[0] - frame.shape[0] - above
    padded = np.pad(to_rgb(frame), [(above, below), (0, 4), (0, 0)], constant_values=BACKGROUND)
    return np.concatenate([padded, panel], axis=1)


def draw_panel(
    spec: EnvSpec,
    height: int,
    lines: Sequence[str],
    shares: NDArray[np.float64],
    action: NDArray[Any] | None,
    values: NDArray[np.float64] | None,
    moment: int,
) -> Frames:
    """Lines of text, a bar for each action and the values of the whole episode with a dot at `moment`.

    shares: (A,), as in Thoughts. action: the one that was taken, None at the end of an episode. values: (T,). Returns
    uint8 (height, PANEL_PIXELS, 3).
    """
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (PANEL_PIXELS, height), (BACKGROUND,) * 3)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=TEXT_PIXELS - 2)
    ink = (INK,) * 3
    y = 2
    for line in lines:
        draw.text((4, y + _LINE // 2), line, fill=ink, font=font, anchor="lm")
        y += _LINE
    left, right = 4 + _LABEL, PANEL_PIXELS - _NUMBER
    for k, (name, share, text) in enumerate(zip(spec.action_meanings, shares, _texts(spec, shares), strict=True)):
        chosen = action is not None and (bool(spec.action_shape) or int(action) == k)
        colour = _CHOSEN if chosen else _OTHER
        draw.text((4, y + _LINE // 2), name[:12], fill=_CHOSEN if chosen else ink, font=font, anchor="lm")
        draw.rectangle((left, y + 3, right, y + _LINE - 4), fill=_EMPTY)
        end = left + round((right - left) * float(np.clip(share, 0, 1)))
        if spec.action_shape:
            draw.rectangle((end - 2, y + 1, end + 2, y + _LINE - 2), fill=colour)
        elif end > left:
            draw.rectangle((left, y + 3, end, y + _LINE - 4), fill=colour)
        draw.text((PANEL_PIXELS - 4, y + _LINE // 2), text, fill=ink, font=font, anchor="rm")
        y += _LINE
    if values is not None:
        _draw_curve(draw, font, values, moment, top=y + 6, bottom=height - 6)
    return np.asarray(image, np.uint8)


def _texts(spec: EnvSpec, shares: NDArray[np.float64]) -> list[str]:
    if not spec.action_shape:
        return [f"{share:.0%}" for share in shares]
    if spec.action_choices:
        return [f"{share * (count - 1):.1f}" for share, count in zip(shares, spec.action_choices, strict=True)]
    low, high = (np.ravel(spec.action_space[name]) for name in ("low", "high"))
    return [f"{number:.2f}" for number in low + shares * (high - low)]


def _draw_curve(draw: Any, font: Any, values: NDArray[np.float64], moment: int, *, top: int, bottom: int) -> None:
    """The values up to `moment`, on the scale of all of them."""
    low, high = float(values.min()), float(values.max())
    width = PANEL_PIXELS - 12

    def point(t: int) -> tuple[float, float]:
        share = 0.5 if high == low else (float(values[t]) - low) / (high - low)
        return 4 + width * t / max(1, len(values) - 1), bottom - share * (bottom - top)

    draw.rectangle((2, top - 2, PANEL_PIXELS - 3, bottom + 2), outline=_EMPTY)
    points = [point(t) for t in range(moment + 1)]
    if len(points) > 1:
        draw.line(points, fill=_CURVE, width=1)
    x, y = points[-1]
    draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=_CURVE)
    draw.text((6, top + 6), f"{high:.4g}", fill=(INK // 2,) * 3, font=font, anchor="lm")
    draw.text((6, bottom - 6), f"{low:.4g}", fill=(INK // 2,) * 3, font=font, anchor="lm")
