"""Plans, and what they risk."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from worldsim.lookahead import action_risks, plan_risks, simple_plans


def test_a_plan_risks_that_one_of_its_steps_ends_the_episode() -> None:
    probability = torch.tensor([[[0.5, 0.5], [0.0, 0.2]]])
    logits = torch.logit(probability)
    assert plan_risks(logits, 1.0)[0].tolist() == pytest.approx([0.75, 0.2])
    assert plan_risks(logits, 0.5)[0].tolist() == pytest.approx([1 - 0.5 * 0.75, 0.1])
    after = plan_risks(logits, 0.5, horizon=1, afterwards_weight=0.4)
    assert after[0].tolist() == pytest.approx([1 - 0.5 * 0.9, 0.04])


def test_an_action_risks_what_its_best_plan_does() -> None:
    plans = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    risks = torch.tensor([[0.4, 0.3, 0.9, 1.0], [0.1, 0.2, 0.3, 0.0]])
    assert action_risks(risks, plans).tolist() == torch.tensor([[0.3, 0.9], [0.1, 0.0]]).tolist()


def test_simple_plans_keep_an_action_or_change_it_once() -> None:
    plans = simple_plans(3, 6, (1, 4))
    assert plans.shape == (3 + 6 * 2, 6)
    assert len({tuple(plan) for plan in plans.tolist()}) == len(plans)
    assert plans[:, 0].tolist() == sorted(plans[:, 0].tolist())
    assert max(sum(a != b for a, b in pairwise(plan)) for plan in plans.tolist()) == 1
    assert simple_plans(2, 1, (1, 4)).tolist() == [[0], [1]]
