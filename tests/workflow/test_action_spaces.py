"""The whole way, from collection to the verdict, with actions of several parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.workflow.whole_runs import SMALL
from worldsim.config import load_config
from worldsim.data.store import EpisodeStore
from worldsim.dream import DreamVectorEnv
from worldsim.workflow.config import RunConfig
from worldsim.workflow.run import run
from worldsim.workflow.world_report import evaluate_world


@pytest.mark.slow
@pytest.mark.parametrize("binary", [False, True])
def test_actions_of_several_parts_go_the_whole_way(binary: bool, repository: Path, tmp_path: Path) -> None:
    settings = ["env.id=tests.levers:Levers-v0", f"env.kwargs.binary={binary}", "env.max_episode_tics=60"]
    config = load_config(
        RunConfig, repository / "configs" / "debug.yaml", [*settings, "collect.mirror_actions=[]", "threads=1"]
    )
    verdict = run(config, tmp_path / "run", lambda message: None)
    assert verdict is not None
    assert verdict["agent"]["episodes"] == 4
    assert np.array(verdict["baselines"]["best_constant"]["actions"]).shape == (1, 3)

    store = EpisodeStore.open(tmp_path / "run" / "episodes")
    for i in range(len(store)):
        episode = store[i]
        assert episode.actions.dtype == np.int64
        # The frame after an action shows it, and its reward is its sum: nothing has shifted on the way to the disk.
        shown = (episode.frames[1:, :, 8::16, 0] > 127).sum(1)
        np.testing.assert_array_equal(shown // 5, episode.actions)
        np.testing.assert_array_equal(episode.actions.sum(1), episode.rewards)

    rows = DreamVectorEnv(tmp_path / "run" / "round-01" / "world_model", 2)
    rows.reset(seed=0)
    assert rows.observation_space.contains(rows.step(rows.action_space.sample())[0])

    report = evaluate_world(tmp_path / "run", tmp_path / "report", episodes=2, seed=0, effort=SMALL)
    assert "effects" in report["obedience"]
