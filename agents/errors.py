"""The errors of this package: all are ValueErrors whose one-line message says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UnusableSpaceError(ValueError):
    """A vector env's spaces or settings do not fit what the agents can learn in."""


class AgentConfigError(ValueError):
    """A setting of an agent is outside its range, or a checkpoint belongs to other settings."""


class PolicyFileError(ValueError):
    """A saved policy is missing, damaged, or not a policy at all."""


@contextmanager
def fitting_checkpoint() -> Iterator[None]:
    """Raise AgentConfigError where a checkpoint does not fit what it is read into."""
    try:
        yield
    except (KeyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise AgentConfigError(f"The checkpoint belongs to another agent or other settings: {reason}") from error
