"""Whatever is wrong with what the user gave: one line on stderr, exit code 2, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.commands import command, said
from tests.videos import no_ffmpeg
from tests.worlds import tiny_world
from worldsim import cli
from worldsim.cli import main
from worldsim.evaluation.pictures import write_pictures
from worldsim.model_folder import save_model
from worldsim.workflow import inferred_run, showing
from worldsim.workflow.look import look_at

COMMANDS = ("run", "collect", "train", "dream", "play", "evaluate", "render", "data", "models", "pull", "push")
Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Runs a command that must be refused; returns its one line on stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> str:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
        errors = capsys.readouterr().err
        assert code == 2
        lines = said(errors)
        assert len(lines) == 1, errors
        assert lines[0].startswith("worldsim")
        return lines[0]

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(tiny_world(), tmp_path / "model")
    return tmp_path / "model"


# --- what is asked for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", "COMMAND"),
        ("walk", "choose from"),
        ("run", "config"),
        ("run --folder a", "--env ID"),
        ("run debug --env CartPole-v1", "not both"),
        ("run --env CartPole-v1 seed=1 debug", "not both"),
        ("collect --env", "--env"),
        ("run debug --fast", "--fast"),
        ("run debug --folder a b=1 --slow", "--slow"),
        ("train debug --until tea", "tokenizer"),
        ("dream m --steps many", "many"),
        ("evaluate m", "--out"),
    ],
)
def test_a_command_that_does_not_exist(refused: Refused, arguments: str, expected: str) -> None:
    message = refused(*arguments.split())
    assert expected in message
    assert "--help" in message


def test_what_machines_share_is_not_inferred_by_each(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "with --collector give a config"
    assert expected in refused("collect", "--env", "CartPole-v1", "--collector", "1/2")
    assert "expected K/N" in refused("collect", "debug", "--collector", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setattr(cli, "_speaks", lambda: True)
    assert "under torchrun give a config" in refused("run", "--env", "CartPole-v1")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("quikstart", "Did you mean: 'quickstart'"),
        ("configs/none.yaml", "does not exist"),
        ("debug.yml", "does not exist"),
    ],
)
def test_a_config_that_does_not_exist(refused: Refused, config: str, expected: str) -> None:
    assert expected in refused("run", config)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("dynamics.stepz=3", "Did you mean: 'steps'"),
        ("dynamics=3", "keys below it"),
        ("dynamics.steps=many", "many"),
        ("dynamics.steps=1.5", "1.5"),
        ("collect.tics=400", "a list"),
        ("steps", "steps"),
        ("seed=", "no value"),
    ],
)
def test_a_setting_that_does_not_exist_or_has_another_type(refused: Refused, setting: str, expected: str) -> None:
    assert expected in refused("run", "debug", setting)


@pytest.mark.parametrize(
    "setting",
    [
        "rounds=0",
        "rounds=3",
        "threads=-1",
        "seed=-1",
        "checkpoint_seconds=-1",
        "device=toaster",
        "precision=fp8",
        "collect.tics=[0,300]",
        "collect.tics=[400]",
        "agent_updates=[3]",
        "agent_updates=[3,-3]",
        "collect.workers=0",
        "collect.stickiness=often",
        "collect.stickiness=2",
        "collect.compression=zip",
        "collect.held_out_fraction=0",
        "collect.held_out_fraction=0.9",
        "collect.policy_noise=-0.1",
        "collect.mirror_actions=[0,1,2]",
        "collect.mirror_actions=[1,1]",
        "tokenizer.kind=vae",
        "tokenizer.patch=7",
        "tokenizer.patch=0",
        "tokenizer.merge=[3,5]",
        "tokenizer.heads=3",
        "tokenizer.steps=-1",
        "tokenizer.batch_frames=0",
        "tokenizer.learning_rate=0",
        "tokenizer.learning_rate=.nan",
        "tokenizer.mask_max=2",
        "dynamics.size=enormous",
        "dynamics.optimizer=sgd",
        "dynamics.window=1",
        "dynamics.steps=0",
        "dynamics.batch_clips=0",
        "dynamics.learning_rate=-1",
        "dynamics.sampling_steps=3",
        "dynamics.finest_steps=6",
        "dynamics.distillation_steps=-1",
        "dynamics.distillation_steps=0 dynamics.shortcut_fraction=0",  # then only the finest steps are trained
        "dynamics.sampling_steps=4",  # then there is nothing to distil
        "dynamics.ending_fraction=1.5",
        "dynamics.head_dropout=20",
        "dream.num_envs=0",
        "dream.feature_frames=0",
        "dream.feature_frames=4",
        "dream.stack_ages=[1,2]",
        "dream.stack_ages=[0,4]",
        "dream.stack_ages=[0,1,1]",
        "dream.stack_ages=[0,-1]",
        "dream.stack_ages=[0] agent.kind=cma_es",
        "agent.kind=dagger plans.steps=0",
        "plans.ages=[1,2] plans.steps=1",
        "plans.ages=[0,40] plans.steps=1",
        "plans.ages=[] plans.steps=1",
        "plans.changes=[] plans.ages=[0] plans.steps=1",
        "plans.changes=[0,4] plans.ages=[0] plans.steps=1",
        "plans.strides=[[4]] plans.ages=[0] plans.steps=1",
        "plans.strides=[] plans.ages=[0] plans.steps=1",
        "plans.actions_before=40 plans.ages=[0] plans.steps=1",
        "plans.horizon=0",
        "plans.frame_dropout=2",
        "agent.dagger.epochs=0 agent.kind=dagger plans.steps=1 plans.ages=[0] plans.actions_before=1",
        "dream.max_episode_steps=0",
        "dream.temperature=-1",
        "agent.horizon=0",
        "agent.gamma=2",
        "agent.hidden=[]",
        "agent.strides=[[4]]",
        "agent.strides=[[8,8],[4,4]] dream.stack_ages=[0]",  # frames of 16 x 48
        "evaluate.episodes=0",
        "evaluate.workers=0",
        "evaluate.seed=-5",
        "env.frame_height=0",
        "env.frame_skip=0",
        "env.max_episode_tics=-4",
        "env.crop=[0,1]",
    ],
)
def test_a_number_that_cannot_work(refused: Refused, tmp_path: Path, setting: str) -> None:
    name = setting.partition("=")[0].rpartition(".")[2]
    assert name in refused("run", "debug", *setting.split(), "--folder", tmp_path / "run")
    assert not (tmp_path / "run").exists()  # so that the mended command can start there


@pytest.mark.parametrize("config", ["debug_mdn_rnn", "debug_video_gpt"])
def test_only_what_denoises_is_distilled(refused: Refused, tmp_path: Path, config: str) -> None:
    message = refused("run", config, "dynamics.distillation_steps=4", "--folder", tmp_path / "run")
    assert "dynamics.distillation_steps=4: expected 0" in message


def test_a_run_that_could_write_no_videos_does_not_begin(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", no_ffmpeg)
    assert "IMAGEIO_FFMPEG_EXE" in refused("run", "debug", "--folder", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--steps=0", "--seed=-1", "--temperature=-1", "--temperature=nan", "--out=a.txt"])
def test_a_dream_that_cannot_be(refused: Refused, model: Path, option: str) -> None:
    assert option.strip("-").partition("=")[0] in refused("dream", model, option)


@pytest.mark.parametrize("option", ["--port=70000", "--port=-1", "--host=no.such.host.invalid"])
def test_a_page_that_cannot_be_served(refused: Refused, model: Path, option: str) -> None:
    assert option.partition("=")[2] in refused("play", model, "--no-browser", option)


def test_a_page_without_its_extra(refused: Refused, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldsim.commands.models.find_spec", lambda name: None if name == "uvicorn" else object())
    message = refused("play", model)
    assert "'uvicorn'" in message
    assert "worldsim-rl[play]" in message


@pytest.mark.parametrize("option", ["--episodes=0", "--seed=-1"])
def test_an_evaluation_that_cannot_be(refused: Refused, model: Path, option: str) -> None:
    assert option.strip("-").partition("=")[0] in refused("evaluate", model, "--out", "verdict", option)


# --- environments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["env.id=CartPol-v1"], "did you mean 'CartPole-v1'"),
        (["env.id=no_such_module:Game-v0"], "no_such_module"),
        (["env.id=FrozenLake-v1", "env.image=observation"], "no picture"),
        (["env.id=Blackjack-v1", "env.image=observation"], "no picture"),
        (["env.kwargs={colour: red}"], "colour"),
        (["env.id=Pendulum-v1", "env.image=camera"], "camera"),
    ],
)
def test_an_environment_that_cannot_be_used(
    refused: Refused, tmp_path: Path, settings: list[str], expected: str
) -> None:
    assert expected in refused("run", "debug", *settings, "--folder", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["CartPol-v1"], "did you mean 'CartPole-v1'"),
        (["Zzzqqq-v0"], "module:Zzzqqq-v0"),
        (["no_such_module:Game-v0"], "no_such_module"),
        (["tests.unusable_envs:Unseen-v0"], "rgb_array"),
        (["tests.unusable_envs:Unlisted-v0"], "gymnasium.ActionWrapper"),
        (["tests.unusable_envs:Unbounded-v0"], "no bounds"),
        (["CartPole-v1", "env.image=camera"], "camera"),
        (["CartPole-v1", "env.frame_skp=2"], "'frame_skip'"),
        (["CartPole-v1", "env.id=Pendulum-v1"], "leave one of them out"),
        (["CartPole-v1", "env.frame_height=33", "tokenizer.patch=8"], "33"),
    ],
)
def test_an_env_without_a_config_that_cannot_be_used(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str
) -> None:
    monkeypatch.setattr(inferred_run, "look_at", partial(look_at, seconds=0.1))
    assert expected in refused("run", "--env", *arguments, "--folder", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_env_whose_package_is_missing(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minigrid", None)  # importing it now fails
    assert 'pip install "worldsim-rl[minigrid]"' in refused("run", "--env", "MiniGrid-Empty-8x8-v0")


def test_too_little_data_to_hold_some_out(refused: Refused, tmp_path: Path) -> None:
    few = ("rounds=1", "collect.tics=[5]", "agent_updates=[1]")
    assert "collect.tics" in refused("run", "debug", *few, "--folder", tmp_path / "run")


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dream", "play", "evaluate", "render"])
def test_a_model_that_does_not_exist(refused: Refused, name: str) -> None:
    out = ["--out", "verdict"] if name == "evaluate" else []
    assert "no world model at 'nowhere'" in refused(name, "nowhere", *out)


def test_a_foreign_model(refused: Refused, model: Path) -> None:
    (model / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert "does not describe a worldsim world model" in refused("dream", model)
    (model / "config.json").write_text(json.dumps({"format": "worldsim world model", "format_version": 1}))
    assert "incomplete" in refused("dream", model)


@pytest.mark.parametrize("size", [0, 100, -10])
def test_truncated_weights(refused: Refused, model: Path, size: int) -> None:
    weights = model / "dynamics.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    assert "dynamics.safetensors" in refused("dream", model)


def test_a_model_without_a_policy(refused: Refused, model: Path) -> None:
    assert "holds no policy" in refused("evaluate", model, "--out", "verdict")


def test_a_model_without_its_environment_shows_its_dreams(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(showing, "write_pictures", partial(write_pictures, long_dream_steps=5))
    config = json.loads((model / "config.json").read_text())
    config["env"]["settings"] = {"id": "NobodyHasThis-v0"}
    (model / "config.json").write_text(json.dumps(config))
    assert main(["render", str(model), "--out", str(tmp_path / "shown")]) == 0
    said = capsys.readouterr().out
    assert "not shown: real episodes" in said
    assert "NobodyHasThis-v0" in said
    assert "not shown: an agent" in said
    videos = {path.name for path in (tmp_path / "shown" / "videos").glob("*.mp4")}
    assert videos == {"several_dreams.mp4", "temperatures.mp4", "long_dream.mp4"}
    assert "NobodyHasThis-v0" in (tmp_path / "shown" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pull", "pong"], "OWNER/NAME"),
        (["pull", "./nowhere"], "no world model"),
        (["push", "nowhere", "a/b"], "no world model at 'nowhere'"),
        (["push", "quickstart", "pong"], "OWNER/NAME"),
    ],
)
def test_a_model_that_cannot_travel(refused: Refused, arguments: list[str], expected: str) -> None:
    assert expected in refused(*arguments)


# --- disks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run", "collect"])
def test_a_file_where_the_folder_should_be(refused: Refused, tmp_path: Path, name: str) -> None:
    (tmp_path / "taken").write_text("")
    assert str(tmp_path / "taken") in refused(name, "debug", "--folder", tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "may be written" in refused("run", "debug", "--folder", tmp_path / "locked" / "run")


def test_a_folder_of_something_else(refused: Refused, tmp_path: Path, model: Path) -> None:
    assert "not that of a run" in refused("run", "debug", "--folder", model)
    (tmp_path / "config.json").write_text("{")
    assert "not that of a run" in refused("run", "debug", "--folder", tmp_path)


@pytest.mark.parametrize(
    ("kilobytes", "compression", "what"),
    [(1, "none", "start the run"), (100, "none", "write episodes"), (100, "zstd", "save")],
)
def test_a_full_disk(tmp_path: Path, kilobytes: int, compression: str, what: str) -> None:
    """No file may grow beyond a size: the system refuses to write on as it does on a full disk."""
    run = tmp_path / "run"
    arguments = ["train", "debug", "threads=1", f"collect.compression={compression}", "--until", "tokenizer"]
    arguments += ["--folder", str(run)]
    outcome = command(*arguments, log=tmp_path / "log", file_kilobytes=kilobytes)
    assert outcome.code == 2
    assert f"cannot {what}" in outcome.message
    assert str(run) in outcome.message
    assert len(said(outcome.errors)) == 1
    assert not [path for path in run.rglob("*") if ".tmp" in path.name]
    outcome = command(*arguments, log=tmp_path / "log")  # with room again, it goes on
    assert outcome.code == 0, outcome.errors


# --- trainings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["tokenizer", "dynamics", "agent"])
def test_a_loss_that_is_no_number(refused: Refused, tmp_path: Path, part: str) -> None:
    short = ("rounds=1", "collect.tics=[400]", "agent_updates=[3]", "threads=1")
    message = refused("train", "debug", *short, f"{part}.learning_rate=1e30", "--folder", tmp_path / "run")
    assert part in message
    assert "learning rate" in message


# --- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_teaches(capsys: pytest.CaptureFixture[str], name: str) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert f"worldsim {name} " in text.partition("examples:")[2]


def test_help_comes_at_once() -> None:
    """Measured in processor time: it loads Gymnasium, which knows the dream by name, and no torch."""
    program = (
        "import sys, time\n"
        "from worldsim.cli import main\n"
        "try: main(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'PIL', 'omegaconf', 'moviepy', 'tensorboard'} & set(sys.modules)\n"
        "print(time.process_time(), sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    seconds, _, heavy = done.stdout.splitlines()[-1].partition(" ")
    assert heavy == "[]"
    assert float(seconds) < 1.5


@pytest.mark.parametrize("arguments", ["settings", "settings agent.cma_es"])
def test_who_reads_no_further_is_told_nothing(arguments: str) -> None:
    command = f"{sys.executable} -m worldsim {arguments} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "141\n"
    assert done.stderr == ""


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "worldsim", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("worldsim ")


# --- data ------------------------------------------------------------------------------------------------------------


def test_data_goes_in_is_looked_at_and_comes_out(
    refused: Refused, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "npz").mkdir()
    random = np.random.default_rng(0)
    for number in range(3):
        frames, actions = random.integers(0, 255, (31, 8, 8, 3), np.uint8), random.integers(0, 3, 30)
        np.savez(tmp_path / "npz" / f"{number}.npz", frames=frames, actions=actions, rewards=actions.astype(np.float32))
    assert main(["data", "import", "npz", "store", "--size", "4x4"]) == 0
    assert "Discrete(3)" in capsys.readouterr().out
    assert main(["data", "info", "store"]) == 0
    assert "2 train, 1 held_out" in capsys.readouterr().out
    assert (tmp_path / "store" / "contact_sheet.png").exists()
    assert main(["data", "validate", "store"]) == 0
    assert main(["data", "export", "store", "--npz", "out"]) == 0
    assert len(list((tmp_path / "out").glob("*.npz"))) == 3
    np.savez(tmp_path / "npz" / "0.npz", frames=frames, actions=np.zeros(31, np.int64), rewards=np.zeros(31))
    assert "31 actions for 31 frames" in refused("data", "import", "npz", "other")


def test_validation_that_finds_a_problem_ends_with_code_2(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "npz").mkdir()
    frames = np.random.default_rng(0).integers(0, 255, (31, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "npz" / "0.npz", frames=frames, actions=np.zeros(30, np.int64), rewards=np.zeros(30))
    assert main(["data", "import", "npz", "store"]) == 0
    assert "1 problem to mend" in refused("data", "validate", "store")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("data", "ACTION"),
        ("data look", "choose from"),
        ("data import nowhere store", "neither a folder"),
        ("data import . store", "0 episodes"),
        ("data import . store --size 64", "HEIGHTxWIDTH"),
        ("data import . store --held-out 0.9", "held-out"),
        ("data validate .", "no episode store"),
        ("data info .", "no episode store"),
        ("data export .", "--minari"),
    ],
)
def test_data_that_cannot_be(refused: Refused, arguments: str, expected: str) -> None:
    assert expected in refused(*arguments.split())
