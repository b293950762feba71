"""Files by change and seed, and the table made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import ablations
from benchmarks.ablations import CHANGES, UNCHANGED, check_long_enough, judge, read, result_file, table
from benchmarks.equal_time import Ground, open_ground, train_dynamics
from worldsim.cli import main
from worldsim.data.files import write_json
from worldsim.dynamics.config import DynamicsConfig
from worldsim.errors import UserError


def test_every_change_names_settings_that_differ_and_has_a_file_of_its_own(tmp_path: Path) -> None:
    assert len({result_file(tmp_path, change, 0) for change in CHANGES}) == len(CHANGES)
    for change in CHANGES:
        for override in change.split():
            group, _, setting = override.partition(".")
            assert group == "dynamics"
            assert hasattr(DynamicsConfig(), setting.partition("=")[0])


def test_the_table_has_means_over_seeds_and_their_range(tmp_path: Path) -> None:
    for change, errors in (("dynamics.registers=4", (1.0, 3.0)), (UNCHANGED, (2.0,))):
        for seed, error in enumerate(errors):
            file = result_file(tmp_path, change, seed)
            file.parent.mkdir(exist_ok=True)
            write_json(file, {"change": change, "seed": seed, "error 8": error, "steps": 500 + seed})
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(read(tmp_path)).splitlines()]
    header, _, unchanged, registers = rows
    assert (unchanged[0], unchanged[1], unchanged[header.index("error 8")]) == (UNCHANGED, "1", "2.00")
    assert (registers[0], registers[1], registers[header.index("error 8")]) == (
        "registers=4",
        "2",
        "2.00 (1.00 to 3.00)",
    )
    assert registers[header.index("steps")] == "500 (500 to 501)"
    assert registers[header.index("sharpness")] == "-"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    run = tmp_path_factory.mktemp("runs") / "debug"
    assert main(["train", "debug", "--until", "dynamics", "--folder", str(run)]) == 0
    return open_ground(run)


@pytest.mark.slow
def test_a_change_is_trained_for_some_seconds_and_judged(ground: Ground, tmp_path: Path) -> None:
    change = ["dynamics.context_noise=0.3"]
    model = train_dynamics(ground, change, seconds=0.01, seed=1, folder=tmp_path / "training")
    assert model.dynamics.config.context_noise == 0.3
    theirs = ground.made.tokenizer.parameters()
    assert all(
        torch.equal(own, its.to(own.dtype)) for own, its in zip(model.tokenizer.parameters(), theirs, strict=True)
    )
    assert model.dtype == ground.dtype
    assert model.training["steps"] >= 1
    found = judge(model, ground)
    assert {"sharpness", "shuffle", "ms"} <= set(found)
    assert found["ms"] > 0


@pytest.mark.slow
def test_episodes_that_are_all_too_short_judge_nothing(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablations, "HORIZONS", (1, 100))  # the debug run's episodes have at most 60 steps
    with pytest.raises(UserError, match="no held-out episode goes on for 100 steps"):
        check_long_enough(ground)
