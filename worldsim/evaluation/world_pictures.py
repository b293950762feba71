"""Frames that show what the figures on a world model mean: reality above, the dream below."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from worldsim.data.episode import EnvSpec
from worldsim.evaluation.branches import CONSTANTS, Branches
from worldsim.evaluation.horizons import Draws
from worldsim.evaluation.stretches import Stretches, decode, encode
from worldsim.rendering import Frames, picture_grid
from worldsim.world_model import WorldModel

FRAME_PIXELS = 96  # about the size of a frame in a picture


def horizon_picture(
    model: WorldModel, stretches: Stretches, draws: Draws, horizons: Sequence[int], *, starts: int = 2
) -> Frames:
    """For the starts with the longest future: real, rebuilt and dreamt (two draws, if there are) at each horizon."""
    columns = [k - 1 for k in horizons]
    longest = np.argsort(-stretches.future_present.sum(1).numpy(), kind="stable")
    rows = []
    for row in longest[:starts].tolist():
        real = stretches.future[row : row + 1, columns]
        dreams = [decode(model, latents[row : row + 1, columns])[0] for latents in draws.dreams[:2]]
        shown = [("real", real[0].numpy()), ("rebuilt", decode(model, encode(model, real))[0])]
        shown += [(f"dream {number}", dream) for number, dream in enumerate(dreams, start=1)]
        there = stretches.future_present[row, columns].tolist()
        rows += [(name, _known(frames, there)) for name, frames in shown]
    return picture_grid(rows, [f"step {k}" for k in horizons], scale=_scale(model.spec))


def branch_picture(spec: EnvSpec, real: Branches, dreamt: Branches, *, moments: int = 4) -> Frames | None:
    """What different actions lead to from one moment, real and dreamt, at the last step that all branches reach.

    The moments are those whose branches then differ most in reality; None if there is none.
    """
    reached = real.present.all(1).sum(1)  # steps, (S,)
    usable = [row for row in range(len(reached)) if reached[row]]
    spread = {row: float(real.frames[row, :, reached[row] - 1].std(0).mean()) for row in usable}
    rows = []
    for row in sorted(usable, key=lambda row: -spread[row])[:moments]:
        for name, branches in (("real", real), ("dream", dreamt)):
            rows.append((f"{name}, step {reached[row]}", list(branches.frames[row, :, reached[row] - 1])))
    return picture_grid(rows, branch_names(spec, real.actions), scale=_scale(spec)) if rows else None


def branch_names(spec: EnvSpec, actions: NDArray[np.generic]) -> list[str]:
    """What the K sequences of `draw_sequences` do."""
    sequences = actions.shape[1]
    if spec.action_shape:
        held = ["middle", "low", "high"]
    else:
        held = [spec.action_meanings[int(actions[0, k, 0])] for k in range(min(CONSTANTS, len(spec.action_meanings)))]
    return [f"all {name}" for name in held] + [f"random {k}" for k in range(1, sequences - len(held) + 1)]


def drift_picture(spec: EnvSpec, frames: Frames, steps: Sequence[int], *, columns: int = 8) -> Frames:
    """Frames (measurements, H, W, C) of one long dream, `columns` of them evenly spaced."""
    shown = np.linspace(0, len(frames) - 1, min(columns, len(frames))).round().astype(int).tolist()
    labels = [f"step {steps[index]}" for index in shown]
    return picture_grid([("dream", [frames[index] for index in shown])], labels, scale=_scale(spec))


def _known(frames: Frames, there: Sequence[bool]) -> list[Frames | None]:
    return [frame if known else None for frame, known in zip(frames, there, strict=True)]


def _scale(spec: EnvSpec) -> int:
    return max(1, FRAME_PIXELS // max(spec.frame_shape[:2]))
