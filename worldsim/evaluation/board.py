"""Videos in TensorBoard: as GIFs, which its image page plays. Its own `add_video` writes nothing with moviepy 2."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from worldsim.data.files import explained
from worldsim.rendering import Frames, write_gif

LARGEST_FRAMES = 160  # of a video: the page loads all of it before it shows any


def log_videos(folder: Path, videos: Iterable[tuple[str, Iterable[Frames]]], *, step: int, rate: float) -> None:
    """Writes (name, frames (H, W, C)) of each video to the event files in `folder`, at `rate` frames per second.

    Raises UserError if they cannot be written.
    """
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import SummaryWriter

    with explained("log videos", folder), tempfile.TemporaryDirectory() as temporary:
        writer = SummaryWriter(str(folder))
        events: Any = writer.file_writer
        try:
            for name, frames in videos:
                path = write_gif(islice(frames, LARGEST_FRAMES), Path(temporary) / "video.gif", frames_per_second=rate)
                with Image.open(path) as image:
                    width, height = image.size
                gif = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes())
                value = Summary.Value(tag=f"videos/{name}", image=gif)
                events.add_summary(Summary(value=[value]), step)
        finally:
            writer.close()
