"""Runs on episodes that were brought along."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.commands import command
from tests.data.counting import assert_same
from tests.workflow.whole_runs import SMALL
from worldsim.cli import main
from worldsim.config import load_config, resolve_config_path
from worldsim.data.collection import reset_options
from worldsim.data.export_episodes import export_npz
from worldsim.data.import_episodes import import_episodes
from worldsim.data.recordings import ImportSettings
from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError
from worldsim.workflow.config import RunConfig
from worldsim.workflow.run import run
from worldsim.workflow.sources import take_episodes
from worldsim.workflow.world_report import evaluate_world

pytestmark = pytest.mark.timeout(1200)


def recordings(finished_run: Path, folder: Path) -> Path:
    """The episodes of a run as somebody else's: scaled, so that no env of ours shows such frames."""
    npz = export_npz(EpisodeStore.open(finished_run / "episodes"), folder / "npz", progress=False)
    import_episodes(npz, folder / "episodes", ImportSettings(size=(8, 24)), progress=False)
    return folder / "episodes"


def test_recordings_without_an_env_end_with_a_world_model(finished_run: Path, tmp_path: Path) -> None:
    source = recordings(finished_run, tmp_path)
    folder = tmp_path / "run"
    arguments = ("run", "debug", f"collect.source={source}", "threads=1", "tokenizer.merge=[1,1]", "--folder", folder)
    outcome = command(*arguments, log=tmp_path / "log")
    assert outcome.code == 0, outcome.errors
    assert "no real env" in outcome.output
    assert (folder / "round-00" / "world_model" / "dynamics.safetensors").exists()
    assert not (folder / "round-00" / "agent").exists()
    learned = (folder / "round-00" / "plans" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(learned[-1])["step"] == 4  # all of plans.steps: no round is to come
    assert not (folder / "verdict.json").exists()
    taken = EpisodeStore.open(folder / "episodes")
    assert {one.round for one in taken} == {0}
    assert taken.total_tics() == EpisodeStore.open(source).total_tics()
    weights = (folder / "round-00" / "world_model" / "dynamics.safetensors").read_bytes()
    assert command(*arguments, log=tmp_path / "log").code == 0  # finds everything done
    assert (folder / "round-00" / "world_model" / "dynamics.safetensors").read_bytes() == weights
    dream = command("dream", folder, "--random", "--steps", "3", "--out", tmp_path / "dream.mp4", log=tmp_path / "log")
    assert dream.code == 0, dream.errors

    model = folder / "round-00" / "world_model"
    pictures = command("render", model, "--out", tmp_path / "pictures", log=tmp_path / "log")
    assert pictures.code == 0, pictures.errors
    assert "not shown: real episodes" in pictures.output
    with pytest.raises(UserError, match=r"made from recordings.*give the folder of its run"):
        evaluate_world(model, tmp_path / "report", episodes=2, seed=0, effort=SMALL)
    report = evaluate_world(folder, tmp_path / "report", episodes=2, seed=0, effort=SMALL)
    assert any(note.startswith("No effects and no regret") for note in report["notes"])
    assert report["probes"] == {}


def test_episodes_of_the_same_env_replace_round_0(finished_run: Path, tmp_path: Path) -> None:
    source = finished_run / "episodes"
    config = load_config(RunConfig, resolve_config_path("debug"), [f"collect.source={source}", "threads=1"])
    run(config, tmp_path / "run", print, until="collect")
    taken, given = EpisodeStore.open(tmp_path / "run" / "episodes"), EpisodeStore.open(source)
    assert taken.spec == given.spec
    assert len(taken.played()) == len(given.played()) < len(given)
    assert_same(taken[int(taken.played()[0])], given[int(given.played()[0])])
    with taken.writer("round00-source") as writer:
        assert len(writer.entries) == len(given.played())
    run(config, tmp_path / "run", print, until="collect")
    assert len(EpisodeStore.open(tmp_path / "run" / "episodes")) == len(taken)


def test_episodes_are_replayed_from_where_they_began(finished_run: Path, tmp_path: Path) -> None:
    source = EpisodeStore.open(shutil.copytree(finished_run / "episodes", tmp_path / "episodes"))
    plan = source.folder / "round00.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"reset_options": {"low": -0.2, "high": 0.2}}))
    taken = take_episodes(source, tmp_path / "run", "none")
    assert reset_options(taken, 0) == {"low": -0.2, "high": 0.2}


def test_a_source_that_does_not_fit(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = finished_run / "episodes"
    for arguments, expected in (
        ((f"collect.source={source}", "env.frame_skip=2"), "env.frame_skip"),
        ((f"collect.source={tmp_path / 'none'}",), "no episode store"),
    ):
        assert main(["run", "debug", *arguments, "--folder", str(tmp_path / "run")]) == 2
        assert expected.removeprefix("env.") in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_a_run_keeps_to_its_source(finished_run: Path, tmp_path: Path) -> None:
    given = EpisodeStore.open(finished_run / "episodes")
    first, second = given.played()[:2].tolist()
    other = EpisodeStore.create(tmp_path / "other", given.spec)
    with other.writer("a") as writer:
        writer.append(given[second])
        writer.append(given[first])
    path = resolve_config_path("debug")
    for source in (tmp_path / "other", finished_run / "episodes"):
        config = load_config(RunConfig, path, [f"collect.source={source}", "collect.held_out_fraction=0.5"])
        (tmp_path / "run" / "config.json").unlink(missing_ok=True)
        if source == tmp_path / "other":
            assert {given[first].split, given[second].split} == {"train", "held_out"}
            run(config, tmp_path / "run", print, until="collect")
        else:
            with pytest.raises(UserError, match="other episodes"):
                run(config, tmp_path / "run", print, until="collect")
