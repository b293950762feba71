"""The one training loop: `fit` runs, logs, saves and resumes any `Learner`.

Rerunning the same call resumes it. A checkpoint holds everything that the next step depends on, so 20 steps equal
10 steps, a crash and 10 more, bit for bit. A checkpoint is replaced in one atomic move: a crash, a kill or a full disk
leaves the one before.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from worldsim import distributed
from worldsim.errors import UserError

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
_FORMAT = 1


class Learner(Protocol):
    """Something that gets better with every `update`.

    It may also have `images(step) -> dict[str, uint8 (H, W, C) array]`, pictures for TensorBoard.
    """

    def update(self) -> dict[str, float]:
        """One training step; returns metrics, "loss" among them where there is one."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next update depends on: tensors and plain Python values only."""

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """The inverse of `state_dict`."""


class TrainingError(UserError):
    """Training cannot go on: a loss stopped being a finite number."""


@dataclass(frozen=True)
class FitResult:
    """steps: updates done since the very first start. seconds: time they took, over all resumes."""

    steps: int
    seconds: float


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
    _seed_random_states(seed)
    start = resume(learner, folder)
    if start.steps >= steps:
        return start
    with _file_errors(folder, f"cannot log {name}"):
        log = _Log(folder, name, start.steps) if distributed.rank() == 0 else None
    clock = _Clock(start.seconds)
    step, saved = start.steps, start
    saved_at = time.monotonic()
    pending: list[dict[str, float]] = []

    shown = progress and log is not None
    with log or nullcontext(), _Bar(name, step, steps, shown) as bar, _Signals() as signals:
        while step < steps:
            metrics = learner.update()
            step += 1
            _check_finite(metrics, name, step, saved.steps)
            pending.append(metrics)
            bar.advance(metrics)
            if log is not None and (step % log_every == 0 or step == steps):
                with _file_errors(folder, f"cannot log {name}"):
                    log.scalars(step, clock.seconds(), _means(pending))
                pending = []
            if log is not None and images_every and (step % images_every == 0 or step == steps):
                pictures = _pictures(learner, step)
                with _file_errors(folder, f"cannot log {name}"):
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


def resume(learner: Learner, folder: Path) -> FitResult:
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


def save_checkpoint(learner: Learner, folder: Path, done: FitResult) -> None:
    """Replace the checkpoint in `folder` in one atomic move; UserError, and the old one stays, on a full disk.

    Processes that share a training call it together, and the first one writes what one process would have written.
    """
    path, temporary = folder / CHECKPOINT, folder / (CHECKPOINT + ".tmp")
    checkpoint = {
        "format": _FORMAT,
        "steps": done.steps,
        "seconds": done.seconds,
        "learner": learner.state_dict(),
        "random": _random_states(),
    }
    if distributed.rank() > 0:
        return
    with _file_errors(folder, f"cannot save {path}"):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(folder)


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


def _seed_random_states(seed: int) -> None:
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


# --- logging ---------------------------------------------------------------------------------------------------------


class _Log:
    """metrics.jsonl and TensorBoard, both without anything logged after the step that is resumed from."""

    def __init__(self, folder: Path, name: str, start_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only needed while training

        folder.mkdir(parents=True, exist_ok=True)
        _cut_metrics(folder / METRICS, start_step)
        self._folder, self._name = folder, name
        self._file = (folder / METRICS).open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / TENSORBOARD), purge_step=start_step + 1 if start_step else None)

    def scalars(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        line = {"step": step, "seconds": round(seconds, 3), **values}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for key, value in values.items():
            self._board.add_scalar(f"{self._name}/{key}", value, step)

    def images(self, step: int, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        for key, picture in pictures.items():
            self._board.add_image(f"{self._name}/{key}", picture, step, dataformats="HWC")

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with _file_errors(self._folder, f"cannot log {self._name}"):
                self._file.close()
                self._board.close()
        except UserError:
            if kind is None:  # else the error under way matters more
                raise


def _cut_metrics(path: Path, last_step: int) -> None:
    """Drop what a killed run logged after its last checkpoint: those steps are run, and logged, again."""
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _logged_step(line) <= last_step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    os.replace(temporary, path)


def _logged_step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the torn last line of a killed run
        return math.inf


class _Bar:
    """The progress bar: rate and time left from tqdm, and the newest loss."""

    def __init__(self, name: str, step: int, steps: int, shown: bool) -> None:
        from tqdm import tqdm

        self._bar = tqdm(
            desc=name, initial=step, total=steps, disable=not shown, unit="step", dynamic_ncols=True, smoothing=0.1
        )

    def advance(self, metrics: Mapping[str, float]) -> None:
        if "loss" in metrics:
            self._bar.set_postfix_str(f"loss {metrics['loss']:.4g}", refresh=False)
        self._bar.update()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


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


# --- files -----------------------------------------------------------------------------------------------------------


@contextmanager
def _file_errors(folder: Path, what: str) -> Iterator[None]:
    """A full or read-only disk becomes a UserError. torch.save reports the same failures as RuntimeError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else _first_line(error)
        raise UserError(
            f"{what} ({reason}): make room in {folder} or make it writable, then run the same command again to continue"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make the move itself survive a power cut, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
