"""A diffusion-transformer dream of any Gymnasium environment that shows pixels, and agents that learn in it.

Importing this package is cheap and has no side effects: torch and simulators come in with the modules that use them.
"""

from __future__ import annotations

__version__ = "0.1.0"
