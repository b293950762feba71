"""The errors of this package: all are ValueErrors whose one-line message says what to do."""

from __future__ import annotations


class UnusableSpaceError(ValueError):
    """A vector env's spaces or settings do not fit what the agents can learn in."""


class AgentConfigError(ValueError):
    """A setting of an agent is outside its range, or a checkpoint belongs to other settings."""


class PolicyFileError(ValueError):
    """A saved policy is missing, damaged, or not a policy at all."""
