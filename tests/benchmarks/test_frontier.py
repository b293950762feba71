"""Models by name, on the same episodes, and the table of what they reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.equal_time import open_ground, train_dynamics
from benchmarks.frontier import (
    COLUMNS,
    COPY,
    DRAWN,
    Entry,
    check_same_episodes,
    dreams,
    measure,
    read,
    read_entry,
    show,
    table,
    training_folder,
)
from worldsim.cli import main
from worldsim.data.files import write_json
from worldsim.errors import UserError


def test_a_model_is_a_name_a_run_and_its_own_settings() -> None:
    entry = read_entry("DiT nano = runs/dit dynamics.size=nano dynamics.window=4")
    assert entry == Entry("DiT nano", Path("runs/dit"), ("dynamics.size=nano", "dynamics.window=4"))
    for text in ("runs/dit", "DiT = ", " = runs/dit", "DiT=runs/dit"):
        with pytest.raises(UserError, match="expected 'NAME = RUN_FOLDER key=value"):
            read_entry(text)


def _write(out: Path, model: str, amount: str, seed: int, **figures: float) -> None:
    file = out / model / f"{amount}-{seed}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    shared = {"copied error 8": 9.0, "copied error 32": 9.5, "error 32": 7.0}
    write_json(file, {"model": model, "amount": amount, "seed": seed, **shared, **figures})


def test_the_table_has_seeds_together_amounts_apart_and_the_fastest_first(tmp_path: Path) -> None:
    _write(tmp_path, "slow", "seconds", 0, **{"frames/s": 10.0, "error 8": 4.0})
    _write(tmp_path, "fast", "seconds", 0, **{"frames/s": 100.0, "error 8": 5.0})
    _write(tmp_path, "fast", "seconds", 1, **{"frames/s": 90.0, "error 8": 6.0})
    _write(tmp_path, "fast", "steps", 0, **{"frames/s": 95.0, "error 8": 4.5})
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(read(tmp_path)).splitlines()]
    header, _, copied, *models = rows
    assert header == ["model", "trained for equal", "seeds", "frames/s", "error 8", "error 32"]
    assert copied == [COPY, "-", "-", "-", "9.00", "9.50"]
    assert models == [
        ["fast", "seconds", "2", "95 (90 to 100)", "5.50 (5.00 to 6.00)", "7.00"],
        ["slow", "seconds", "1", "10", "4.00", "7.00"],
        ["fast", "steps", "1", "95", "4.50", "7.00"],
    ]
    pytest.importorskip("matplotlib")
    show(tmp_path)
    assert (tmp_path / "frontier.png").stat().st_size > 10_000


def test_nothing_judged_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --seconds or --steps"):
        show(tmp_path)


@pytest.mark.slow
def test_kinds_on_the_same_episodes_are_trained_and_measured(tmp_path: Path) -> None:
    one_round = ["rounds=1", "collect.tics=[400]", "agent_updates=[1]"]  # later rounds are played by agents that differ
    entries = [Entry(kind, tmp_path / kind, ()) for kind in ("debug_mdn_rnn", "debug_video_gpt")]
    for entry in entries:
        walk = ["train", entry.name, "--until", "dynamics", *one_round, "--folder", str(entry.run)]
        assert main(walk) == 0
    check_same_episodes(entries)
    for entry in entries:
        ground = open_ground(entry.run)
        folder = training_folder(tmp_path / "out", entry.name, "seconds", 0)
        model = train_dynamics(ground, (), steps=2, seed=1, folder=folder)
        found = measure(model, ground, None)
        _write(tmp_path / "out", entry.name, "seconds", 0, **found)
        assert found["steps"] == 2
        assert {name for name in COLUMNS if "fireballs" not in name and "32" not in name} <= set(found)
    picture = dreams(tmp_path / "out", entries[0].run / "episodes")
    height, width = (2 * size for size in model.spec.frame_shape[:2])
    assert picture.shape[0] > 2 * 3 * height  # two starts: reality and two models
    assert picture.shape[1] > len(DRAWN) * width
    other = tmp_path / "other"
    assert main(["collect", "debug_mdn_rnn", *one_round, "seed=7", "--folder", str(other)]) == 0
    with pytest.raises(UserError, match="other episodes"):
        check_same_episodes([entries[0], Entry("other", other, ())])
