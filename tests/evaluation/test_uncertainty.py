"""Uncertainty one step after real moments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.evaluation.worlds import Oracle, OracleState, picture
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.uncertainty import LEVELS, Uncertainty, measure_uncertainty
from worldsim.world_state import DreamStep


class Doubtful(Oracle):
    """Dreams something else where the column comes to a third of its places, and says so."""

    def step(
        self, state: OracleState, actions: Tensor, *, temperature: float | None = None
    ) -> tuple[OracleState, DreamStep]:
        state, step = super().step(state, actions)
        doubtful = state.position % 3 == 0
        wrong = self.encode(torch.from_numpy(np.stack([picture(0 if int(at) else 1) for at in state.position])))
        latents = torch.where(doubtful[:, None, None], wrong, step.latents)
        return state, replace(step, latents=latents, uncertainty=doubtful.float())


def test_quantiles_and_auroc_by_hand() -> None:
    errors = np.arange(100.0)
    assert Uncertainty(2 * errors, errors).auroc == 1
    assert Uncertainty(-errors, errors).auroc == 0
    assert Uncertainty(np.ones(100), errors).auroc == 0.5
    assert Uncertainty(errors, np.ones(100)).auroc is None
    quantiles = Uncertainty(np.arange(101.0), np.zeros(101)).quantiles
    assert quantiles == pytest.approx({level: 100 * level for level in LEVELS})


def test_each_step_is_compared_with_its_own_frame(store: EpisodeStore) -> None:
    assert not measure_uncertainty(cast(Any, Oracle()), store, starts=40).errors.any()
    found = measure_uncertainty(cast(Any, Doubtful()), store, starts=100, rows_at_once=16)
    assert 0.1 < (found.errors > 0).mean() < 0.5
    np.testing.assert_array_equal(found.values > 0, found.errors > 0)
    assert found.auroc == 1
