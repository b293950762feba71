"""What is asked of a whole run, whatever tokenizer, dynamics and agent its config names."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.commands import Stop, command
from worldsim.cli import main
from worldsim.workflow.world_report import Effort

# A judgement of a dream that takes seconds.
SMALL = Effort(
    starts=16,
    draws=2,
    longest=8,
    watched_steps=60,
    replays=6,
    windows=100,
    inverse_updates=5,
    window_steps=4,
    moments=3,
    branch_steps=6,
    probe_frames=200,
    drift_rows=2,
    drift_lengths=2,
)


def weights(run: Path) -> dict[str, bytes]:
    """Every file of weights, by its path in the run."""
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.safetensors"))}


def run_debug(config: str, folder: Path) -> Path:
    """`worldsim run CONFIG`, never interrupted; returns the run's folder."""
    outcome = command("run", config, "threads=1", "--folder", folder / "run", log=folder / "log")
    assert outcome.code == 0, outcome.errors
    return folder / "run"


def check_reached_a_verdict(run: Path) -> None:
    verdict = json.loads((run / "verdict.json").read_text())
    assert verdict["agent"]["episodes"] == 4
    assert verdict["action_shuffle_ratio"] > 0
    assert {path.name for path in (run / "videos").iterdir()} >= {"grid.png", "long_dream.mp4", "agent_real.mp4"}


def check_killed_it_ends_with_the_same_weights(
    config: str, kills: Sequence[Stop], finished: Path, folder: Path
) -> None:
    """Killed at each of `kills`, one after the other, and then left alone."""
    run = folder / "run"
    arguments = ["train", config, "threads=1", "checkpoint_seconds=0", "--folder", run]
    for stop in kills:
        outcome = command(*arguments, log=folder / "log", stop=stop)
        assert outcome.code == -signal.SIGKILL, f"not killed at {stop}: {outcome.errors}"
    outcome = command(*arguments, log=folder / "log")
    assert outcome.code == 0, outcome.errors
    assert weights(run) == weights(finished)


def check_refused(config: str, setting: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, and before anything is written."""
    assert main(["run", config, setting, "threads=1", "--folder", str(folder / "run")]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not (folder / "run").exists()
