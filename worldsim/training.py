"""The one training loop: `fit` runs, logs, saves and resumes any `Learner`.

Rerunning the same call resumes it. A checkpoint holds everything that the next step depends on, so 20 steps equal
10 steps, a crash and 10 more, bit for bit.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from worldsim import distributed
from worldsim.checkpoints import FitResult, Resumable, file_errors, resume, save_checkpoint, seed_random_states
from worldsim.errors import UserError
from worldsim.training_log import ProgressBar, TrainingLog


class Learner(Resumable, Protocol):
    """Something that gets better with every `update`.

    It may also have `images(step) -> dict[str, uint8 (H, W, C) array]`, pictures for TensorBoard.
    """

    def update(self) -> dict[str, float]:
        """One training step; returns metrics, "loss" among them where there is one."""


class TrainingError(UserError):
    """Training cannot go on: a loss stopped being a finite number."""


def fit(
    learner: Learner,
    *,
    steps: int,
    folder: Path,
    name: str,
    checkpoint_seconds: float = 120,
    checkpoint_steps: int | None = None,
    log_every: int = 10,
    images_every: int = 0,
    progress: bool = True,
    seed: int = 0,
) -> FitResult:
    """Call `learner.update()` until `steps` updates are done, counted over all runs in `folder`.

    Resumes from the checkpoint in `folder`, and returns at once, with the learner loaded, when that is finished. A
    checkpoint is written every `checkpoint_seconds` or `checkpoint_steps`, whichever comes first, when a signal stops
    the run, and at the end. Metrics are averaged over `log_every` steps. `images_every=0` draws no pictures. Layers
    that draw from torch's own generator, such as dropout, follow from `seed`, in whatever process the training begins.
    Of several processes that share the training the first one logs, draws and saves.

    Raises TrainingError for a loss that is not finite (the last checkpoint is kept), KeyboardInterrupt after Ctrl-C
    and UserError after SIGTERM (both save first), and UserError for a folder that cannot be written or a checkpoint
    that does not fit the learner.
    """
    seed_random_states(seed)
    start = resume(learner, folder)
    if start.steps >= steps:
        return start
    with file_errors(folder, f"cannot log {name}"):
        log = TrainingLog(folder, name, start.steps) if distributed.rank() == 0 else None
    clock = _Clock(start.seconds)
    step, saved = start.steps, start
    saved_at = time.monotonic()
    pending: list[dict[str, float]] = []

    shown = progress and log is not None
    with log or nullcontext(), ProgressBar(name, step, steps, shown) as bar, _Signals() as signals:
        while step < steps:
            metrics = learner.update()
            step += 1
            _check_finite(metrics, name, step, saved.steps)
            pending.append(metrics)
            bar.advance(metrics)
            if log is not None and (step % log_every == 0 or step == steps):
                with file_errors(folder, f"cannot log {name}"):
                    log.scalars(step, clock.seconds(), _means(pending))
                pending = []
            if log is not None and images_every and (step % images_every == 0 or step == steps):
                pictures = _pictures(learner, step)
                with file_errors(folder, f"cannot log {name}"):
                    log.images(step, pictures)
            due = time.monotonic() - saved_at >= checkpoint_seconds
            due = due or (checkpoint_steps is not None and step - saved.steps >= checkpoint_steps) or step == steps
            # Clocks differ between processes, and so does the step at which a signal comes; what follows must not.
            must_save, stop = distributed.largest(due, signals.number)
            if must_save or stop:
                saved = FitResult(step, clock.seconds())
                save_checkpoint(learner, folder, saved)
                saved_at = time.monotonic()
            if stop:
                _raise_stopped(stop, name, step, steps)
    return saved


# --- stopping --------------------------------------------------------------------------------------------------------


class _Signals:
    """While entered, SIGINT and SIGTERM are noted in `number` (else 0); a second one acts at once, as before."""

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before = {}


def _raise_stopped(number: int, name: str, step: int, steps: int) -> None:
    message = f"{name} was stopped at step {step} of {steps} and saved: run the same command again to continue"
    if number == signal.SIGINT:
        raise KeyboardInterrupt(message)
    raise UserError(message)


def _check_finite(metrics: Mapping[str, float], name: str, step: int, saved_step: int) -> None:
    for key, value in metrics.items():
        is_loss = key == "loss" or key.endswith(("_loss", "/loss")) or key == "grad_norm"
        if is_loss and not math.isfinite(value):
            kept = f"the checkpoint of step {saved_step} is kept" if saved_step else "no checkpoint was written yet"
            raise TrainingError(
                f"{name}: {key} became {value} at step {step} ({kept}): lower the learning rate, or compute in fp32"
            )


class _Clock:
    def __init__(self, seconds_before: float) -> None:
        self._before = seconds_before
        self._start = time.monotonic()

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._start


def _means(records: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each metric over the records that have it."""
    keys = dict.fromkeys(key for record in records for key in record)
    return {key: float(np.mean([record[key] for record in records if key in record])) for key in keys}


def _pictures(learner: Learner, step: int) -> dict[str, NDArray[np.uint8]]:
    draw = cast(Callable[[int], dict[str, NDArray[np.uint8]]] | None, getattr(learner, "images", None))
    return {} if draw is None else draw(step)
