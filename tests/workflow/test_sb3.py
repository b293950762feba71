"""Stable-Baselines3 in a run's dream, judged like the run's own agent."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("stable_baselines3", reason='pip install "worldsim-rl[sb3]"')


@pytest.mark.slow
def test_its_verdict_has_the_form_of_ours(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import sb3_take_cover

    command = ["--model", str(finished_run), "--episodes", str(finished_run / "episodes"), "--out", str(tmp_path)]
    command += [
        "--time-steps",
        "32",
        "--envs",
        "4",
        "--horizon",
        "4",
        "--batch-size",
        "8",
        "--real-episodes",
        "3",
        "--workers",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", ["sb3_take_cover", *command])
    sb3_take_cover.main()
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    own = json.loads((finished_run / "verdict.json").read_text())
    assert set(own) - {"judged"} <= set(verdict)
    assert set(verdict["baselines"]) == set(own["baselines"])
    assert verdict["agent"]["episodes"] == verdict["dream"]["episodes"] == 3
    assert verdict["time_steps"] == 32
    first = (tmp_path / "ppo.zip").read_bytes()
    sb3_take_cover.main()  # judges again what it has learned already
    assert (tmp_path / "ppo.zip").read_bytes() == first
    again = json.loads((tmp_path / "verdict.json").read_text())
    assert again["agent"] == verdict["agent"]
