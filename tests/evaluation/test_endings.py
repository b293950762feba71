from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from tests.evaluation.worlds import CAP, Oracle
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.endings import Replays, compare_replays, kaplan_meier, replay_episodes, score_heads
from worldsim.evaluation.world import ObservedSteps, observed_steps


def test_kaplan_meier_by_hand() -> None:
    # Four episodes: one dies at step 1, one is cut after step 2, one dies at step 3, one goes on.
    survival, spread = kaplan_meier([1, 2, 3, 5], np.array([True, False, True, False]), 4)
    assert survival.tolist() == pytest.approx([3 / 4, 3 / 4, 3 / 8, 3 / 8])
    assert spread[0] == pytest.approx((0.75 * 0.25 / 4) ** 0.5)  # Greenwood's formula is the binomial one at first


def test_a_calibrated_hazard_has_no_error_and_an_inflated_one_has_its_inflation() -> None:
    random = np.random.default_rng(0)
    hazard = random.choice([0.1, 0.5], 100_000)
    terminated = random.random(100_000) < hazard
    reward = np.ones(100_000)
    true = score_heads(ObservedSteps(hazard, reward, reward, terminated), bins=2)
    assert true["calibration_error"] < 0.01
    assert [row["observed"] for row in true["bins"]] == pytest.approx([0.1, 0.5], abs=0.01)
    inflated = score_heads(ObservedSteps(hazard + 0.3, reward + 2, reward, terminated))
    assert inflated["calibration_error"] == pytest.approx(0.3, abs=0.02)
    assert inflated["termination_auroc"] == pytest.approx(true["termination_auroc"])
    assert inflated["reward_error"] == 2
    assert inflated["reward_error_of_a_constant"] == 0


def test_the_oracle_replays_every_episode_to_its_own_end(store: EpisodeStore) -> None:
    replays = replay_episodes(cast(Any, Oracle()), store, count=100, steps=30)
    kept = store.indices("held_out")
    assert 0 < len(replays.lengths) <= len(kept)
    assert replays.dreamt_returns == pytest.approx(replays.real_returns)
    compared = compare_replays(replays)
    assert compared["survival_predicted"] == pytest.approx(compared["survival_observed"])
    assert compared["survival_observed"][-1] < 1
    assert compared["return_correlation"] == pytest.approx(1)
    assert compared["return_error"] == pytest.approx(0, abs=1e-9)
    assert compared["return_error_of_the_mean"] > 1


def test_the_expected_return_pays_as_long_as_the_dream_goes_on() -> None:
    replays = Replays(
        np.array([[0.5, 0.5, 0.0]]), np.array([[1.0, 1.0, 4.0]]), np.array([3]), np.array([True]), np.array([6.0])
    )
    assert replays.dreamt_returns.tolist() == [1 + 0.5 + 0.25 * 4]


def test_episodes_that_were_cut_tell_of_the_steps_before() -> None:
    # One dies at step 2, two are cut after step 1, one goes on; every dream ends with one half at step 2.
    hazards = np.tile([0.0, 0.5, 0.0], (4, 1))
    replays = Replays(
        hazards,
        np.ones((4, 3)),
        np.array([2, 1, 1, 3]),
        np.array([True, False, False, False]),
        np.array([2.0, 1.0, 1.0, 3.0]),
    )
    compared = compare_replays(replays)
    assert compared["survival_observed"] == pytest.approx([1, 0.5, 0.5])
    assert compared["survival_predicted"] == pytest.approx([1, 0.5, 0.5])
    assert replays.dreamt_returns.tolist() == [2.5, 1, 1, 2.5]


def test_the_oracle_survives_as_reality_where_the_cap_comes_before_the_last_step(store: EpisodeStore) -> None:
    replays = replay_episodes(cast(Any, Oracle()), store, count=100, steps=64)
    assert replays.hazards.shape[1] == CAP < 64  # beyond it dreams would earn what no episode can
    assert len(replays.lengths) == len(store.indices("held_out"))
    compared = compare_replays(replays)
    assert compared["survival_observed"][CAP - 1] > 0.2
    assert compared["survival_predicted"] == pytest.approx(compared["survival_observed"])
    assert replays.dreamt_returns == pytest.approx(replays.real_returns)


def test_heads_are_scored_on_watched_episodes(store: EpisodeStore) -> None:
    seen = observed_steps(cast(Any, Oracle()), store)
    assert seen is not None
    scored = score_heads(seen)
    assert scored["steps"] == store.lengths[store.indices("held_out")].sum()
    assert scored["termination_auroc"] == 1
    assert scored["reward_error"] == scored["calibration_error"] == 0
