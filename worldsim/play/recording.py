"""What a viewer recorded, as mp4."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

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
    with TemporaryDirectory() as folder:
        file = write_video(_pictures(recording), Path(folder) / "dream.mp4", frames_per_second=frames_per_second)
        return file.read_bytes()


def _pictures(recording: Recording) -> Iterator[Frames]:
    """Enlarged and labelled, one at a time: all of them together would take hundreds of times what was kept."""
    scale = max(1, PICTURE_PIXELS // recording.dream[0].shape[0])
    for moment, dream in enumerate(recording.dream):
        picture = enlarged(dream[None], scale)
        if recording.real:
            real = enlarged(recording.real[moment][None], scale)
            picture = side_by_side(labelled(real, "reality"), labelled(picture, "dream"))
        yield picture[0]
