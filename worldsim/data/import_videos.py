"""Videos, each with a file of actions of the same stem: what people have who recorded a screen and its keys."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.data.recordings import ImportSettings, Recording, Source, check_lengths, infer_spec, scaled
from worldsim.errors import UserError
from worldsim.ffmpeg import ffmpeg_program

SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm")
STEP_COLUMNS = ("reward", "terminated", "truncated")
WORDS = {"true": "1", "false": "0"}  # that stand for numbers


def read_videos(folder: Path, settings: ImportSettings) -> Source:
    """The videos of `folder`, sorted by name, each with `STEM.npy` or `STEM.csv` beside it.

    A video of T + 1 frames has T actions. npy: (T,) whole numbers or (T, A). CSV: a row for each step; with a header
    the columns `reward`, `terminated` and `truncated` mean that and all others are the action, without one all are
    the action. Raises UserError for what cannot be read and for videos of several frame rates.
    """
    videos = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
    paths = [(video, _steps_file(video)) for video in videos]
    rates = {video.name: _size_and_rate(video)[1] for video in videos}
    slow, fast = min(rates, key=lambda name: rates[name]), max(rates, key=lambda name: rates[name])
    if rates[fast] > 1.01 * rates[slow]:
        given = f"{slow} has {rates[slow]:g} frames a second, {fast} {rates[fast]:g}"
        raise UserError(f"{given}: expected one rate, else a step means different times; import them apart")
    actions = ((video.name, _read_steps(steps)["actions"]) for video, steps in paths)
    (width, height), rate = _size_and_rate(videos[0])
    spec, remarks = infer_spec(folder, actions, (height, width, 3), rate, settings)
    return Source(spec, len(paths), partial(_recordings, paths, settings), remarks)


def read_video(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """All frames of a video, uint8 (T, H, W, 3), each once whatever its time stamp, scaled to (H, W) = `size`.

    Raises UserError where a single frame cannot be decoded: what follows a gap would belong to other actions.
    """
    (width, height), _ = _size_and_rate(path)
    command = [ffmpeg_program(), "-nostdin", "-v", "error", "-xerror", "-i", str(path)]
    command += ["-map", "0:v:0", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    frames, frame_bytes = [], width * height * 3
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ffmpeg:
        assert ffmpeg.stdout is not None
        assert ffmpeg.stderr is not None
        while len(data := ffmpeg.stdout.read(frame_bytes)) == frame_bytes:
            frames.append(scaled(np.frombuffer(data, np.uint8).reshape(1, height, width, 3), size))
        errors = ffmpeg.stderr.read().decode(errors="replace").splitlines()
    if ffmpeg.returncode or errors or data or not frames:
        raise _broken(path, f"after {len(frames)} frames: {errors[0] if errors else 'no more pictures'}")
    return np.concatenate(frames)


def _recordings(paths: list[tuple[Path, Path]], settings: ImportSettings) -> Iterator[Recording]:
    for video, steps in paths:
        frames = read_video(video, settings.size)
        values: dict[str, Any] = _read_steps(steps)
        check_lengths(f"{video.name} and {steps.name}", len(frames), len(values["actions"]))
        yield Recording(video.name, frames, **values)


def _size_and_rate(path: Path) -> tuple[tuple[int, int], float]:
    """((W, H), frames per second)."""
    from imageio_ffmpeg import read_frames

    reader = read_frames(str(path))
    try:
        about = next(reader)
    except (OSError, StopIteration, RuntimeError) as error:
        raise _broken(path, (str(error).strip().splitlines() or ["no video stream"])[-1]) from error
    finally:
        reader.close()
    width, height = about["size"]  # as ffmpeg shows it: a recording may say that it is to be turned
    return (width, height), float(about["fps"])


def _steps_file(video: Path) -> Path:
    found = [path for path in (video.with_suffix(suffix) for suffix in (".npy", ".csv")) if path.exists()]
    if len(found) != 1:
        given = "both" if found else "neither"
        raise UserError(f"{video.name}: {given} {video.stem}.npy and {video.stem}.csv beside it, expected one of them")
    return found[0]


def _read_steps(path: Path) -> dict[str, NDArray[Any]]:
    """`actions` and, from a CSV with such columns, `rewards`, `terminated` and `truncated`."""
    if path.suffix == ".npy":
        try:
            return {"actions": np.load(path, allow_pickle=False)}
        except (ValueError, OSError) as error:
            raise UserError(f"{path.name} cannot be read as npy ({error}); write it with numpy.save") from error
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    header = [name.strip() for name in rows[0]] if rows and not _is_data(rows[0][0]) else []
    if header and not all(header):
        raise UserError(
            f"{path.name}: a column of its header has no name (a table's row numbers, perhaps): name it or leave it out"
        )
    body = rows[1:] if header else rows
    names = header or [f"action {column}" for column in range(len(rows[0]) if rows else 1)]
    table = _parse(path, body, len(names))
    columns = dict(zip(names, table.T, strict=True))
    acting = [column for column, name in enumerate(names) if name not in STEP_COLUMNS]
    if not acting:
        raise UserError(f"{path.name}: columns {', '.join(names)}; expected a column for the action too")
    actions = table[:, acting]  # (T, A)
    if len(acting) == 1:
        actions = actions[:, 0]
        if all(_plain(row[acting[0]]).lstrip("+-").isdigit() for row in body):
            actions = actions.astype(np.int64)
    steps = {"actions": actions}
    for name, stored in (("reward", "rewards"), ("terminated", "terminated"), ("truncated", "truncated")):
        if name in columns:
            steps[stored] = columns[name]
    return steps


def _parse(path: Path, rows: list[list[str]], columns: int) -> NDArray[np.float64]:
    """(T, columns); True and False count as 1 and 0."""
    table = np.empty((len(rows), columns))
    for number, row in enumerate(rows):
        try:
            # Checked first: numpy would spread one number over all columns.
            if len(row) != columns:
                raise ValueError(len(row))
            table[number] = [float(_plain(cell)) for cell in row]
        except ValueError as error:
            raise UserError(f"{path.name}, step {number}: {','.join(row)}; expected {columns} numbers") from error
    return table


def _plain(cell: str) -> str:
    """What stands in a cell, True and False as numbers."""
    return WORDS.get(cell.strip().lower(), cell.strip())


def _is_data(cell: str) -> bool:
    """Whether a cell holds a number and not the name of a column."""
    try:
        float(_plain(cell))
    except ValueError:
        return False
    return True


def _broken(path: Path, reason: str) -> UserError:
    return UserError(f"{path.name} is broken or no video ({reason}); record or convert it again, or leave it out")
