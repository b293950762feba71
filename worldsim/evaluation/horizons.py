"""How far a dream holds: its pictures against the real ones, the further ahead the harder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worldsim.evaluation.image_quality import moving_error_by_frame, psnr_by_frame, ssim_by_frame
from worldsim.evaluation.stretches import Stretches, decode, dream_along, encode, exchanged_actions
from worldsim.world_model import WorldModel

HORIZONS = (1, 2, 4, 8, 16, 32, 64)
FEWEST_STARTS = 5  # that reach a horizon: a mean over fewer says nothing
SEEDS_APART = 1_000_003  # between the draws of one start, more than there are starts

# A measure takes frames, the real frames, and the real frames before those, uint8 (B, H, W, C), and gives (B,).
Measure = Callable[[Tensor, Tensor, Tensor], Tensor]
MEASURES: Mapping[str, tuple[Measure, bool]] = {  # with whether more is better
    "psnr": (lambda frames, truth, before: psnr_by_frame(frames, truth), True),
    "ssim": (lambda frames, truth, before: ssim_by_frame(frames, truth), True),
    "moving_error": (moving_error_by_frame, False),
}


@dataclass(frozen=True)
class Draws:
    """Dreams of the same stretches, unit-scale latents (B, K, N, D) each.

    dreams: n of them along the true actions, with other noise. shuffled: along other rows' actions, with the noise of
    the first.
    """

    dreams: tuple[Tensor, ...]
    shuffled: Tensor


def draw_dreams(
    model: WorldModel,
    stretches: Stretches,
    count: int,
    *,
    seed: int = 0,
    temperature: float | None = None,
    on_frames: Callable[[int], object] | None = None,
) -> Draws:
    """`count` dreams from each start and one along exchanged actions. `on_frames`: as in `dream_along`."""
    plans = [(None, number) for number in range(count)] + [(exchanged_actions(stretches, seed), 0)]
    made = [
        dream_along(
            model,
            stretches,
            actions,
            seed=seed + SEEDS_APART * number,
            temperature=temperature,
            on_frames=on_frames,
        )
        for actions, number in plans
    ]
    return Draws(tuple(made[:count]), made[count])


def quality_over_horizon(
    model: WorldModel, stretches: Stretches, draws: Draws, horizons: Sequence[int] = HORIZONS
) -> dict[str, Any]:
    """For each horizon k that FEWEST_STARTS stretches reach, means over those that reach it, as JSON types.

    psnr (dB), ssim, and moving_error (grey levels, over the pixels that change from frame k - 1 to frame k of reality),
    each for: dream_mean (mean over the draws), dream_best (of each start the best of the draws), copy_last (the last
    frame seen), tokenizer (the real frame encoded and decoded, which no dream can pass by much), shuffled (dreams along
    another row's actions). horizons, starts: the k and how many stretches they are averaged over.
    """
    kept = [
        k for k in horizons if k <= stretches.horizon and int(stretches.future_present[:, k - 1].sum()) >= FEWEST_STARTS
    ]
    columns = [k - 1 for k in kept]
    real = stretches.future[:, columns]
    before = stretches.frames[:, [stretches.context_frames + k - 2 for k in kept]]
    last = stretches.frames[:, stretches.context_frames - 1]
    dreamt = [_decoded(model, latents[:, columns]) for latents in draws.dreams]
    shuffled = _decoded(model, draws.shuffled[:, columns])
    rebuilt = _decoded(model, encode(model, real))
    result: dict[str, Any] = {
        "horizons": kept,
        "starts": stretches.future_present[:, columns].sum(0).tolist(),
        "draws": len(draws.dreams),
    }
    for name, (measure, more_is_better) in MEASURES.items():
        curves: dict[str, list[float | None]] = {}
        for column in range(len(kept)):
            rows = stretches.future_present[:, columns[column]]
            truth, past = real[rows, column], before[rows, column]
            drawn = torch.stack([measure(frames[rows, column], truth, past) for frames in dreamt])  # (n, rows)
            values = {
                "dream_mean": drawn.mean(0),
                "dream_best": drawn.amax(0) if more_is_better else drawn.amin(0),
                "copy_last": measure(last[rows], truth, past),
                "tokenizer": measure(rebuilt[rows, column], truth, past),
                "shuffled": measure(shuffled[rows, column], truth, past),
            }
            for curve, value in values.items():
                curves.setdefault(curve, []).append(mean_where_known(value))
        result[name] = curves
    result["better_than_copy_until"] = _better_until(
        kept, result["moving_error"]["dream_mean"], result["moving_error"]["copy_last"]
    )
    return result


def action_shuffle_ratio(model: WorldModel, stretches: Stretches, draws: Draws) -> float:
    """Error of the dream along other rows' actions over that along the true ones; 1: the dream ignores actions.

    Errors are mean squares in unit-scale latents over all frames that there are, with the same noise.
    """
    real, known = encode(model, stretches.future).cpu(), stretches.future_present
    true, shuffled = ((z - real).square().mean((-2, -1))[known].mean() for z in (draws.dreams[0], draws.shuffled))
    return float(shuffled / true.clamp(min=1e-9))


def mean_where_known(values: Tensor) -> float | None:
    """The mean of the numbers that are not NaN; None if there is none (JSON knows no NaN)."""
    known = values[~values.isnan()]
    return float(known.double().mean()) if len(known) else None


def _better_until(horizons: Sequence[int], dream: Sequence[float | None], copy: Sequence[float | None]) -> int:
    """The last horizon up to which the dream's error is below the copy's at every horizon; 0: at none."""
    until = 0
    for horizon, ours, theirs in zip(horizons, dream, copy, strict=True):
        if ours is None or theirs is None or ours >= theirs:
            break
        until = horizon
    return until


def _decoded(model: WorldModel, latents: Tensor) -> Tensor:
    return torch.from_numpy(decode(model, latents))
