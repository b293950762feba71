"""Two processes train as one does, and each goes on where the other stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.shared_training import CASES, HALF, HANDED_OVER, STEPS, make_data, train, train_with
from worldsim import distributed
from worldsim.checkpoints import CHECKPOINT, read_checkpoint
from worldsim.dynamics.config import DynamicsConfig
from worldsim.errors import UserError
from worldsim.training_log import METRICS
from worldsim.workflow.checks import check_processes
from worldsim.workflow.config import RunConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "episodes"
    make_data(folder)
    return folder


@pytest.fixture(scope="module")
def alone(data: Path) -> dict[int, Path]:
    """The folders of one process's trainings, half and whole."""
    folders = {HALF: data.parent / "alone" / "half", STEPS: data.parent / "alone" / "whole"}
    for steps, folder in folders.items():
        train(data, folder, steps)
    return folders


@pytest.fixture(scope="module", params=distributed.KINDS)
def together(data: Path, alone: dict[int, Path], request: pytest.FixtureRequest) -> dict[str, Path]:
    """The folders of trainings that two processes did: "whole"; "resumed" from one process; "handed", back to one."""
    base = data.parent / request.param
    folders = {name: base / name for name in ("whole", "resumed", "handed")}
    shutil.copytree(alone[HALF], folders["resumed"])
    jobs = (folders["whole"], STEPS, folders["resumed"], STEPS, folders["handed"], HALF)
    train_with(2, data, request.param, *jobs)
    train(data, folders["handed"], STEPS)
    return folders


def metrics(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.mark.parametrize(
    ("name", "case"),
    [("whole", case) for case in CASES] + [(name, case) for name in ("resumed", "handed") for case in HANDED_OVER],
)
def test_two_processes_have_the_losses_of_one(
    alone: dict[int, Path], together: dict[str, Path], name: str, case: str
) -> None:
    expected, found = metrics(alone[STEPS] / case), metrics(together[name] / case)
    assert len(found) == STEPS
    for one, other in zip(expected, found, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert other == pytest.approx(one, rel=5e-5, abs=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_file_is_that_of_one_process(alone: dict[int, Path], together: dict[str, Path], case: str) -> None:
    expected, found = read_checkpoint(alone[STEPS] / case), read_checkpoint(together["whole"] / case)
    for checkpoint in (expected, found):
        del checkpoint["seconds"]
    assert _same(expected, found)


def _same(one: Any, other: Any) -> bool:
    """Whether two states have the same keys and types and nearly the same numbers."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, torch.Tensor):
        if type(other) is not torch.Tensor or one.dtype != other.dtype:
            return False
        return torch.allclose(one, other, rtol=1e-4, atol=2e-4) if one.is_floating_point() else torch.equal(one, other)
    return type(one) is type(other) and one == other


# --- without processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_each_row_is_drawn_as_in_one_process(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def draws(rows: int) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(5)
        torch.manual_seed(6)
        return [
            torch.rand(rows, 4, generator=generator),
            torch.randn(torch.Size([rows, 2, 3]), generator=generator),
            torch.randint(1, 9, (rows, 5), generator=generator),
            F.dropout(torch.ones(rows, 7), 0.3),
            torch.nn.Dropout(0.3).eval()(torch.ones(rows, 7)),
        ]

    whole = draws(6)
    monkeypatch.setattr(distributed, "_group", distributed._Group(rank, 3, "ddp"))
    with distributed._SharedDraws():
        own = draws(2)
        for drawn in (torch.randperm, lambda n: torch.zeros(n).uniform_(), lambda n: torch.ones(n).bernoulli()):
            with pytest.raises(NotImplementedError, match=r"say in worldsim\.distributed how rows share it"):
                drawn(4)
    assert all(torch.equal(mine, every[rank::3]) for mine, every in zip(own, whole, strict=True))


@pytest.mark.parametrize(
    ("dynamics", "processes", "message"),
    [
        ({"batch_clips": 18}, 4, "dynamics.batch_clips=18: expected a multiple of 4"),
        ({"batch_clips": 16}, 5, "dynamics.batch_clips=16: expected a multiple of 5"),
        ({"batch_clips": 16, "shortcut_fraction": 0.25}, 8, "dynamics.shortcut_fraction=0.25: .* 8 processes"),
        ({"batch_clips": 16, "self_context_fraction": 0.25}, 8, "dynamics.self_context_fraction=0.25"),
    ],
)
def test_rows_that_cannot_be_shared_evenly(dynamics: dict[str, Any], processes: int, message: str) -> None:
    config = RunConfig(dynamics=DynamicsConfig(**dynamics))
    check_processes(config, 1)
    with pytest.raises(UserError, match=message):
        check_processes(config, processes)
    check_processes(replace(config, dynamics=DynamicsConfig(batch_clips=32)), 4)


# --- the command -----------------------------------------------------------------------------------------------------


def start(log: Path, *arguments: object) -> subprocess.Popen[bytes]:
    """`torchrun --nproc-per-node 2 -m worldsim ARGUMENTS`, whose output goes to `log`."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "worldsim", *arguments]
    with log.open("wb") as file:
        return subprocess.Popen([sys.executable, *map(str, command)], stdout=file, stderr=subprocess.STDOUT)


def said(log: Path) -> list[str]:
    """The lines that worldsim itself ended with."""
    text = log.read_text(errors="replace").replace("\r", "\n")
    return [line[line.index("worldsim: ") :] for line in text.splitlines() if "worldsim: " in line]


def test_what_all_processes_refuse_is_said_once(tmp_path: Path) -> None:
    process = start(tmp_path / "log", "train", "debug", "tokenizer.batch_frames=7", "--folder", tmp_path / "run")
    assert process.wait(200) != 0
    (line,) = said(tmp_path / "log")
    assert "tokenizer.batch_frames=7: expected a multiple of 2" in line


@pytest.mark.slow
@pytest.mark.parametrize("kind", distributed.KINDS)
def test_a_walk_of_two_processes_is_that_of_one(kind: str, tmp_path: Path) -> None:
    common = ["train", "debug", "--until", "dynamics", "precision=fp32", "threads=1", "rounds=1"]
    common += ["collect.tics=[400]", "agent_updates=[3]", "--folder"]
    assert subprocess.run([sys.executable, "-m", "worldsim", *common, tmp_path / "one"], check=False).returncode == 0
    assert start(tmp_path / "log", *common, tmp_path / "two", f"distributed={kind}").wait(250) == 0
    for part in ("tokenizer", "round-00/dynamics"):
        (*_, expected), (*_, found) = metrics(tmp_path / "one" / part), metrics(tmp_path / "two" / part)
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert (tmp_path / "two" / "round-00" / "world_model" / "config.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_one_that_is_stopped_takes_the_other_along(number: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ["train", "debug", "--until", "tokenizer", "tokenizer.steps=100000", "--folder", folder]
    process = start(tmp_path / "log", *arguments)
    try:
        limit = time.monotonic() + 200
        while not list(folder.glob(f"tokenizer/{METRICS}")) and time.monotonic() < limit:
            time.sleep(0.1)
        if number == signal.SIGTERM:
            process.send_signal(number)
        else:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[-1]), number)
        assert process.wait(100) != 0
    finally:
        process.kill()
    (line,) = said(tmp_path / "log")
    assert ("and saved" if number == signal.SIGTERM else "ended without a word") in line
    assert (folder / "tokenizer" / CHECKPOINT).exists() == (number == signal.SIGTERM)
