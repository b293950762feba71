from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.evaluation.worlds import BlindOracle, Oracle, picture
from tests.videos import read_events, read_gif, read_video, stream_description
from tests.worlds import tiny_world
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.panel import PANEL_PIXELS, Thoughts
from worldsim.evaluation.pictures import draw_grid, write_pictures
from worldsim.evaluation.videos import (
    agent_in_reality,
    long_dream,
    real_beside_dream,
    several_dreams,
    start_in_context,
    start_in_episode,
    temperature_sweep,
)
from worldsim.rendering import BACKGROUND
from worldsim.rollouts import EpisodeResult
from worldsim.world_model import WorldModel


def think(observations: NDArray[Any]) -> Thoughts:
    """Goes right, likes the middle a little, expects 7."""
    rows = len(observations)
    return Thoughts(np.full(rows, 2), np.tile([0.0, 0.25, 0.75], (rows, 1)), np.full(rows, 7.0))


def episode(length: int = 9) -> EpisodeResult:
    """A column that goes right, and a black last frame."""
    frames = np.stack([picture(t) for t in range(length)] + [np.zeros_like(picture(0))])
    actions, rewards = np.full(length, 2), np.arange(length, dtype=np.float32)
    return EpisodeResult(5, float(rewards.sum()), length, length, True, False, frames, actions, rewards)


def test_all_pictures_of_a_run(model: WorldModel, store: EpisodeStore, tmp_path: Path) -> None:
    write_pictures(model, tmp_path, store=store, think=think, episode=episode(), long_dream_steps=5, gif=True)
    names = ["real_beside_dream", "several_dreams", "temperatures", "long_dream", "agent_real"]
    files = {f"{name}.{kind}" for name in names for kind in ("mp4", "gif")} | {"grid.png"}
    captions = json.loads((tmp_path / "captions.json").read_text())
    assert set(captions) == files
    assert {path.name for path in tmp_path.iterdir()} == files | {"captions.json", "tensorboard"}
    events = read_events(tmp_path / "tensorboard")
    assert set(events) == {f"videos/{name}" for name in names}
    for name in names:
        frames = read_video(tmp_path / f"{name}.mp4")
        assert "10 fps" in stream_description(tmp_path / f"{name}.mp4")
        moving, hundredths = read_gif(tmp_path / f"{name}.gif")
        assert len(moving) == len(frames)
        assert hundredths == [10] * len(frames)
        assert np.abs(moving[0].astype(int) - frames[0][: moving.shape[1], : moving.shape[2]]).mean() < 8
        image = events[f"videos/{name}"]
        (tmp_path / "event.gif").write_bytes(image.encoded_image_string)
        assert len(read_gif(tmp_path / "event.gif")[0]) == min(160, len(frames))
        assert (image.height, image.width) == moving.shape[1:3]
    assert len(read_video(tmp_path / "long_dream.mp4")) == 6
    assert len(read_video(tmp_path / "agent_real.mp4")) == 9  # without the black one
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width > 6 * 128
        assert grid.height > 12 * 128


def test_without_episodes_and_agent_the_dreams_are_shown(model: WorldModel, tmp_path: Path) -> None:
    write_pictures(model, tmp_path, long_dream_steps=5)
    assert {path.name for path in tmp_path.glob("*.*")} == {
        "several_dreams.mp4",
        "temperatures.mp4",
        "long_dream.mp4",
        "captions.json",
    }


def test_the_dream_stands_beside_the_same_moment(store: EpisodeStore) -> None:
    # The oracle dreams what happens, so both must show the same, step by step, and no error.
    video = real_beside_dream(cast(Any, Oracle()), store, starts=2, steps=6)
    assert video.length == 2 * 7
    frames = np.stack(list(video))[:, 14:]
    real, dream, error = frames[:, :, :256], frames[:, :, 260:516], frames[:, :, 520:]
    np.testing.assert_array_equal(real, dream)
    assert (real[0] != real[6]).any()  # something moved
    assert (error == BACKGROUND).all()


