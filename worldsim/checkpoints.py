"""Checkpoints: all that the next step of a training depends on, replaced in one atomic move.

A crash, a kill or a full disk leaves the one before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch

from worldsim import distributed
from worldsim.data.files import sync_folders, whole_file
from worldsim.errors import UserError

CHECKPOINT = "checkpoint.pt"
_FORMAT = 1


class Resumable(Protocol):
    """Something whose state can be kept."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next update depends on: tensors and plain Python values only."""

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """The inverse of `state_dict`."""


@dataclass(frozen=True)
class FitResult:
    """steps: updates done since the very first start. seconds: time they took, over all resumes."""

    steps: int
    seconds: float


def resume(learner: Resumable, folder: Path) -> FitResult:
    """Load the checkpoint in `folder` into `learner` and the random states; zero steps when there is none.

    Raises UserError for a checkpoint that cannot be read or does not fit the learner.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return FitResult(0, 0.0)
    checkpoint = read_checkpoint(folder)
    try:
        learner.load_state_dict(checkpoint["learner"])
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"checkpoint {path} does not fit this configuration ({_first_line(error)}): "
            "use the configuration it was made with, or another folder"
        ) from error
    _set_random_states(checkpoint["random"])
    return FitResult(int(checkpoint["steps"]), float(checkpoint["seconds"]))


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """What the checkpoint in `folder` holds: "steps", "seconds", "learner" (its state_dict) and "random".

    Raises UserError for one that is missing, damaged or foreign.
    """
    path = folder / CHECKPOINT
    remedy = "restore it, or delete it to start over"
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise UserError(f"checkpoint {path} cannot be read ({_first_line(error)}): {remedy}") from error
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != _FORMAT:
        raise UserError(f"checkpoint {path} is not one of worldsim's, format {_FORMAT}: {remedy}")
    return checkpoint


def save_checkpoint(learner: Resumable, folder: Path, done: FitResult) -> None:
    """Replace the checkpoint in `folder` in one atomic move; UserError, and the old one stays, on a full disk.

    Processes that share a training call it together, and the first one writes what one process would have written.
    """
    path = folder / CHECKPOINT
    checkpoint = {
        "format": _FORMAT,
        "steps": done.steps,
        "seconds": done.seconds,
        "learner": learner.state_dict(),
        "random": _random_states(),
    }
    if distributed.rank() > 0:
        return
    with file_errors(folder, f"cannot save {path}"):
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            torch.save(checkpoint, file)
        sync_folders(folder)


# --- random states ---------------------------------------------------------------------------------------------------


def _random_states() -> dict[str, Any]:
    algorithm, keys, position, has_gauss, gauss = cast(tuple[Any, ...], np.random.get_state())  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (str(algorithm), keys.tolist(), int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
        "cuda": _cuda_states(),
    }


def _cuda_states() -> list[torch.Tensor]:
    """Of all GPUs; of processes that share a training each uses one, in the same state as the first one's."""
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_rng_state()] if distributed.size() > 1 else torch.cuda.get_rng_state_all()


def seed_random_states(seed: int) -> None:
    """Seed all generators that belong to nobody: Python's, numpy's and torch's."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def _set_random_states(states: Mapping[str, Any]) -> None:
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    algorithm, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((algorithm, np.asarray(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and states["cuda"] and distributed.size() > 1:
        torch.cuda.set_rng_state(states["cuda"][0])
    elif torch.cuda.is_available():
        for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, device)


# --- files ----------------------------------------------------------------------------------------------------------


@contextmanager
def file_errors(folder: Path, what: str) -> Iterator[None]:
    """A full or read-only disk becomes a UserError. torch.save reports the same failures as RuntimeError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else _first_line(error)
        raise UserError(
            f"{what} ({reason}): make room in {folder} or make it writable, then run the same command again to continue"
        ) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
