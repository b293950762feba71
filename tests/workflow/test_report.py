"""A report gathers what lies in a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.worlds import tiny_world
from worldsim.errors import UserError
from worldsim.model_folder import save_model
from worldsim.workflow.report import report


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two rounds with curves, a captions file and no videos."""
    save_model(tiny_world(), tmp_path / "round-01" / "world_model")
    (tmp_path / "config.json").write_text(json.dumps({"seed": 0, "agent": {"gamma": 0.99}}))
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "captions.json").write_text("{}")
    lines = [json.dumps({"step": step, "seconds": 1.0, "loss": 1 / step, "other": step}) for step in (1, 2, 4)]
    for name in ("tokenizer", "round-00/dynamics", "round-01/dynamics"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 5, "lo')  # as a kill leaves it
    return tmp_path


def test_curves_of_all_rounds_share_a_chart(run: Path) -> None:
    text = report(run, run / "round-01" / "world_model", run).read_text()
    assert text.count("<svg") == 4  # loss and other, of the tokenizer and of the dynamics
    assert text.count("<polyline") == 2 * (1 + 2)
    assert text.index("Training: dynamics") < text.index("All other curves: dynamics")
    assert "loss over steps. round 00: 1 to 0.25; round 01: 1 to 0.25." in text
    assert "agent.gamma" in text
    assert "seconds over" not in text
    assert "Training: agent" not in text


def test_the_same_run_gives_the_same_page(run: Path) -> None:
    first = report(run, run / "round-01" / "world_model", run).read_bytes()
    assert report(run, run / "round-01" / "world_model", run).read_bytes() == first


def test_a_model_shows_what_it_says_of_itself(run: Path) -> None:
    text = report(run, run / "round-01" / "world_model", None, ["its env (not installed)"]).read_text()
    assert "random weights" in text
    assert "Not shown: its env (not installed)." in text


def test_without_videos_there_is_nothing_to_report(run: Path) -> None:
    (run / "videos" / "captions.json").unlink()
    with pytest.raises(UserError, match="cannot read what to report"):
        report(run, run / "round-01" / "world_model", run)


@pytest.mark.parametrize("name", ["verdict.json", "config.json"])
def test_damage_is_told(run: Path, name: str) -> None:
    (run / name).write_text('{"agent": ')
    with pytest.raises(UserError, match=f"{name} is not JSON"):
        report(run, run / "round-01" / "world_model", run)
