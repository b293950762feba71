from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.videos import no_ffmpeg, read_gif, read_video, stream_description
from worldsim.errors import UserError
from worldsim.rendering import (
    BACKGROUND,
    enlarged,
    heat,
    labelled,
    picture_grid,
    side_by_side,
    tiled,
    to_rgb,
    write_gif,
    write_picture,
    write_video,
)


def clip(
    length: int, height: int = 16, width: int = 24, channels: int = 3
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Frame t is filled with 5 t."""
    values = 5 * np.arange(length, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(values, (length, height, width, channels)).copy()


@pytest.mark.parametrize("length", [1, 2, 7, 30, 50])
def test_a_video_has_every_frame_once(tmp_path: Path, length: int) -> None:
    frames = clip(length)
    path = write_video(frames, tmp_path / "new" / "video.mp4", frames_per_second=8.75)
    video = read_video(path)
    assert video.shape == (length, 16, 24, 3)
    np.testing.assert_allclose(video.mean((1, 2, 3)), frames.mean((1, 2, 3)), atol=3)
    assert [file.name for file in path.parent.iterdir()] == ["video.mp4"]


def test_odd_sizes_gray_and_enlargement(tmp_path: Path) -> None:
    gray = clip(5, 9, 13, 1)
    assert read_video(write_video(gray, tmp_path / "odd.mp4", frames_per_second=10)).shape == (5, 10, 14, 3)
    assert read_video(write_video(gray, tmp_path / "big.mp4", frames_per_second=10, scale=3)).shape == (5, 28, 40, 3)
    description = stream_description(tmp_path / "big.mp4")
    assert "yuv420p" in description  # what every player takes
    assert "10 fps" in description


def test_a_stream_of_frames_is_a_video_too(tmp_path: Path) -> None:
    path = write_video((frame for frame in clip(6)), tmp_path / "stream.mp4", frames_per_second=10)
    assert len(read_video(path)) == 6


def test_a_video_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no frames"):
        write_video([], tmp_path / "none.mp4", frames_per_second=10)
    with pytest.raises(ValueError, match="one size"):
        write_video([clip(1)[0], clip(1, 20)[0]], tmp_path / "sizes.mp4", frames_per_second=10)
    with pytest.raises(ValueError, match="uint8"):
        write_video(np.zeros((2, 4, 4, 3)), tmp_path / "floats.mp4", frames_per_second=10)
    with pytest.raises(UserError, match="cannot write"):
        write_video(clip(3), tmp_path / "rate.mp4", frames_per_second=0)  # ffmpeg refuses
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        write_video(clip(3), tmp_path / "file" / "video.mp4", frames_per_second=10)


@pytest.mark.parametrize("write", [write_video, write_gif])
def test_a_video_needs_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., Path]) -> None:
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", no_ffmpeg)
    with pytest.raises(UserError, match="reinstall imageio-ffmpeg"):
        write(clip(3), tmp_path / "video.gif", frames_per_second=10)
    assert list(tmp_path.iterdir()) == []


def test_an_old_video_survives_a_failure(tmp_path: Path) -> None:
    path = write_video(clip(3), tmp_path / "video.mp4", frames_per_second=10)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="one size"):
        write_video([clip(1)[0], clip(1, 20)[0]], path, frames_per_second=10)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("rate", "kept", "seconds"),
    [(8.75, 30, 30 / 8.75), (25.0, 30, 1.2), (30.0, 30, 1.0), (60.0, 15, 0.5), (120.0, 10, 0.25)],
)
def test_a_gif_has_every_frame_that_its_rate_allows_at_its_time(
    tmp_path: Path, rate: float, kept: int, seconds: float
) -> None:
    frames = clip(30)
    frames[10:20] = frames[10]  # the same picture again and again is no reason to drop one
    path = write_gif(frames, tmp_path / "new" / "moving.gif", frames_per_second=rate, scale=2)
    shown, hundredths = read_gif(path)
    assert shown.shape == (kept, 32, 48, 3)
    assert sum(hundredths) == pytest.approx(100 * seconds, abs=3)
    assert max(hundredths) - min(hundredths) <= 1
    assert min(hundredths) >= 2  # below, players take a tenth of a second
    np.testing.assert_allclose(shown.mean((1, 2, 3)), frames[:: 30 // kept].mean((1, 2, 3)), atol=3)
    assert [file.name for file in path.parent.iterdir()] == ["moving.gif"]


def test_a_gif_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no frames"):
        write_gif([], tmp_path / "none.gif", frames_per_second=10)
    with pytest.raises(ValueError, match="one size"):
        write_gif([clip(1)[0], clip(1, 20)[0]], tmp_path / "sizes.gif", frames_per_second=10)
    with pytest.raises(UserError, match="cannot write"):
        write_gif(clip(3), tmp_path / "rate.gif", frames_per_second=0)  # ffmpeg refuses
    assert list(tmp_path.iterdir()) == []


def test_tiles_fill_rows_and_leave_the_rest_empty() -> None:
    frames = clip(4, 4, 6)
    joined = tiled(list(frames), columns=3, gap=2)
    assert joined.shape == (10, 22, 3)
    assert (joined[:4, 16:] == 10).all()
    assert (joined[4:6] == BACKGROUND).all()
    assert (joined[6:, :6] == 15).all()
    assert (joined[6:, 6:] == BACKGROUND).all()
    with pytest.raises(ValueError, match="tiles"):
        tiled([], columns=3)


def test_heat_rises_from_dark_to_white() -> None:
    colours = heat(np.array([[-1.0, 0.0, 0.3, 0.6, 1.0, 5.0]]))[0]
    assert (colours[0] == BACKGROUND).all()
    np.testing.assert_array_equal(colours[0], colours[1])
    np.testing.assert_array_equal(colours[4], colours[5])
    brightness = colours[1:5].astype(int).sum(1)
    assert (np.diff(brightness) > 0).all()
    assert (colours[4] > 200).all()


def test_enlarging_repeats_pixels() -> None:
    frame = np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1)
    assert enlarged(frame, 2)[0, :, :, 0].tolist() == [
        [0, 0, 1, 1, 2, 2],
        [0, 0, 1, 1, 2, 2],
        [3, 3, 4, 4, 5, 5],
        [3, 3, 4, 4, 5, 5],
    ]
    with pytest.raises(ValueError, match="scale"):
        enlarged(frame, 0)


def test_clips_stand_side_by_side() -> None:
    joined = side_by_side(clip(3, 4, 5), clip(3, 4, 6, channels=1), gap=2)
    assert joined.shape == (3, 4, 13, 3)
    assert (joined[2, :, :5] == 10).all()
    assert (joined[2, :, 5:7] == BACKGROUND).all()
    assert (joined[2, :, 7:] == 10).all()
    with pytest.raises(ValueError, match="one length and height"):
        side_by_side(clip(3), clip(4))


def test_labels_stand_above_and_change_with_the_frame() -> None:
    plain = clip(3, 16, 60)
    marked = labelled(plain, ["one", "two", "two"])
    np.testing.assert_array_equal(marked[:, -16:], plain)
    assert marked.shape == (3, 30, 60, 3)
    assert (marked[0, :14] > 100).any()  # there is ink
    assert not np.array_equal(marked[0, :14], marked[1, :14])
    np.testing.assert_array_equal(marked[1, :14], marked[2, :14])
    with pytest.raises(ValueError, match="2 labels for 3 frames"):
        labelled(plain, ["one", "two"])


def test_a_grid_puts_each_picture_in_its_place(tmp_path: Path) -> None:
    frames = clip(4, 8, 8)
    grid = picture_grid([("a", [frames[1], None]), ("bb", [frames[2], frames[3]])], ["x", "y"], scale=2, gap=4)
    height, width, _ = grid.shape
    assert height == 14 + 2 * (16 + 4)
    pictures = grid[:, width - 36 :]
    assert (pictures[18:34, :16] == 5).all()
    assert (pictures[18:34, 20:] == BACKGROUND).all()
    assert (pictures[38:54, :16] == 10).all()
    assert (pictures[38:54, 20:] == 15).all()
    path = write_picture(grid, tmp_path / "grid.png")
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), grid)
    with pytest.raises(ValueError, match="rows of"):
        picture_grid([("a", [frames[0]])], ["x", "y"])
    with pytest.raises(ValueError, match="one size"):
        picture_grid([("a", [None])], ["x"])


def test_to_rgb_takes_frames_only() -> None:
    assert to_rgb(clip(2, channels=1)).shape == (2, 16, 24, 3)
    with pytest.raises(ValueError, match=r"got uint8 \(2, 16, 24, 4\)"):
        to_rgb(clip(2, channels=4))
