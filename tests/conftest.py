"""What all tests share: one thread per process, no window, no sound."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from worldsim.waiting import wait_briefly

# A job in the background of a shell inherits an ignored Ctrl-C, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before torch or a simulator is imported, and handed down to the processes that tests start. Bitwise comparisons need a
# fixed number of threads, and parallel test workers are faster with one each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
wait_briefly()  # commands that tests run in this process set as many threads as there are cores
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return Path(__file__).parent.parent
