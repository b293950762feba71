"""The arithmetic of the temperature table."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.temperatures import Judged, draw, draw_curves, read, summary, table
from worldsim.data.files import write_json

JUDGED = [
    Judged(0.5, 0, 10, [300.0, 500.0], [200.0, 200.0]),
    Judged(0.5, 0, 20, [900.0, 900.0], [100.0, 100.0]),
    Judged(0.5, 1, 10, [400.0, 400.0], [300.0, 300.0]),
    Judged(0.5, 1, 20, [700.0, 700.0], [50.0, 150.0]),
    Judged(1.15, 0, 20, [600.0, 600.0], [550.0, 650.0]),
]


def test_a_temperature_has_the_mean_of_its_agents_after_their_last_update() -> None:
    rows = summary(JUDGED)
    assert list(rows) == ["0.5", "1.15"]
    assert rows["0.5"]["agents"] == 2
    assert rows["0.5"]["dream"]["mean"] == 800
    assert rows["0.5"]["real"]["agents"] == [100, 100]
    assert rows["1.15"]["real"]["mean"] == 600
    low, high = rows["1.15"]["real"]["ci95"]
    assert 550 <= low <= 600 <= high <= 650


def test_where_more_training_hurts_the_best_was_earlier() -> None:
    rows = summary(JUDGED)
    assert (rows["0.5"]["best_updates"], rows["0.5"]["best_real"]) == (10, 250)
    assert (rows["1.15"]["best_updates"], rows["1.15"]["best_real"]) == (20, 600)


def test_the_table_has_a_row_for_each_temperature() -> None:
    lines = table(JUDGED).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| 0.5 | 800 | **100** |")
    assert lines[2].endswith("| 100, 100 | 10 (250) |")


def test_what_was_judged_is_read_from_the_agents_folders(tmp_path: Path) -> None:
    for one in JUDGED:
        folder = tmp_path / f"temperature-{one.temperature:g}-agent-{one.agent}"
        folder.mkdir(exist_ok=True)
        parts = {where: {"returns": getattr(one, where)} for where in ("dream", "real")}
        write_json(folder / f"judged-{one.updates}.json", parts)
    assert read(tmp_path) == JUDGED


def test_plots_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(JUDGED, tmp_path / "temperatures.png")
    draw_curves(JUDGED, tmp_path / "curves.png")
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("temperatures.png", "curves.png"))
