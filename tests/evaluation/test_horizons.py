from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch

from tests.evaluation.worlds import BlindOracle, Oracle
from tests.worlds import tiny_world
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.horizons import (
    FEWEST_STARTS,
    HORIZONS,
    action_shuffle_ratio,
    draw_dreams,
    quality_over_horizon,
)
from worldsim.evaluation.image_quality import MAX_PSNR
from worldsim.evaluation.stretches import draw_stretches


def measured(model: Any, store: EpisodeStore) -> tuple[dict[str, Any], float]:
    stretches = draw_stretches(store, 40, horizon=64, context_frames=4)
    draws = draw_dreams(model, stretches, 2)
    return quality_over_horizon(model, stretches, draws), action_shuffle_ratio(model, stretches, draws)


def test_one_who_knows_the_world_is_perfect_as_far_as_episodes_go(store: EpisodeStore) -> None:
    quality, ratio = measured(cast(Any, Oracle()), store)
    reached = quality["horizons"]
    assert tuple(reached) == HORIZONS[: len(reached)]
    assert 8 in reached
    assert 64 not in reached  # episodes have 40 steps at most
    assert quality["starts"] == sorted(quality["starts"], reverse=True)
    assert quality["starts"][-1] >= FEWEST_STARTS
    assert quality["psnr"]["dream_mean"] == pytest.approx([MAX_PSNR] * len(reached))
    assert quality["ssim"]["dream_best"] == pytest.approx([1] * len(reached), abs=1e-5)
    assert set(quality["moving_error"]["dream_mean"]) == {0}
    assert quality["moving_error"]["copy_last"][0] > 100  # the column has moved on
    assert quality["better_than_copy_until"] == reached[-1]
    assert quality["moving_error"]["shuffled"][2] > 0
    assert ratio > 1000


def test_one_who_ignores_actions_is_no_better_than_a_copy(store: EpisodeStore) -> None:
    quality, ratio = measured(cast(Any, BlindOracle()), store)
    assert ratio == 1
    assert quality["psnr"]["dream_mean"] == quality["psnr"]["copy_last"] == quality["psnr"]["shuffled"]
    assert quality["better_than_copy_until"] == 0


def test_the_best_of_several_draws_is_never_worse_than_their_mean(store: EpisodeStore) -> None:
    model = tiny_world()
    stretches = draw_stretches(store, 20, horizon=4, context_frames=4)
    draws = draw_dreams(model, stretches, 3)
    assert not torch.equal(draws.dreams[0], draws.dreams[1])
    quality = quality_over_horizon(model, stretches, draws, (1, 4))
    for name in ("psnr", "ssim"):
        assert quality[name]["dream_best"] > quality[name]["dream_mean"]
    assert quality["moving_error"]["dream_best"] < quality["moving_error"]["dream_mean"]
    assert all(math.isfinite(value) for value in quality["moving_error"]["dream_mean"])
