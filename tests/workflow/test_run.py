"""The main job at debug scale, from a real env to a verdict."""

from __future__ import annotations

import hashlib
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from tests.commands import command
from tests.videos import read_events, read_video
from worldsim.cli import main
from worldsim.data.files import lock
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.pictures import write_pictures
from worldsim.workflow import showing
from worldsim.workflow.run import LOCK

pytestmark = pytest.mark.timeout(1200)  # seconds of work, but on a busy machine they last

TIMES = ("seconds.json", "events.out")  # what a second run may change


@pytest.fixture(scope="module")
def verdict(finished_run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((finished_run / "verdict.json").read_text())
    return content


@pytest.fixture
def copied_run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def fingerprints(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(TIMES)]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def check_score(score: dict[str, Any], episodes: int) -> None:
    assert score["episodes"] == len(score["returns"]) == len(score["seeds"]) == len(set(score["seeds"])) == episodes
    assert score["mean"] == pytest.approx(np.mean(score["returns"]))
    low, high = score["ci95"]
    assert low <= score["mean"] <= high


def test_the_verdict_says_everything(verdict: dict[str, Any]) -> None:
    assert verdict["env_id"] == "CartPole-v1"
    blind = {"random", "sticky_random", "best_constant", "best_blind"}
    assert set(verdict["baselines"]) == blind | {"shuffled_observations"}
    for score in (verdict["agent"], verdict["dream"], *verdict["baselines"].values()):
        check_score(score, episodes=4)
    assert verdict["action_shuffle_ratio"] > 0
    assert verdict["real_tics"] == 700
    assert verdict["real_steps"] == 700
    assert {"worldsim", "torch", "gymnasium", "numpy", "python"} <= set(verdict["versions"])


def test_every_stage_has_its_seconds(verdict: dict[str, Any]) -> None:
    rounds = [f"round {n}: {stage}" for n in (0, 1) for stage in ("collect", "encode", "dynamics", "agent")]
    assert {*rounds, "tokenizer", "round 1: distillation", "evaluate"} <= set(verdict["seconds"])
    assert "round 0: distillation" not in verdict["seconds"]
    assert all(seconds > 0 for seconds in verdict["seconds"].values())


def test_evaluation_seeds_were_never_used_before(finished_run: Path, verdict: dict[str, Any]) -> None:
    collected = {entry.seed for entry in EpisodeStore.open(finished_run / "episodes").entries}
    tuned = set(verdict["baselines"]["best_blind"]["tuning_seeds"])
    evaluated = set(verdict["agent"]["seeds"])
    assert not evaluated & collected
    assert not evaluated & tuned
    assert not tuned & collected
    assert all(set(score["seeds"]) == evaluated for score in verdict["baselines"].values())


def test_the_videos_have_every_frame(finished_run: Path, verdict: dict[str, Any]) -> None:
    videos = finished_run / "videos"
    assert len(read_video(videos / "long_dream.mp4")) == 501
    agent = verdict["agent"]
    shown = sorted(agent["returns"])[(agent["episodes"] - 1) // 2]  # CartPole pays 1 a step
    assert len(read_video(videos / "agent_real.mp4")) == shown + 1
    assert len(read_video(videos / "real_beside_dream.mp4")) > 6
    assert (videos / "grid.png").stat().st_size > 0


@pytest.mark.parametrize("observation", ["pixels", "features"])
def test_the_world_model_is_an_environment(finished_run: Path, observation: str) -> None:
    model = str(finished_run / "round-01" / "world_model")
    env = gymnasium.make("worldsim:worldsim/Dream-v0", model=model, observation=observation)
    first, _ = env.reset(seed=0)
    assert env.observation_space.contains(first)
    second, reward, *_ = env.step(1)
    assert env.observation_space.contains(second)
    assert np.isfinite(float(reward))
    rows = gymnasium.make_vec(
        "worldsim:worldsim/Dream-v0", num_envs=3, vectorization_mode="vector_entry_point", model=model
    )
    observations, _ = rows.reset(seed=0)
    assert rows.observation_space.contains(observations)


def test_a_rerun_changes_nothing(copied_run: Path, tmp_path: Path) -> None:
    before = fingerprints(copied_run)
    again = ["run", "debug", "threads=1", "--folder", copied_run]
    outcome = command(*again, log=tmp_path / "log")
    assert outcome.code == 0, outcome.errors
    assert fingerprints(copied_run) == before
    assert "random" in outcome.output  # the verdict is shown again


def test_lost_pictures_are_made_again(copied_run: Path, tmp_path: Path) -> None:
    before = fingerprints(copied_run)
    (copied_run / "videos" / "agent_real.mp4").unlink()
    outcome = command("run", "debug", "threads=1", "--folder", copied_run, log=tmp_path / "log")
    assert outcome.code == 0, outcome.errors
    assert fingerprints(copied_run) == before


def test_a_contradicting_setting_is_refused(copied_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = fingerprints(copied_run)
    assert main(["run", "debug", "threads=1", "seed=1", "dynamics.window=5", "--folder", str(copied_run)]) == 2
    message = capsys.readouterr().err
    assert "seed: 0 on disk, 1 asked" in message
    assert "dynamics.window: 4 on disk, 5 asked" in message
    assert message.count("\n") == 1
    assert fingerprints(copied_run) == before


def test_two_runs_do_not_share_a_folder(copied_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open(copied_run / LOCK, "wb") as file:
        lock(file, copied_run)
        assert main(["run", "debug", "--folder", str(copied_run)]) == 2
    assert "is being written by another process" in capsys.readouterr().err
    assert main(["run", "debug", "--folder", str(copied_run)]) == 0


def test_evaluate_scores_a_run(finished_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "verdict"
    code = main(["evaluate", str(finished_run), "--episodes", "2", "--seed", "7", "--out", str(out)])
    verdict = json.loads((out / "verdict.json").read_text())
    assert code == 0
    check_score(verdict["agent"], episodes=2)
    assert verdict["agent"]["seeds"] == [7, 8]
    assert "random" in verdict["baselines"]
    assert verdict["world"]


def test_evaluate_scores_a_model_without_episodes(finished_run: Path, tmp_path: Path) -> None:
    model, out = finished_run / "round-01" / "world_model", tmp_path / "verdict"
    assert main(["evaluate", str(model), "--episodes", "2", "--seed", "7", "--out", str(out)]) == 0
    verdict = json.loads((out / "verdict.json").read_text())
    check_score(verdict["baselines"]["shuffled_observations"], episodes=2)  # frames of episodes that it plays itself
    assert not verdict["world"]


def test_dream_writes_a_video(finished_run: Path, tmp_path: Path) -> None:
    for number, extra in enumerate(([], ["--random", "--temperature", "0.5"])):
        out = tmp_path / f"{number}.mp4"
        assert main(["dream", str(finished_run), "--steps", "5", "--seed", "3", "--out", str(out), *extra]) == 0
        assert len(read_video(out)) == 6


ALL_VIDEOS = {
    "real_beside_dream.mp4",
    "several_dreams.mp4",
    "temperatures.mp4",
    "long_dream.mp4",
    "agent_real.mp4",
}


@pytest.fixture
def short_dreams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "write_pictures", partial(write_pictures, long_dream_steps=5))


@pytest.mark.usefixtures("short_dreams")
def test_render_shows_a_run_again(finished_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "shown"
    assert main(["render", str(finished_run), "--out", str(out)]) == 0
    videos = out / "videos"
    assert {path.name for path in videos.glob("*.*")} == ALL_VIDEOS | {"grid.png", "captions.json"}
    assert (videos / "agent_real.mp4").read_bytes() == (finished_run / "videos" / "agent_real.mp4").read_bytes()
    text = (out / "report.html").read_text()
    assert text.count("<video") == 5
    assert "Verdict" in text


@pytest.mark.usefixtures("short_dreams")
def test_render_plays_anew_for_a_model_alone(finished_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "shown"
    model = shutil.copytree(finished_run / "round-01" / "world_model", tmp_path / "alone")
    assert main(["render", str(model), "--gif", "--out", str(out)]) == 0
    names = {path.name for path in (out / "videos").glob("*.*")}
    assert names == ALL_VIDEOS | {name.replace("mp4", "gif") for name in ALL_VIDEOS} | {"grid.png", "captions.json"}
    assert "What the model says of itself" in (out / "report.html").read_text()


def test_the_report_lies_in_the_run(finished_run: Path) -> None:
    text = (finished_run / "report.html").read_text()
    assert text.count("<video") == 5
    assert text.count("<img") == 1
    for stage in ("tokenizer", "dynamics", "agent"):
        assert f"Training: {stage}" in text
    assert "round 01" in text


def test_a_reader_of_plans_trains_as_long_as_its_data_bear(finished_run: Path) -> None:
    """Four steps on all 700 tics: three on the first 400."""
    trained = []
    for number in range(2):
        lines = (finished_run / f"round-{number:02d}" / "plans" / "metrics.jsonl").read_text().splitlines()
        trained.append(json.loads(lines[-1])["step"])
    assert trained == [3, 4]


def test_tensorboard_shows_the_dream_of_each_round(finished_run: Path) -> None:
    for number in (0, 1):
        events = read_events(finished_run / f"round-{number:02d}" / "dynamics" / "tensorboard")
        assert events["videos/real_beside_dream"].encoded_image_string.startswith(b"GIF89a")
    assert "videos/agent_real" in read_events(finished_run / "videos" / "tensorboard")
