"""`worldsim evaluate --world` at debug scale."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.workflow.whole_runs import SMALL
from worldsim import envs
from worldsim.cli import main
from worldsim.config import from_dict
from worldsim.data.store import EpisodeStore
from worldsim.envs.config import EnvConfig
from worldsim.errors import UserError
from worldsim.evaluation.world_page import scalars
from worldsim.model_folder import load_model
from worldsim.workflow import fresh_episodes, world_report
from worldsim.workflow.fresh_episodes import play_fresh_episodes
from worldsim.workflow.world_report import evaluate_world

pytestmark = pytest.mark.timeout(1200)  # seconds of work, but on a busy machine they last
needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="the extra metrics is not installed"
)


@pytest.fixture(scope="module")
def out(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "report"
    with pytest.MonkeyPatch.context() as patch:
        # The network itself has a test of its own, and needs half a minute for these frames.
        patch.setattr(world_report, "encoder_is_installed", lambda: True)
        patch.setattr(world_report, "load_encoder", lambda: lambda frames: frames.flatten(1)[:, ::7].float())
        evaluate_world(finished_run, folder, episodes=2, seed=0, effort=SMALL)
    return folder


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    content: dict[str, Any] = json.loads((out / "world.json").read_text(), parse_constant=refuse)
    return content


@needs_matplotlib
def test_every_part_is_in_the_report(report: dict[str, Any]) -> None:
    horizon = report["horizon"]
    assert horizon["horizons"][:3] == [1, 2, 4]
    for measure in ("psnr", "ssim", "moving_error"):
        assert set(horizon[measure]) == {"dream_mean", "dream_best", "copy_last", "tokenizer", "shuffled"}
        assert all(len(curve) == len(horizon["horizons"]) for curve in horizon[measure].values())
    assert report["endings"]["heads"]["steps"] >= 60
    assert len(report["endings"]["replays"]["survival_predicted"]) == 8
    assert report["obedience"]["action_shuffle_ratio"] > 0
    assert 0 <= report["obedience"]["inverse_dynamics"]["dream"]["accuracy"] <= 1
    assert len(report["obedience"]["effects"]["effect_size"]) == 6
    assert report["obedience"]["regret"]["moments"] == 3
    assert report["obedience"]["regret"]["regret"] >= 0
    assert set(report["probes"]["quantities"]) <= {
        "cart position",
        "cart velocity",
        "pole angle",
        "pole angular velocity",
    }
    assert report["extras"]["fd_efficientnet_lite0"]["near"]["real"] > 0
    assert report["drift"]["steps_measured"][-1] == 2 * report["drift"]["training_frames"]
    assert report["notes"] == []  # CartPole repeats itself, and every metric is there
    assert set(report["seconds"]) == {
        "episodes",
        "dreams",
        "horizon",
        "endings",
        "obedience",
        "probes",
        "drift",
        "extras",
    }


@needs_matplotlib
def test_the_page_needs_no_other_file_and_shows_whole_pictures(out: Path) -> None:
    page = (out / "world.html").read_text()
    assert "http" not in page
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) >= 12
    for source in sources:
        kind, data = source.split(",", 1)
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    assert "nan" not in page.partition("<table>")[2].partition("</table>")[0]
    with Image.open(out / "world.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert min(pixels.shape) > 1000
    assert pixels.std() > 10


@needs_matplotlib
def test_tensorboard_has_curves_over_the_horizon_and_pictures(out: Path, report: dict[str, Any]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(out / "tensorboard"))
    board.Reload()
    events = board.Scalars("horizon/psnr/dream_mean")
    assert [event.step for event in events] == report["horizon"]["horizons"]
    assert [event.value for event in events] == pytest.approx(report["horizon"]["psnr"]["dream_mean"], rel=1e-5)
    assert [event.step for event in board.Scalars("drift/round_trip")] == report["drift"]["steps_measured"]
    assert len(board.Tags()["images"]) >= 2
    names = [(name, step) for name, step, _ in scalars(report)]
    assert len(names) == len(set(names))


@needs_matplotlib
def test_a_model_without_episodes_is_judged_on_fresh_ones(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh_episodes, "LEAST_STEPS", 120)
    judged: list[EpisodeStore] = []

    def stand_in(model: Any, store: EpisodeStore, env: EnvConfig, **_: Any) -> Any:
        judged.append(store)
        raise UserError("far enough")

    monkeypatch.setattr(world_report, "judge_world", stand_in)
    model = next(finished_run.glob("round-*/world_model"))
    assert main(["evaluate", str(model), "--world", "--episodes", "4", "--seed", "70", "--out", str(tmp_path)]) == 2
    [store] = judged
    assert store.folder == tmp_path / "episodes"
    assert [entry.seed for entry in store.entries] == list(range(70, 70 + len(store)))
    assert store.lengths.sum() >= 120
    assert abs(len(store.indices("train")) - len(store.indices("held_out"))) <= 1


def test_fresh_episodes_go_on_where_they_stopped_and_refuse_others(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh_episodes, "LEAST_STEPS", 1)
    model = load_model(next(finished_run.glob("round-*/world_model")))
    make_env = partial(envs.make, from_dict(EnvConfig, model.spec.settings, "test"))
    few = play_fresh_episodes(tmp_path / "a", model.spec, make_env, episodes=2, seed=5)
    assert len(few) == 2
    more = play_fresh_episodes(tmp_path / "a", model.spec, make_env, episodes=4, seed=5)
    at_once = play_fresh_episodes(tmp_path / "b", model.spec, make_env, episodes=4, seed=5)
    assert more.entries == at_once.entries
    with pytest.raises(UserError, match="other episodes"):
        play_fresh_episodes(tmp_path / "a", model.spec, make_env, episodes=4, seed=6)


def test_a_missing_matplotlib_is_named_before_anything_is_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"matplotlib.*worldsim-rl\[metrics\]"):
        evaluate_world("quickstart", tmp_path / "out", episodes=2, seed=0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("episodes", "seed", "name"), [(1, 0, "episodes"), (2, -1, "seed")])
def test_numbers_that_cannot_work(tmp_path: Path, episodes: int, seed: int, name: str) -> None:
    with pytest.raises(UserError, match=f"{name}="):
        evaluate_world("quickstart", tmp_path / "out", episodes=episodes, seed=seed)
