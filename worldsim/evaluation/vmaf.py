"""VMAF, Netflix's measure of video quality, by the ffmpeg that imageio-ffmpeg brings along."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worldsim.errors import UserError
from worldsim.ffmpeg import ffmpeg_program
from worldsim.rendering import Frames, enlarged, to_rgb

SMALLEST = 192  # pixels of the shorter side: VMAF looks at four scales and was made for large pictures


def has_vmaf() -> bool:
    """Whether this machine's ffmpeg measures VMAF."""
    shown = subprocess.run([ffmpeg_program(), "-hide_banner", "-filters"], capture_output=True, text=True, check=False)
    return "libvmaf" in shown.stdout


def vmaf_by_frame(frames: Frames, truth: Frames) -> NDArray[np.float64]:
    """VMAF (0 to 100) of each frame of a clip (T, H, W, C) against the real clip of the same shape, enlarged.

    Raises UserError if ffmpeg cannot measure it.
    """
    if frames.shape != truth.shape:
        raise ValueError(f"VMAF compares clips of one shape, got {frames.shape} and {truth.shape}")
    with tempfile.TemporaryDirectory() as folder:
        inputs: list[str] = []
        for name, clip in (("dreamt", frames), ("real", truth)):
            large = enlarged(to_rgb(clip), -(-SMALLEST // min(clip.shape[1:3])))
            (Path(folder) / name).write_bytes(np.ascontiguousarray(large).tobytes())
            size = f"{large.shape[2]}x{large.shape[1]}"
            inputs += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", "25", "-i", name]
        # yuv444p takes odd sizes, and a picture of large squares keeps their colours.
        measure = "[0:v]format=yuv444p[a];[1:v]format=yuv444p[b];[a][b]libvmaf=log_fmt=json:log_path=log.json"
        call = [ffmpeg_program(), "-hide_banner", "-loglevel", "error", *inputs, "-lavfi", measure, "-f", "null", "-"]
        done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"ffmpeg could not measure VMAF ({reason}): install an imageio-ffmpeg with libvmaf")
        log = json.loads((Path(folder) / "log.json").read_text(encoding="utf-8"))
    return np.array([frame["metrics"]["vmaf"] for frame in log["frames"]], np.float64)
