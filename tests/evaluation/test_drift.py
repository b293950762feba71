from __future__ import annotations

import mmap
import sys
from typing import Any, cast

import pytest
import torch

from tests.evaluation.worlds import Oracle
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.drift import measure_drift, resident_megabytes, sharpness
from worldsim.evaluation.stretches import draw_stretches


def test_sharpness_by_hand() -> None:
    flat = torch.full((2, 4, 4, 3), 90, dtype=torch.uint8)
    assert sharpness(flat) == 0
    striped = flat.clone()
    striped[:, :, ::2] = 100  # neighbours differ by 10 across, by nothing down
    assert sharpness(striped) == pytest.approx(5)


def test_a_dream_of_real_frames_does_not_drift(store: EpisodeStore) -> None:
    stretches = draw_stretches(store, 8, horizon=12, context_frames=3)
    drift, frames = measure_drift(cast(Any, Oracle()), stretches, 100)
    assert len(frames) == len(drift["steps_measured"])
    assert (frames.max((1, 2, 3)) == 200).all()  # the column is always there
    assert drift["steps_measured"][0] == 1
    assert drift["steps_measured"][-1] == 100
    assert drift["round_trip"] == pytest.approx([0] * len(drift["steps_measured"]), abs=1e-6)
    assert drift["real"]["round_trip"] == pytest.approx(0, abs=1e-6)
    # Every frame of this world is one column on a dark ground, at the edge or not.
    assert drift["latent_rms"] == pytest.approx([drift["real"]["latent_rms"]] * len(drift["latent_rms"]), rel=0.01)
    assert min(drift["sharpness"]) > 0.4 * drift["real"]["sharpness"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_memory_is_that_of_this_process() -> None:
    before = resident_megabytes()
    with mmap.mmap(-1, 120_000_000) as kept:  # a tensor might get memory that another test has freed
        kept.write(b"1" * len(kept))
        after = resident_megabytes()
    assert before is not None
    assert after is not None
    assert 80 < after - before < 300
