"""Playing by plans."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.plans_in_reality import PERSISTENCE, PlanningPolicy
from tests.worlds import tiny_reader, tiny_world
from worldsim.errors import UserError


def test_a_row_acts_the_same_whoever_plays_beside_it_and_takes_what_risks_least() -> None:
    model = tiny_world()
    model.endings = tiny_reader(model, frames=4)
    frames = np.random.default_rng(0).integers(0, 255, (4, 3, *model.spec.frame_shape), dtype=np.uint8)
    together, alone = PlanningPolicy(model, 3), PlanningPolicy(model, 3)
    together.reset([5, 6, 7])
    alone.reset([7])
    first = together(frames[0], np.array([0, 1, 2]))
    assert first[2:] == alone(frames[0, 2:], np.array([0]))
    last = first[2]
    for t in (1, 2, 3):  # the first row has ended
        [_, acts] = together(frames[t, 1:], np.array([1, 2]))
        assert [acts] == alone(frames[t, 2:], np.array([0]))
        assert alone._state is not None
        risks = alone.risks(alone._state)[0]
        risks[torch.tensor(int(last))] -= PERSISTENCE
        assert acts == int(risks.argmin())
        last = acts


def test_who_cannot_plan_is_told_why() -> None:
    with pytest.raises(UserError, match="endings"):
        PlanningPolicy(tiny_world(), 3)
    with pytest.raises(UserError, match="discrete"):
        PlanningPolicy(tiny_world("box"), 3)
