"""How uncertain a world model is one step after real moments, and whether that tells where it goes wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worldsim.data.store import EpisodeStore
from worldsim.evaluation.statistics import area_under_roc
from worldsim.evaluation.stretches import draw_stretches, dream_steps, encode
from worldsim.world_model import WorldModel

LEVELS = (0.5, 0.75, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Uncertainty:
    """values: the uncertainty of a dreamt step, errors: the mean square to the real latents, both float64 (n,)."""

    values: NDArray[np.float64]
    errors: NDArray[np.float64]

    @property
    def quantiles(self) -> dict[float, float]:
        """What the share of steps in LEVELS does not pass."""
        return {level: float(np.quantile(self.values, level)) for level in LEVELS}

    @property
    def auroc(self) -> float | None:
        """Probability that a step with an error above the median was more uncertain than one with an error below."""
        return area_under_roc(self.values, self.errors > np.median(self.errors))


def measure_uncertainty(
    model: WorldModel,
    store: EpisodeStore,
    *,
    starts: int = 512,
    context_frames: int = 8,
    seed: int = 0,
    split: str = "held_out",
    rows_at_once: int = 64,
) -> Uncertainty:
    """One dreamt step, along the recorded action, from each of `starts` real moments."""
    frames = min(context_frames, model.dynamics.config.window)
    stretches = draw_stretches(store, starts, horizon=1, context_frames=frames, seed=seed, split=split)
    values, errors = [], []
    for first in range(0, starts, rows_at_once):
        rows = slice(first, first + rows_at_once)
        [step] = dream_steps(model, stretches, rows, seed=seed + first)
        difference = step.latents.float() - encode(model, stretches.future[rows])[:, 0]
        values.append(step.uncertainty.double().cpu().numpy())
        errors.append(difference.square().mean((-2, -1)).double().cpu().numpy())
    return Uncertainty(np.concatenate(values), np.concatenate(errors))
