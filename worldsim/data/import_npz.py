"""Episodes in npz files, one file each: the plainest way to bring data."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from worldsim.data.recordings import ImportSettings, Recording, Source, infer_spec, with_channels
from worldsim.errors import UserError

REQUIRED = ("frames", "actions")
PER_STEP = ("rewards", "terminated", "truncated")
SCALARS = ("seed", "policy", "split", "tics", "round")
FRAMES_PER_SECOND = 30.0  # npz files state no rate; env.json may


def read_npz(folder: Path, settings: ImportSettings) -> Source:
    """The npz files of `folder`, sorted by name.

    Each holds `frames` uint8 (T+1, H, W, C), `actions` (T,) or (T, A), `rewards` (T,), and where known `terminated`
    and `truncated` (T,), `seed`, `policy`, `split`, `tics` and `round`. Raises UserError for anything else.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".npz")
    shape = with_channels(_load(paths[0])["frames"], paths[0].name).shape[1:]
    actions = ((path.name, _load(path, only="actions")["actions"]) for path in paths)
    spec, remarks = infer_spec(folder, actions, shape, FRAMES_PER_SECOND, settings)
    return Source(spec, len(paths), partial(_recordings, paths), remarks)


def _recordings(paths: list[Path]) -> Iterator[Recording]:
    for path in paths:
        arrays = _load(path)
        scalars = {name: arrays.pop(name).item() for name in SCALARS if name in arrays}
        yield Recording(path.name, **arrays, **scalars)


def _load(path: Path, only: str | None = None) -> dict[str, Any]:
    """The arrays of a file by name, or one of them."""
    try:
        with np.load(path, allow_pickle=False) as file:
            names = set(file)
            missing = [name for name in REQUIRED if name not in names]
            unknown = sorted(names - {*REQUIRED, *PER_STEP, *SCALARS})
            if missing or unknown:
                wrong = f"no {' and no '.join(missing)}" if missing else f"unknown arrays {', '.join(unknown)}"
                expected = ", ".join((*REQUIRED, *PER_STEP, *SCALARS))
                raise UserError(f"{path.name}: {wrong}; it holds {', '.join(sorted(names))}, known are {expected}")
            return {name: file[name] for name in (names if only is None else [only])}
    except (AttributeError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path.name} cannot be read as npz ({error}); write it again or leave it out") from error
