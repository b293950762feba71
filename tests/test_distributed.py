"""Two processes train as one does, and each goes on where the other stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.shared_training import CASES, STEPS, make_data, train, train_with
from worldsim.distributed import KINDS
from worldsim.training import METRICS, read_checkpoint

HALF = STEPS // 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "episodes"
    make_data(folder)
    return folder


@pytest.fixture(scope="module")
def alone(data: Path) -> dict[int, Path]:
    """The folders of one process's trainings, half and whole."""
    folders = {steps: data.parent / f"alone-{steps}" for steps in (HALF, STEPS)}
    for steps, folder in folders.items():
        train(data, folder, steps)
    return folders


@pytest.fixture(scope="module", params=KINDS)
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


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["whole", "resumed", "handed"])
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
        # Muon rounds to bf16, and so makes of the last bit of a gradient a thousandth of a step.
        return torch.allclose(one, other, rtol=1e-3, atol=2e-3) if one.is_floating_point() else torch.equal(one, other)
    return type(one) is type(other) and one == other
