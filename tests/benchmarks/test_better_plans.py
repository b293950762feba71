"""Plans, what they risk, and the choice among them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from benchmarks.better_plans import deaths_within, following, least, simple_plans
from tests.worlds import tiny_world
from worldsim.world_model import row_generator


def test_plans_keep_an_action_or_change_it_once() -> None:
    plans = simple_plans(3, 6)
    assert len(plans) == len({tuple(plan) for plan in plans}) == 3 + 3 * 2 * 2
    assert [2] * 6 in plans
    assert [0, 0, 1, 1, 1, 1] in plans
    assert [2, 2, 2, 0, 0, 0] in plans
    assert all(sum(a != b for a, b in pairwise(plan)) <= 1 for plan in plans)


def test_the_choice_is_judged_by_draws_that_it_did_not_see() -> None:
    first = np.array([[0.1, 0.5], [0.2, 0.3]])
    second = np.array([[0.4, 0.6], [0.0, 0.9]])
    np.testing.assert_array_equal(least(first, second), [0.4, 0.9])


def test_deaths_are_what_steps_say_joined() -> None:
    world = tiny_world()
    starts = world.start_contexts.rows(torch.tensor([7, 9]))
    found = deaths_within(world, starts, following([0, 2, 1]), 3, draws=1, seed=5)
    state = world.start_from(starts, [row_generator(5), row_generator(6)])
    alive = torch.ones(2)
    for action in (0, 2, 1):
        state, step = world.step(state, torch.tensor([action, action]))
        alive = alive * (1 - step.termination_probability)
    assert found == pytest.approx((1 - alive).numpy(), abs=1e-5)
