"""Measures of dreams that need more than torch: FD-EffNetLite0 and VMAF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldsim.data.store import EpisodeStore
from worldsim.evaluation.frechet import Encoder, frechet_distance
from worldsim.evaluation.stretches import Stretches, decode, draw_stretches, encode
from worldsim.evaluation.vmaf import vmaf_by_frame
from worldsim.world_model import WorldModel

NEAR, FAR = (1, 8), (33, 64)  # steps ahead, both included
SETS = 7  # of frames: any moments, and real, rebuilt and dreamt ones near and far


def frechet_distances(
    model: WorldModel,
    encoder: Encoder,
    store: EpisodeStore,
    stretches: Stretches,
    latents: Tensor,
    *,
    most_frames: int = 256,
    seed: int = 0,
    split: str = "held_out",
    on_set: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """FD-EffNetLite0 to real held-out frames of any moments, all sets of the same size, as JSON types.

    Those moments are drawn anew from the same episodes, so where these are few some are judged ones. frames: the size,
    on which distances depend. For frames NEAR and FAR ahead, as far as episodes go on so long: the steps, and the
    distance of the real frames that the dreams should show (the floor), of these encoded and decoded (tokenizer), and
    of the dreamt ones (latents, (B, K, N, D)). {} with fewer than 2 frames. `on_set` is told of each of up to SETS sets
    of frames that the encoder has seen.
    """

    def seen(frames: Tensor) -> Tensor:
        features = encoder(frames)
        if on_set is not None:
            on_set(1)
        return features

    places = {
        name: (steps, *_steps_between(stretches, *steps, seed=seed)) for name, steps in (("near", NEAR), ("far", FAR))
    }
    places = {name: place for name, place in places.items() if len(place[1]) >= 2}
    if not places:
        return {}
    count = min(most_frames, *(len(rows) for _, rows, _ in places.values()))
    others = draw_stretches(store, count, horizon=1, context_frames=1, seed=seed + 1, split=split)
    reference = seen(others.frames[:, 0])
    result: dict[str, Any] = {"frames": count}
    for name, (steps, rows, columns) in places.items():
        picked = rows[:count], columns[:count]
        real = stretches.future[picked]
        shown = {
            "real": real,
            "tokenizer": torch.from_numpy(decode(model, encode(model, real[None]))[0]),
            "dream": torch.from_numpy(decode(model, latents[picked][None])[0]),
        }
        result[name] = {"steps": list(steps)}
        result[name] |= {what: frechet_distance(reference, seen(frames)) for what, frames in shown.items()}
    return result


def vmaf_over_horizon(
    model: WorldModel,
    stretches: Stretches,
    latents: Tensor,
    horizons: Sequence[int],
    *,
    most_clips: int = 8,
    on_clip: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """VMAF (0 to 100) of single frames k steps ahead, mean over up to `most_clips` starts, as JSON types.

    Curves for dream (`latents`), copy_last and tokenizer; None where no clip reaches a horizon.
    """
    lengths = stretches.future_present.sum(1)
    rows = torch.argsort(lengths, descending=True, stable=True)[:most_clips].tolist()
    sums = {name: np.zeros(stretches.horizon) for name in ("dream", "copy_last", "tokenizer")}
    counts = np.zeros(stretches.horizon)
    for row in rows:
        length = int(lengths[row])
        if length == 0:
            continue
        real = stretches.future[row, :length]
        last = stretches.frames[row, stretches.context_frames - 1]
        clips = {
            "dream": decode(model, latents[row : row + 1, :length])[0],
            "copy_last": last.expand(length, *last.shape).numpy(),
            "tokenizer": decode(model, encode(model, real[None]))[0],
        }
        for name, clip in clips.items():
            sums[name][:length] += vmaf_by_frame(clip, real.numpy())
            if on_clip is not None:
                on_clip(1)
        counts[:length] += 1
    kept = [k for k in horizons if k <= stretches.horizon]
    curves = {
        name: [float(total[k - 1] / counts[k - 1]) if counts[k - 1] else None for k in kept]
        for name, total in sums.items()
    }
    return {"horizons": kept, "clips": len(rows), **curves}


def _steps_between(stretches: Stretches, first: int, last: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Row and column of all known future frames `first` to `last` steps ahead, in random order."""
    known = stretches.future_present.clone()
    known[:, : first - 1] = False
    known[:, last:] = False
    rows, columns = known.nonzero(as_tuple=True)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows[order], columns[order]
