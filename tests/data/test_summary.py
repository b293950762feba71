from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.counting import episode, fill, spec
from worldsim.data.store import EpisodeStore
from worldsim.data.summary import describe, write_contact_sheet
from worldsim.errors import UserError


def test_the_figures_are_those_of_the_episodes(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", spec())
    fill(store, "a", episode(0, 10), episode(1, 30, terminated=False, split="held_out"))
    text = "\n".join(describe(store))
    assert "2: 1 train, 1 held_out" in text
    assert "40 (80 tics)" in text
    assert "1 terminated, 1 truncated, 0 open" in text
    assert "mean 20, median 20" in text
    assert text.count("20.0%") == 5  # each of the five actions
    returns = np.array([sum(range(10)), 1000 * 30 + sum(range(30))])
    assert f"mean {returns.mean():.4g}" in text


def test_a_histogram_for_each_component_of_a_box(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", spec(box=True))
    fill(store, "a", episode(0, 10, box=True), episode(1, 10, box=True))
    lines = describe(store)
    assert [line for line in lines if line.startswith("  action")] == ["  action 0", "  action 1"]
    assert sum("50.0%" in line for line in lines) == 2  # component 0 is the number of the episode


def test_the_contact_sheet_shows_first_and_last_frames(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", spec(blank_terminal_frame=True))
    episodes = [episode(number, 20) for number in range(9)]
    for number, one in enumerate(episodes):
        one.frames[:] = 20 * number
        one.frames[-2] = 250
        one.frames[-1] = 0  # blank, and never shown
    fill(store, "a", *episodes)
    sheet = np.asarray(Image.open(write_contact_sheet(store, tmp_path / "sheet.png")))
    shown = {int(value) for value in np.unique(sheet[..., 0])}
    assert {0, 160, 250} <= shown
    right = sheet[sheet.shape[0] // 2 :, -20:]
    assert (right == 250).any()


def test_no_episodes(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", spec())
    for call in (lambda: describe(store), lambda: write_contact_sheet(store, tmp_path / "sheet.png")):
        with pytest.raises(UserError, match="0 episodes"):
            call()
