"""What all commands are declared with."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn

Add = Callable[[str, str, str], argparse.ArgumentParser]
"""Adds a command: its name, a summary, and examples for its --help."""

MODEL_HELP = "a world model folder, a run folder, or a released model's name"


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")