def test_the_error_map_shows_what_differs(store: EpisodeStore) -> None:
    frames = np.stack(list(real_beside_dream(cast(Any, BlindOracle()), store, starts=4, steps=6)))[:, 14:]
    real, dream, error = frames[:, :, :256], frames[:, :, 260:516], frames[:, :, 520:]
    differs = (real != dream).any(-1)
    assert differs.any()
    np.testing.assert_array_equal((error != BACKGROUND).any(-1), differs)
    assert (error[differs] > 200).all()  # by 190 levels, far beyond the scale


def tile(frame: NDArray[np.uint8], row: int, column: int) -> NDArray[np.uint8]:
    """The picture, without its label, of a tile of 160 pixels."""
    return frame[row * 178 + 14 : row * 178 + 174, column * 164 : column * 164 + 160]


def test_several_dreams_share_their_start_and_part(store: EpisodeStore) -> None:
    model = tiny_world()
    start = start_in_episode(model, store, steps=6)
    video = several_dreams(model, start)
    assert video.length == 1 + len(start.actions) == 7
    first, last = video.draw(0), video.draw(6)
    places = [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert all((tile(first, *place) == tile(first, 0, 0)).all() for place in places)
    assert len({tile(last, *place).tobytes() for place in places}) == 5
    assert start.real is not None
    np.testing.assert_array_equal(tile(last, 0, 0)[::10, ::10], start.real[-1])
    assert [a.tobytes() for a in video] == [a.tobytes() for a in several_dreams(model, start)]


@pytest.mark.parametrize("actions", ["discrete", "box"])
def test_the_sweep_holds_the_dream_at_the_own_temperature(actions: str) -> None:
    model = tiny_world(actions)
    start = start_in_context(model, steps=5)
    assert start.real is None
    sweep, dreams = temperature_sweep(model, start), several_dreams(model, start)
    # Without reality: T 0, 0.5 and 1 in the first row; the first dream has the same seed.
    own, first = (tile(video.draw(5), *place).astype(int) for video, place in ((sweep, (0, 2)), (dreams, (0, 0))))
    assert np.abs(own - first).max() <= 1  # a row of five and a row alone differ in the last bit
    assert (tile(sweep.draw(5), 0, 0) != tile(sweep.draw(5), 0, 2)).any()


def test_the_grid_shows_reality_reconstruction_and_dream(store: EpisodeStore) -> None:
    grid = draw_grid(cast(Any, Oracle()), store, starts=1, steps=(1, 2, 4))
    size, gap = 128, 4
    assert grid.shape[0] == 14 + 3 * (size + gap)
    rows = [grid[14 + gap + row * (size + gap) :][:size, -3 * size - 2 * gap :] for row in range(3)]
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0], rows[2])
    assert (rows[0] == 200).any()


def test_a_long_dream_is_acted_on_what_it_shows(model: WorldModel) -> None:
    shapes = []

    def look(observations: NDArray[Any]) -> Thoughts:
        shapes.append((observations.shape, str(observations.dtype)))
        return think(observations)

    video = long_dream(model, think=look, observation="pixels", steps=4)
    assert shapes == [((1, 16, 16, 3), "uint8")] * 5  # at the last frame too: what does it think there?
    assert video.length == 5
    assert video.draw(4).shape == (256, 256 + 4 + PANEL_PIXELS, 3)


@pytest.mark.parametrize("blank", [True, False])
def test_a_real_episode_is_shown_frame_by_frame(model: WorldModel, blank: bool) -> None:
    played = episode()
    assert played.frames is not None
    frames = played.frames if blank else played.frames[:-1]
    video = agent_in_reality(model, frames, played.actions[: len(frames) - 1], played.rewards, think, seed=5)
    assert video.length == 9
    shown = np.stack([frame[::16, :256:16] for frame in video])
    np.testing.assert_array_equal(shown, played.frames[:-1])
    assert "return 36." in video.caption
    assert "Value" in video.caption
