"""Reading back what was written."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
from imageio_ffmpeg import count_frames_and_secs, get_ffmpeg_exe, read_frames
from numpy.typing import NDArray


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
