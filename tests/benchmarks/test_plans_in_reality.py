"""Playing by plans."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.plans_in_reality import PlanningPolicy
from tests.worlds import tiny_plan_reader, tiny_world
from worldsim.agents.dagger import preferred
from worldsim.errors import UserError


def test_a_row_acts_the_same_whoever_plays_beside_it_and_takes_what_risks_least() -> None:
    model = tiny_world()
    model.plans = tiny_plan_reader(model)
    frames = np.random.default_rng(0).integers(0, 255, (4, 3, *model.spec.frame_shape), dtype=np.uint8)
    together, alone = PlanningPolicy(model), PlanningPolicy(model)
    together.reset([5, 6, 7])
    alone.reset([7])
    first = together(frames[0], np.array([0, 1, 2]))
    assert first[2:] == alone(frames[0, 2:], np.array([0]))
    last = first[2]
    for t in (1, 2, 3):  # the first row has ended
        [_, acts] = together(frames[t, 1:], np.array([1, 2]))
        assert [acts] == alone(frames[t, 2:], np.array([0]))
        state = alone._watcher._state
        assert state is not None
        risks = model.action_risks(state)
        assert acts == int(preferred(risks, torch.tensor([int(last)]))[0])
        last = acts


def test_who_cannot_plan_is_told_why() -> None:
    for actions, reason in (("discrete", "plans.steps"), ("box", "discrete")):
        policy, model = PlanningPolicy(tiny_world(actions)), tiny_world(actions)
        policy.reset([0])
        with pytest.raises(UserError, match=reason):
            policy(np.zeros((1, *model.spec.frame_shape), np.uint8), np.array([0]))
