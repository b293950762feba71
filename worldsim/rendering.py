"""Frames to pictures and videos. Frames are uint8 [0, 255], a clip is (T, H, W, C), C = 1 (grayscale) or 3 (RGB)."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.errors import UserError
from worldsim.ffmpeg import ffmpeg_program

Frames = NDArray[np.uint8]
BACKGROUND = 24  # of gaps, padding and missing pictures
INK = 230
TEXT_PIXELS = 12  # height of a line of text
GIF_LARGEST_RATE = 50.0  # frames per second: players show what is meant to be faster at 10
# Dark, red, orange, white: from nothing to the most.
_HEAT = np.array([[BACKGROUND] * 3, [150, 30, 60], [250, 150, 40], [255, 255, 225]], np.float64)


def to_rgb(frames: Frames) -> Frames:
    """(..., H, W, 1) or (..., H, W, 3) -> (..., H, W, 3). ValueError for anything else."""
    if frames.dtype != np.uint8 or frames.ndim < 3 or frames.shape[-1] not in (1, 3):
        raise ValueError(f"frames must be uint8 (..., H, W, 1 or 3), got {frames.dtype} {frames.shape}")
    return np.repeat(frames, 3, axis=-1) if frames.shape[-1] == 1 else frames


def enlarged(frames: Frames, scale: int) -> Frames:
    """Every pixel of (..., H, W, C) as a square of `scale` by `scale`."""
    if scale < 1:
        raise ValueError(f"scale must be 1 or more, got {scale}")
    return frames.repeat(scale, axis=-3).repeat(scale, axis=-2)


def side_by_side(*clips: Frames, gap: int = 4) -> Frames:
    """Clips (T, H, W_i, C) from left to right with `gap` pixels between them, (T, H, W, 3)."""
    if not clips or len({clip.shape[:2] for clip in clips}) != 1:
        raise ValueError(f"clips side by side need one length and height, got {[clip.shape for clip in clips]}")
    clips = tuple(to_rgb(clip) for clip in clips)
    length, height = clips[0].shape[:2]
    between = np.full((length, height, gap, 3), BACKGROUND, np.uint8)
    parts = [part for clip in clips for part in (between, clip)]
    return np.concatenate(parts[1:], axis=2)


def tiled(frames: Sequence[Frames], columns: int, gap: int = 4) -> Frames:
    """Frames (H, W, C) of one size in rows of `columns`, (H', W', 3); the rest of the last row stays empty."""
    if not frames or columns < 1:
        raise ValueError(f"tiles need a frame and a column, got {len(frames)} frames and {columns} columns")
    empty = np.full_like(to_rgb(frames[0]), BACKGROUND)
    rows = [list(frames[first : first + columns]) for first in range(0, len(frames), columns)]
    rows[-1] += [empty] * (columns - len(rows[-1]))
    joined = [side_by_side(*(frame[None] for frame in row), gap=gap)[0] for row in rows]
    between = np.full((gap, joined[0].shape[1], 3), BACKGROUND, np.uint8)
    return np.concatenate([part for row in joined for part in (between, row)][1:])


def heat(values: NDArray[Any]) -> Frames:
    """Numbers (..., H, W) as colours (..., H, W, 3): 0 is dark, 1 and more is white, over red and orange."""
    position = np.asarray(values, np.float64).clip(0, 1) * (len(_HEAT) - 1)
    below = np.minimum(position.astype(np.int64), len(_HEAT) - 2)
    share = (position - below)[..., None]
    return (_HEAT[below] * (1 - share) + _HEAT[below + 1] * share).round().astype(np.uint8)


def labelled(clip: Frames, text: str | Sequence[str]) -> Frames:
    """A clip (T, H, W, C) with a line of text above it, one for all frames or one for each: (T, H + 14, W, 3)."""
    texts = [text] * len(clip) if isinstance(text, str) else list(text)
    if len(texts) != len(clip):
        raise ValueError(f"{len(texts)} labels for {len(clip)} frames")
    strips = {line: text_picture(line, clip.shape[2], TEXT_PIXELS + 2) for line in set(texts)}
    above = np.stack([strips[line] for line in texts]) if texts else np.zeros((0, TEXT_PIXELS + 2, clip.shape[2], 3))
    return np.concatenate([above.astype(np.uint8), to_rgb(clip)], axis=1)


def text_picture(text: str, width: int, height: int) -> Frames:
    """A line of text on the background, (height, width, 3); what does not fit is cut off."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (width, height), (BACKGROUND,) * 3)
    font = ImageFont.load_default(size=TEXT_PIXELS - 2)
    ImageDraw.Draw(image).text((2, height // 2), text, fill=(INK,) * 3, font=font, anchor="lm")
    return np.asarray(image, np.uint8)


def picture_grid(
    rows: Sequence[tuple[str, Sequence[Frames | None]]], columns: Sequence[str], *, scale: int = 2, gap: int = 4
) -> Frames:
    """A table of pictures, uint8 (H, W, 3).

    rows: a label and one frame (H, W, C) per column each, None where there is no picture. columns: their labels.
    """
    frames = [frame for _, row in rows for frame in row if frame is not None]
    if not frames or len({frame.shape[:2] for frame in frames}) != 1:
        raise ValueError(f"a grid needs frames of one size, got {sorted({frame.shape for frame in frames})}")
    if any(len(row) != len(columns) for _, row in rows):
        raise ValueError(f"a grid of {len(columns)} columns got rows of {[len(row) for _, row in rows]} pictures")
    height, width = (size * scale for size in frames[0].shape[:2])
    margin = 8 + (TEXT_PIXELS * 6 // 10) * max(len(label) for label, _ in rows)
    lines = [
        [text_picture("", margin, TEXT_PIXELS + 2), *(text_picture(text, width, TEXT_PIXELS + 2) for text in columns)]
    ]
    for label, row in rows:
        nothing = np.full((height, width, 3), BACKGROUND, np.uint8)
        pictures = [nothing if frame is None else enlarged(to_rgb(frame), scale) for frame in row]
        lines.append([text_picture(label, margin, height), *pictures])
    joined = [side_by_side(*(picture[None] for picture in line), gap=gap)[0] for line in lines]
    between = np.full((gap, joined[0].shape[1], 3), BACKGROUND, np.uint8)
    return np.concatenate([part for line in joined for part in (line, between)][:-1])


def write_picture(picture: Frames, path: Path) -> Path:
    """Writes (H, W, C) as PNG, all of it or nothing. UserError if the disk does not take it."""
    from PIL import Image

    with _Replacing(path) as temporary:
        Image.fromarray(to_rgb(picture)).save(temporary, format="PNG")
    return path


def write_video(frames: Iterable[Frames], path: Path, *, frames_per_second: float, scale: int = 1) -> Path:
    """Writes frames (H, W, C), a clip or any stream of them, as mp4: every frame once, all of the file or nothing.

    Pixels become squares of `scale`; odd sizes are padded by one pixel, because the codec wants even ones. Raises
    UserError when there are no frames and when ffmpeg fails, for instance on a full disk.
    """
    ffmpeg_program()  # moviepy looks for it as it is imported, and says little
    from moviepy.video.io.ffmpeg_writer import FFMPEG_VideoWriter

    (height, width), pictures = _video_frames(frames, scale, path)
    with _Replacing(path) as temporary:
        writer = FFMPEG_VideoWriter(str(temporary), (width, height), frames_per_second, preset="fast")
        ffmpeg = writer.proc
        try:
            for picture in pictures:
                writer.write_frame(picture)
        finally:
            try:
                writer.close()  # waits for ffmpeg, but does not look at how it ended
            except BrokenPipeError as error:
                raise OSError("ffmpeg stopped") from error
        if ffmpeg.returncode:
            raise OSError(f"ffmpeg ended with code {ffmpeg.returncode}")
    return path


def write_gif(frames: Iterable[Frames], path: Path, *, frames_per_second: float, scale: int = 1) -> Path:
    """Writes frames as `write_video` does, as an endless GIF with a palette of its own.

    A GIF counts in hundredths of a second, so the delays differ by one where the rate asks for it. Above 50 frames per
    second it shows every second frame (or third, ...), at the right time.
    """
    stride = max(1, math.ceil(frames_per_second / GIF_LARGEST_RATE))
    (height, width), pictures = _video_frames(islice(frames, 0, None, stride), scale, path)
    with _Replacing(path) as temporary:
        command = [ffmpeg_program(), "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
        command += ["-s", f"{width}x{height}", "-r", repr(frames_per_second / stride), "-i", "-", "-filter_complex"]
        command += ["split[a][b];[a]palettegen[p];[b][p]paletteuse=dither=none", "-f", "gif", str(temporary)]
        ffmpeg = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        assert ffmpeg.stdin is not None
        try:
            for picture in pictures:
                ffmpeg.stdin.write(picture.tobytes())
        except BrokenPipeError:
            pass  # what it says as it ends tells more
        finally:
            _, said = ffmpeg.communicate()
        if ffmpeg.returncode:
            raise OSError(said.decode(errors="replace").strip() or f"ffmpeg ended with code {ffmpeg.returncode}")
    return path


def _video_frames(frames: Iterable[Frames], scale: int, path: Path) -> tuple[tuple[int, int], Iterator[Frames]]:
    """Height and width of the pictures that a codec takes, and the pictures. UserError if there are none."""
    stream = iter(frames)
    first = next(stream, None)
    if first is None:
        raise UserError(f"{path}: there are no frames to write; expected at least one")
    height, width, _ = _video_frame(first, scale).shape

    def pictures() -> Iterator[Frames]:
        for frame in chain([first], stream):
            picture = _video_frame(frame, scale)
            if picture.shape != (height, width, 3):
                raise ValueError(f"a video needs frames of one size, got {(height, width, 3)} and {picture.shape}")
            yield picture

    return (height, width), pictures()


def _video_frame(frame: Frames, scale: int) -> Frames:
    picture = enlarged(to_rgb(frame), scale)
    odd = [(0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)]
    return np.ascontiguousarray(np.pad(picture, odd, mode="edge"))


class _Replacing:
    """A temporary path beside `path` that replaces it when all went well; the system's errors become the user's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")  # ffmpeg goes by the suffix

    def __enter__(self) -> Path:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._explained(error) from error
        return self._temporary

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
        try:
            if error is None:
                os.replace(self._temporary, self._path)
            else:
                self._temporary.unlink(missing_ok=True)
        except OSError as failure:
            raise self._explained(failure) from failure
        if isinstance(error, OSError):
            raise self._explained(error) from error

    def _explained(self, error: OSError) -> UserError:
        reason = error.strerror or (str(error).strip().splitlines() or [type(error).__name__])[-1]
        return UserError(f"cannot write {self._path} ({reason}): make room or choose a folder that may be written")
