"""The errors of this package: all of them ValueErrors with a one-line message."""

from __future__ import annotations


class UnusableEnvironmentError(ValueError):
    """The environment or the settings cannot give (pictures, actions, rewards); the message says what would help."""


class InvalidActionError(ValueError):
    """An action that is not in the action space; the message names the value and the space."""
