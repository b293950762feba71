"""Where ffmpeg is, which writes and reads all videos."""

from __future__ import annotations

from worldsim.errors import UserError


def ffmpeg_program() -> str:
    """Path of the ffmpeg that imageio-ffmpeg brings along or finds. UserError where there is none."""
    from imageio_ffmpeg import get_ffmpeg_exe

    try:
        return str(get_ffmpeg_exe())
    except RuntimeError as error:
        raise UserError(
            "videos need ffmpeg, and this machine has none: install it, name one in the environment variable "
            "IMAGEIO_FFMPEG_EXE, or reinstall imageio-ffmpeg from a wheel, which brings its own"
        ) from error
