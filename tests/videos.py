"""Reading back what was written."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from imageio_ffmpeg import count_frames_and_secs, get_ffmpeg_exe, read_frames
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def read_video(path: Path) -> NDArray[np.uint8]:
    """All frames, uint8 (T, H, W, 3)."""
    reader = read_frames(str(path))
    width, height = next(reader)["source_size"]
    frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    assert len(frames) == count_frames_and_secs(str(path))[0]
    return np.stack(frames)


def stream_description(path: Path) -> str:
    """What ffmpeg says about a file."""
    command = [get_ffmpeg_exe(), "-hide_banner", "-i", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def read_gif(path: Path) -> tuple[NDArray[np.uint8], list[int]]:
    """All frames, uint8 (T, H, W, 3), and how long each stands, in hundredths of a second."""
    frames, hundredths = [], []
    with Image.open(path) as image:
        for t in range(getattr(image, "n_frames", 1)):
            image.seek(t)
            frames.append(np.asarray(image.convert("RGB")))
            hundredths.append(round(image.info["duration"] / 10))
    return np.stack(frames), hundredths


def read_events(folder: Path) -> dict[str, Any]:
    """The newest image of each tag in TensorBoard's files."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return {tag: events.Images(tag)[-1] for tag in events.Tags()["images"]}


def no_ffmpeg() -> str:
    """What imageio-ffmpeg's `get_ffmpeg_exe` does on a machine without ffmpeg."""
    raise RuntimeError("No ffmpeg exe could be found.")
