from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.evaluation.worlds import Oracle, picture
from tests.videos import read_video
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.pictures import draw_grid, write_long_dream, write_pictures, write_real_beside_dream
from worldsim.world_model import WorldModel


def test_all_pictures_of_a_run(model: WorldModel, store: EpisodeStore, tmp_path: Path) -> None:
    frames = np.stack([picture(t) for t in range(9)] + [np.zeros_like(picture(0))])
    paths = write_pictures(model, store, tmp_path / "videos", agent_frames=frames, long_dream_steps=5)
    names = ["real_beside_dream.mp4", "long_dream.mp4", "grid.png", "agent_real.mp4"]
    assert [path.name for path in paths] == names
    assert sorted(names) == sorted(path.name for path in (tmp_path / "videos").iterdir())
    assert len(read_video(paths[1])) == 6
    assert len(read_video(paths[3])) == 9  # without the black one
    with Image.open(paths[2]) as image:
        assert image.width > 6 * 128
        assert image.height > 12 * 128


def test_the_dream_stands_beside_the_same_moment(store: EpisodeStore, tmp_path: Path) -> None:
    # The oracle dreams what happens, so both halves must show the same, step by step.
    path = write_real_beside_dream(cast(Any, Oracle()), store, tmp_path / "both.mp4", starts=2, steps=6)
    video = read_video(path)
    assert len(video) == 2 * 7
    halves = video[:, 20:, :256].astype(int), video[:, 20:, -256:].astype(int)
    assert np.abs(halves[0] - halves[1]).mean() < 3
    assert np.abs(halves[0][0] - halves[0][6]).mean() > 3  # something moved


def test_the_grid_shows_reality_reconstruction_and_dream(store: EpisodeStore) -> None:
    grid = draw_grid(cast(Any, Oracle()), store, starts=1, steps=(1, 2, 4))
    size, gap = 128, 4
    assert grid.shape[0] == 14 + 3 * (size + gap)
    rows = [grid[14 + gap + row * (size + gap) :][:size, -3 * size - 2 * gap :] for row in range(3)]
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0], rows[2])
    assert (rows[0] == 200).any()


def test_a_long_dream_is_acted_on_what_it_shows(model: WorldModel, tmp_path: Path) -> None:
    shapes = []

    def act(observations: NDArray[Any]) -> NDArray[np.int64]:
        shapes.append((observations.shape, str(observations.dtype)))
        return np.array([2])

    path = write_long_dream(model, tmp_path / "long.mp4", act=act, observation="pixels", steps=4)
    assert shapes == [((1, 16, 16, 3), "uint8")] * 4
    assert len(read_video(path)) == 5
