"""What a training tells: metrics.jsonl, TensorBoard and a progress bar."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worldsim.checkpoints import file_errors
from worldsim.data.files import write_whole
from worldsim.errors import UserError

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"


class TrainingLog:
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

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with file_errors(self._folder, f"cannot log {self._name}"):
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
    write_whole(path, "".join(line + "\n" for line in kept).encode())


def _logged_step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the torn last line of a killed run
        return math.inf


class ProgressBar:
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

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
