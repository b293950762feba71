"""What a viewer recorded, as mp4."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from worldsim.rendering import Frames, enlarged, labelled, side_by_side, write_video

LARGEST_BYTES = 2**26  # of frames kept: 5,000 of 64x64
PICTURE_PIXELS = 256  # about the height to which small frames are enlarged


@dataclass
class Recording:
    """Frames uint8 (H, W, 3) in the order they were shown, of the dream and, where there is one, of the real env."""

    dream: list[Frames] = field(default_factory=list)
    real: list[Frames] = field(default_factory=list)

    def __len__(self) -> int:
        """How many moments there are."""
        return len(self.dream)

    @property
    def is_full(self) -> bool:
        """Whether no more is kept."""
        return sum(len(frames) * frames[0].nbytes for frames in (self.dream, self.real) if frames) >= LARGEST_BYTES

    def add(self, dream: Frames, real: Frames | None) -> None:
        """Keep one moment, unless the recording is full."""
        if self.is_full:
            return
        self.dream.append(dream)
        if real is not None:
            self.real.append(real)


def mp4(recording: Recording, frames_per_second: float) -> bytes:
    """The recording as a file, every moment once, reality on the left. Raises UserError where ffmpeg cannot write."""
    scale = max(1, PICTURE_PIXELS // recording.dream[0].shape[0])
    clip = enlarged(np.stack(recording.dream), scale)
    if recording.real:
        real = enlarged(np.stack(recording.real), scale)
        clip = side_by_side(labelled(real, "reality"), labelled(clip, "dream"))
    with TemporaryDirectory() as folder:
        return write_video(clip, Path(folder) / "dream.mp4", frames_per_second=frames_per_second).read_bytes()
