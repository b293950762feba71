"""Moments that readers of plans are asked about, kept and shown as each of them sees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.plan_training import Moments, ask, load, save
from tests.evaluation.worlds import SHAPE, spec
from worldsim.errors import UserError
from worldsim.plan_reader import PlanConfig, PlanReader

CONFIG = PlanConfig(horizon=2, ages=[0, 1, 4], actions_before=2, strides=[[4, 2], [4, 4]])
PLANS = np.array([[0, 0], [1, 1], [2, 2]])


def three_moments() -> Moments:
    """Each shows its number, plus ten times the age; the plan of that number is deadly."""
    ages = np.array(CONFIG.ages)
    values = np.arange(3)[:, None] + 10 * ages  # (M, K)
    pictures = np.broadcast_to(values[..., None, None, None], (3, len(ages), *SHAPE)).astype(np.uint8)
    taken = np.arange(3 * 2 * 3, dtype=np.float32).reshape(3, 2, 3)
    gaps = np.where(np.eye(3, dtype=bool), 1.0, 100.0)
    return Moments(pictures, taken, gaps, PLANS, np.array([False, True, True]), ages)


class Knowing(PlanReader):
    """Holds the plan of a moment's own number for deadly, or with `wrong` for the only safe one."""

    def __init__(self, wrong: bool) -> None:
        super().__init__(CONFIG, SHAPE, 3)
        self.wrong = wrong

    def forward(self, pictures: Tensor, taken: Tensor, planned: Tensor) -> Tensor:
        own = planned[:, :, 0].argmax(-1) == pictures[:, 0, 0, 0, :1]  # (B, P)
        return torch.where(own != self.wrong, 5.0, -5.0)[..., None].expand(-1, -1, planned.shape[2])


def test_who_knows_the_deadly_plan_picks_another(tmp_path: Path) -> None:
    save(three_moments(), tmp_path / "deep" / "moments.npz")
    kept = load(tmp_path / "deep" / "moments.npz")
    knows = ask(Knowing(wrong=False), kept, spec())
    assert knows == pytest.approx({"order": 1, "order_running": 1, "pick": 0, "pick_random": 1 / 3})
    assert ask(Knowing(wrong=True), kept, spec())["pick"] == 1


def test_a_reader_is_shown_its_own_ages_and_newest_actions() -> None:
    pictures, taken = three_moments().of(replace(CONFIG, ages=[4, 0], actions_before=1))
    assert pictures[2, :, 0, 0, 0].tolist() == [42, 2]
    assert taken[1].tolist() == [[9, 10, 11]]
    for changed in ({"ages": [0, 2]}, {"actions_before": 3}):
        with pytest.raises(UserError, match=r"ages \[0, 1, 4\] and 2 actions"):
            three_moments().of(replace(CONFIG, **changed))
