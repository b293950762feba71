"""A diffusion-transformer dream of any Gymnasium environment that shows pixels, and agents that learn in it.

Importing this package is cheap: it makes the dream known to Gymnasium, and no more. torch and simulators come in with
the modules that use them.
"""

from __future__ import annotations

__version__ = "0.1.0"


def _register() -> None:
    """Make the dream known to Gymnasium: `gymnasium.make("worldsim:worldsim/Dream-v0", model=...)`."""
    from gymnasium.envs.registration import register

    register(
        id="worldsim/Dream-v0",
        entry_point="worldsim.dream:DreamEnv",
        vector_entry_point="worldsim.dream:DreamVectorEnv",
    )


_register()
