from __future__ import annotations

import json
import math
from typing import Any, cast

import numpy as np
import pytest

from tests.evaluation.worlds import BlindOracle, Oracle
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.image_quality import MAX_PSNR
from worldsim.evaluation.world import measure_world, one_step_calibration, psnr
from worldsim.world_model import WorldModel


def test_psnr_by_hand() -> None:
    black = np.zeros((2, 4, 4, 3), np.uint8)
    assert psnr(black, black) == MAX_PSNR
    assert psnr(black, black + np.uint8(255)) == pytest.approx(0)
    assert psnr(black, black + np.uint8(1)) == pytest.approx(20 * math.log10(255))


def test_one_who_knows_the_world_makes_no_error(store: EpisodeStore) -> None:
    measured = measure_world(cast(Any, Oracle()), store, starts=50)
    for k in (1, 2, 4, 8, 16):
        # A single action or frame out of step would show here.
        assert measured[f"psnr_dream_{k}"] == MAX_PSNR
        assert measured[f"psnr_tokenizer_{k}"] == MAX_PSNR
        assert measured[f"psnr_copy_{k}"] < 30
    assert measured["starts_1"] == 50 > measured["starts_16"] > 0
    assert measured["latent_error"] == 0
    assert measured["latent_error_shuffled"] > 1e-3
    assert measured["action_shuffle_ratio"] > 1000
    assert measured["termination_auroc"] == 1
    assert measured["hazard_predicted"] == measured["hazard_observed"] > 0
    assert measured["reward_error"] == 0
    assert measured["calibration_steps"] == store.lengths[store.indices("held_out")].sum()


def test_one_who_ignores_actions_is_found_out(store: EpisodeStore) -> None:
    measured = measure_world(cast(Any, BlindOracle()), store, starts=50)
    assert measured["action_shuffle_ratio"] == 1
    assert measured["psnr_dream_4"] == measured["psnr_copy_4"]
    assert measured["psnr_dream_4"] < measured["psnr_tokenizer_4"]


def test_calibration_stops_at_its_limit(store: EpisodeStore) -> None:
    held_out = store.lengths[store.indices("held_out")]
    measured = one_step_calibration(cast(Any, Oracle()), store, max_steps=30, rows_at_once=2)
    assert 30 <= measured["calibration_steps"] < 30 + held_out.max()


def test_a_real_world_model_is_measured(model: WorldModel, store: EpisodeStore) -> None:
    measured = measure_world(model, store, starts=6, horizons=(1, 4), calibration_steps=60)
    assert all(type(value) is float and math.isfinite(value) for value in measured.values())
    assert measured["psnr_tokenizer_4"] > 45  # patches of pixels lose next to nothing
    assert 0 < measured["hazard_predicted"] < 1
    assert 0 <= measured["termination_auroc"] <= 1
    assert measured == measure_world(model, store, starts=6, horizons=(1, 4), calibration_steps=60)
    json.dumps(measured)
