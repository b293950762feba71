from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from tests.evaluation.worlds import ColumnEnv, Oracle
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.branches import Branches, draw_moments, draw_sequences, play_branches
from worldsim.evaluation.extra_metrics import SETS, frechet_distances, vmaf_over_horizon
from worldsim.evaluation.horizons import draw_dreams
from worldsim.evaluation.stretches import draw_stretches
from worldsim.evaluation.vmaf import has_vmaf
from worldsim.evaluation.world_pictures import branch_names, branch_picture, drift_picture, horizon_picture


def test_frames_stand_under_their_steps_and_what_is_not_there_stays_empty(store: EpisodeStore) -> None:
    model = cast(Any, Oracle())
    stretches = draw_stretches(store, 6, horizon=32, context_frames=3)
    draws = draw_dreams(model, stretches, 2)
    picture = horizon_picture(model, stretches, draws, (1, 4, 32), starts=1)
    # Four rows of three pictures of 16 pixels, six times enlarged: reality and the oracle's dreams are the same.
    rows = np.split(picture[-(4 * 96 + 3 * 4) :][np.r_[0:96, 100:196, 200:296, 300:396]], 4)
    assert all(np.array_equal(rows[0][:, -304:], row[:, -304:]) for row in rows)
    assert rows[0][:, -304:].max() == 200  # the column


def test_branches_are_shown_at_the_last_step_that_all_reach(store: EpisodeStore) -> None:
    moments = draw_moments(store, 8, longest_prefix=6)
    real, _ = play_branches(ColumnEnv, store, moments, draw_sequences(store, len(moments), 8))
    assert branch_names(store.spec, real.actions)[:3] == [f"all {name}" for name in store.spec.action_meanings]
    assert len(branch_names(store.spec, real.actions)) == real.actions.shape[1]
    picture = branch_picture(store.spec, real, real, moments=2)
    assert picture is not None
    nowhere = Branches(real.actions, real.frames, np.zeros_like(real.present), real.returns)
    assert branch_picture(store.spec, nowhere, nowhere) is None


def test_a_long_dream_is_shown_from_its_first_to_its_last_frame(store: EpisodeStore) -> None:
    frames = np.zeros((10, 16, 16, 3), np.uint8)
    frames[0], frames[-1] = 90, 210
    picture = drift_picture(store.spec, frames, list(range(1, 11)), columns=3)
    assert (picture == 90).any()
    assert (picture == 210).any()


def test_distances_are_of_the_frames_that_the_dream_should_show(store: EpisodeStore) -> None:
    model = cast(Any, Oracle())
    stretches = draw_stretches(store, 24, horizon=10, context_frames=3)
    draws = draw_dreams(model, stretches, 1)
    sets: list[int] = []
    result = frechet_distances(
        model,
        lambda frames: frames[:, 0, :, 0].float(),
        store,
        stretches,
        draws.dreams[0],
        most_frames=40,
        on_set=sets.append,
    )
    assert set(result) == {"frames", "near"}  # no episode is long enough for the far ones
    assert result["frames"] == 40
    assert result["near"]["dream"] == result["near"]["real"] == result["near"]["tokenizer"]
    assert sum(sets) == 4 < SETS


@pytest.mark.skipif(not has_vmaf(), reason="this ffmpeg has no libvmaf")
def test_vmaf_of_one_who_knows_the_world_is_that_of_the_tokenizer(store: EpisodeStore) -> None:
    model = cast(Any, Oracle())
    stretches = draw_stretches(store, 3, horizon=4, context_frames=3)
    latents = draw_dreams(model, stretches, 1).dreams[0]
    result = vmaf_over_horizon(model, stretches, latents, (1, 4, 64), most_clips=2)
    assert result["horizons"] == [1, 4]
    assert result["dream"] == result["tokenizer"]
    assert result["copy_last"][1] < result["dream"][1]
