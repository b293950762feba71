"""Real environments as pixels: `make(EnvConfig(id=...))` for any registered Gymnasium id that shows a picture.

Simulators are imported when `make` needs them.
"""

from __future__ import annotations

from worldsim.envs.config import EnvConfig
from worldsim.envs.errors import InvalidActionError, UnusableEnvironmentError
from worldsim.envs.make import describe, make, read_state, telling, tics_per_second

__all__ = [
    "EnvConfig",
    "InvalidActionError",
    "UnusableEnvironmentError",
    "describe",
    "make",
    "read_state",
    "telling",
    "tics_per_second",
]
