"""Dreams become as dangerous as reality, no more and no less."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from tests.evaluation.worlds import Oracle, OracleState
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.temperature import TEMPERATURES, calibrate_temperature
from worldsim.world_state import DreamStep


class Kind(Oracle):
    """Dreams in which the hazard of every step is `hazard` times the temperature."""

    def __init__(self, hazard: float) -> None:
        self.hazard = hazard
        self.asked: set[float] = set()

    def step(
        self, state: OracleState, actions: Tensor, *, temperature: float | None = None
    ) -> tuple[OracleState, DreamStep]:
        assert temperature is not None
        self.asked.add(temperature)
        state, step = super().step(state, actions)
        return state, replace(step, termination_probability=torch.full(actions.shape, self.hazard * temperature))


def observed_rate(store: EpisodeStore) -> float:
    return sum(float(store.steps(i)["terminated"].sum()) for i in range(len(store))) / float(store.lengths.sum())


@pytest.mark.parametrize("needed", [0.5, 1.0, 1.3, 2.2, 3.0])
def test_the_temperature_that_is_deadly_enough(store: EpisodeStore, needed: float) -> None:
    rate = observed_rate(store)
    model = Kind(rate / needed * 1.001)
    found = calibrate_temperature(cast(Any, model), store, starts=20, horizon=4)
    assert found.temperature == pytest.approx(max(needed, TEMPERATURES[0]), abs=0.006)
    assert found.hazard_observed == pytest.approx(rate)
    assert found.hazard_dreamt == pytest.approx(model.hazard * found.temperature)
    assert len(model.asked) <= 6


def test_a_dream_without_danger_gets_the_highest(store: EpisodeStore) -> None:
    found = calibrate_temperature(cast(Any, Kind(0.0)), store, starts=20, horizon=4)
    assert found.temperature == TEMPERATURES[-1]
    assert found.hazard_dreamt == 0
