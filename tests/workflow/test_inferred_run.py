"""`worldsim run --env ID`: no config, reasons that are told and kept, a second call that goes on."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from worldsim.cli import main
from worldsim.config import from_dict
from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError
from worldsim.workflow import inferred_run
from worldsim.workflow.config import RunConfig
from worldsim.workflow.infer import Reason
from worldsim.workflow.inferred_run import INFERRED, run_env, run_folder, table
from worldsim.workflow.look import look_at

LEVERS = "tests.levers:Levers-v0"
# One thread and little of everything; what is left to infer are pictures, patches and times.
LITTLE = ["threads=1", "rounds=1", "collect.workers=1", "collect.tics=[400]", "collect.held_out_fraction=0.2"]
LITTLE += ["tokenizer.steps=4", "tokenizer.batch_frames=4", "tokenizer.width=16", "dynamics.size=debug"]
LITTLE += ["dynamics.steps=3", "dynamics.batch_clips=4", "agent_updates=[1]", "dream.num_envs=4", "agent.horizon=4"]
LITTLE += ["evaluate.episodes=2", "evaluate.blind_tuning_episodes=1", "evaluate.dream_episodes=2", "evaluate.workers=1"]


@pytest.fixture(autouse=True)
def quick_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inferred_run, "look_at", partial(look_at, seconds=0.2))


def test_the_command_from_the_first_look_to_a_second_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    # The overrides stand before and behind the option.
    command = ["collect", "--env", LEVERS, *LITTLE[:3], "--folder", str(folder), *LITTLE[3:]]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "env.frame_height=16 frame_width=48" in said
    assert "collect.tics" not in said.split("worldsim run in")[0]  # what was given is not inferred

    config = json.loads((folder / "config.json").read_text())
    assert config["env"]["id"] == LEVERS
    assert config["collect"]["tics"] == [400]
    assert from_dict(RunConfig, config, "the run").tokenizer.merge == config["tokenizer"]["merge"]
    noted = json.loads((folder / INFERRED).read_text())
    reasons = {reason["setting"]: reason for reason in noted["inferred"]}
    assert not {"rounds", "collect.tics"} & set(reasons)
    assert reasons["env.frame_height"]["value"] == config["env"]["frame_height"] == 16
    assert reasons["env.frame_height"]["why"] in said
    assert noted["look"]["picture"] == [16, 48]
    episodes = EpisodeStore.open(folder / "episodes")
    assert episodes.spec.frame_shape == (16, 48, 1)  # white on black

    def never(*arguments: object, **named: object) -> None:
        raise AssertionError("a second look")

    monkeypatch.setattr(inferred_run, "look_at", never)
    assert main(["train", "--env", LEVERS, "--folder", str(folder), "--until", "tokenizer"]) == 0
    assert json.loads((folder / "config.json").read_text()) == config
    assert json.loads((folder / INFERRED).read_text()) == noted
    assert len(EpisodeStore.open(folder / "episodes")) == len(episodes)

    refused = ["collect", "--env", LEVERS, "--folder", str(folder), "dynamics.steps=9"]
    assert main(refused) == 2
    assert "dynamics.steps: 3 on disk, 9 asked" in capsys.readouterr().err
    with pytest.raises(UserError, match=f"begun with the env {LEVERS}, CartPole-v1 asked"):
        run_env("CartPole-v1", folder, [], print)


@pytest.mark.slow
@pytest.mark.parametrize("binary", [False, True])
def test_the_whole_walk_without_a_config(binary: bool, tmp_path: Path) -> None:
    verdict = run_env(LEVERS, tmp_path / "run", [*LITTLE, f"env.kwargs.binary={binary}"], print)
    assert verdict is not None
    assert verdict["agent"]["episodes"] == 2


def test_folders_are_named_after_ids() -> None:
    assert run_folder("CarRacing-v3") == Path("runs/CarRacing-v3")
    assert run_folder("ALE/Breakout-v5") == Path("runs/ALE-Breakout-v5")
    assert run_folder("my.module:Game-v0") == Path("runs/Game-v0")


def test_settings_with_one_reason_share_a_line() -> None:
    reasons = [
        Reason("env.frame_height", 16, "small"),
        Reason("env.frame_width", 48, "small"),
        Reason("rounds", 2, "b"),
    ]
    _, first, second = table(reasons)
    assert first.split() == ["env.frame_height=16", "frame_width=48", "small"]
    assert second.split() == ["rounds=2", "b"]
