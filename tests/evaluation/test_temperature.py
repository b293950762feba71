"""Dreams become as dangerous as reality, no more and no less."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from tests.evaluation.worlds import Oracle, OracleState
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.stretches import pictured_frames, read_stretches
from worldsim.evaluation.temperature import TEMPERATURES, calibrate_temperature, dreamt_hazard, observed_hazard
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


@pytest.mark.parametrize("needed", [0.5, 1.0, 1.3, 2.2, 3.0])
def test_the_temperature_that_is_deadly_enough(store: EpisodeStore, needed: float) -> None:
    rate = observed_hazard(store, 4)
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


@pytest.mark.parametrize("horizon", [1, 4, 32])
def test_a_perfect_dream_ends_as_often_as_reality(store: EpisodeStore, horizon: int) -> None:
    """From every moment once, along the recorded actions: reality's own rate, the fatal steps among the others."""
    moments = [(i, t) for i in range(len(store)) for t in range(pictured_frames(store, i) - 1)]
    stretches = read_stretches(store, moments, horizon=horizon, context_frames=2)
    dreamt = dreamt_hazard(cast(Any, Oracle()), stretches, 1.0)
    assert dreamt == pytest.approx(observed_hazard(store, horizon))
    assert (dreamt > 0) == (horizon > 1), "the last moment before a blank frame begins no stretch"
