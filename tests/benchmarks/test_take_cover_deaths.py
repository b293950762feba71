"""Would a fireball that flies there hit whoever acts like this?"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from benchmarks.take_cover_ceiling import Fireball
from benchmarks.take_cover_deaths import hits

PLAYER = SimpleNamespace(position_y=384.0, velocity_y=0.0)


@pytest.mark.parametrize(
    ("ball", "taken", "expected"),
    [
        (Fireball(100, 0, -10, 0), ["noop"] * 4, True),  # it arrives after ten tics, and he stands there
        (Fireball(100, 0, -10, 0), ["noop"] * 1, False),  # after four it is still 60 away
        (Fireball(200, 0, -10, 0), ["left"] * 6, False),  # he has gone
        (Fireball(100, 60, -10, 0), ["noop"] * 4, False),  # it passes him by
        (Fireball(100, 30, -10, 0), ["left"] * 3, True),  # he runs into it
        (Fireball(100, -30, -10, 0), ["left"] * 3, False),
    ],
)
def test_a_hit_is_where_both_are_at_once(ball: Fireball, taken: list[str], expected: bool) -> None:
    assert hits(PLAYER, [ball], taken) is expected
