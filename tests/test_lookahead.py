"""Plans judged by the reader of endings: as if each of their steps had been read when it came."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from tests.worlds import tiny_reader, tiny_world
from worldsim.lookahead import plan_risks, simple_plans


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_a_plan_risks_what_the_reader_says_step_by_step_of_the_frames_there_were(discount: float) -> None:
    """Steps on, frames of junk stand where nobody looks."""
    model = tiny_world()
    tokens, channels = model.latent_shape
    size, frames, steps = 2 * tokens * channels + 3, 7, 9  # the last two steps lie beyond all that is remembered
    reader = tiny_reader(model, frames=frames, members=2)
    reader.rescale(0.8, -0.3)
    generator = torch.Generator().manual_seed(0)
    shown = torch.randn(3, frames, size, generator=generator)
    shown[0, :4] = 0  # an episode that has just begun
    plans = F.one_hot(torch.randint(3, (5, steps), generator=generator), 3).float()
    for plan, risk in zip(plans, plan_risks(reader, shown, plans, discount).unbind(1), strict=True):
        alive, held = torch.ones(3), shown
        for step in range(steps):
            ages = [age for age in reader.ages if age >= step]
            if ages:
                alive = alive * (1 - reader(held, plan[step].expand(3, -1), ages).sigmoid() * discount**step)
            junk = torch.randn(3, 1, size, generator=generator)
            junk[:, 0, -3:] = plan[step]
            held = torch.cat([held[:, 1:], junk], dim=1)
        torch.testing.assert_close(risk, 1 - alive)


def test_simple_plans_keep_an_action_or_change_it_once() -> None:
    plans = simple_plans(3, 6)
    assert plans.shape == (3 + 6 * 2, 6)
    assert len({tuple(plan) for plan in plans.tolist()}) == len(plans)
    assert plans[:, 0].tolist() == sorted(plans[:, 0].tolist())
    assert max(sum(a != b for a, b in pairwise(plan)) for plan in plans.tolist()) == 1
    assert simple_plans(2, 1).tolist() == [[0], [1]]
