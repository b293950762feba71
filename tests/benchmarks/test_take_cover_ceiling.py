"""The planner that knows where fireballs are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.take_cover_ceiling import (
    ACCELERATION,
    FRICTION,
    KNOWLEDGE,
    STEPS,
    TICS,
    WALLS,
    Fireball,
    costs,
    fireballs_of,
    paths,
    plans,
    play,
)

STILL, LEFT = np.zeros((1, STEPS), np.int64), np.ones((1, STEPS), np.int64)


def test_each_plan_is_there_once_and_changes_direction_at_most_twice() -> None:
    directions = plans()
    assert len(np.unique(directions, axis=0)) == len(directions)
    assert (np.diff(directions, axis=1) != 0).sum(1).max() == 2
    assert {tuple(plan) for plan in (STILL[0], LEFT[0], -LEFT[0])} <= {tuple(plan) for plan in directions}


def test_a_push_gathers_speed_until_friction_takes_as_much() -> None:
    places = paths(LEFT, 300.0, 0.0)[0]
    assert places[0] == pytest.approx(300 + ACCELERATION)
    assert places[1] == pytest.approx(300 + ACCELERATION + ACCELERATION * (1 + FRICTION))
    assert np.diff(places)[-1] == pytest.approx(ACCELERATION / (1 - FRICTION), rel=0.01)  # the geometric series
    np.testing.assert_array_equal(paths(STILL, 300.0, 0.0), 300.0)


def test_nobody_passes_a_wall() -> None:
    places = paths(LEFT, WALLS[1] - 40, 7.0)[0]
    assert places.max() < WALLS[1]
    assert places[-1] == places[-2]


def test_who_stands_where_a_fireball_flies_is_hit_and_who_leaves_is_not() -> None:
    straight = Fireball(ahead=300.0, left=0.0, speed_ahead=-10.0, speed_left=0.0)
    standing, leaving = costs(np.concatenate([paths(STILL, 400.0, 0.0), paths(LEFT, 400.0, 0.0)]), 400.0, [straight])
    assert standing > 0.7
    assert leaving < 0.1


def test_who_runs_into_its_way_is_hit_and_who_stands_is_not() -> None:
    beside = Fireball(ahead=100.0, left=60.0, speed_ahead=-10.0, speed_left=0.0)
    standing, running = costs(np.concatenate([paths(STILL, 400.0, 0.0), paths(LEFT, 400.0, 0.0)]), 400.0, [beside])
    assert running > 0.8
    assert standing < 0.1


def test_what_has_burst_is_no_fireball_and_what_was_seen_is_remembered() -> None:
    def thing(name: str, x: float, y: float, speed: float, number: int) -> SimpleNamespace:
        return SimpleNamespace(name=name, position_x=x, position_y=y, velocity_x=speed, velocity_y=0.0, id=number)

    player = thing("DoomPlayer", 0.0, 400.0, 0.0, 0)
    flying, beside = thing("DoomImpBall", 300.0, 400.0, -10.0, 1), thing("DoomImpBall", 10.0, 460.0, -10.0, 2)
    burst, imp = thing("DoomImpBall", -20.0, 400.0, 0.0, 3), thing("DoomImp", 480.0, 400.0, 0.0, 4)
    state = SimpleNamespace(objects=[player, flying, beside, burst, imp])
    met: set[int] = set()
    _, known = fireballs_of(SimpleNamespace(get_state=lambda: state), met)
    assert {knows: len(balls) for knows, balls in known.items()} == {"all": 2, "remembered": 1, "seen": 1, "none": 0}
    assert known["seen"] == [Fireball(300.0, 0.0, -10.0, 0.0)]
    flying.position_x, flying.position_y = 10.0, 440.0  # out of view by now
    _, known = fireballs_of(SimpleNamespace(get_state=lambda: state), met)
    assert {knows: len(balls) for knows, balls in known.items()} == {"all": 2, "remembered": 1, "seen": 0, "none": 0}


def test_a_hit_sooner_costs_more() -> None:
    near, far = (Fireball(ahead, 0.0, -10.0, 0.0) for ahead in (100.0, 500.0))
    still = paths(STILL, 400.0, 0.0)
    assert costs(still, 400.0, [near]) > costs(still, 400.0, [far]) > 0.5
    assert STEPS * TICS * 10 > 500  # within the plan's sight


@pytest.mark.slow
def test_knowing_more_is_living_longer() -> None:
    returns = {knows: np.mean(play(knows, range(3))) for knows in KNOWLEDGE}
    assert returns["all"] > 1500
    assert returns["all"] >= returns["remembered"] > returns["none"]
