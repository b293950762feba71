"""The temperature at which dreams are as dangerous as reality.

A sampler of few steps prefers what is likely. What is rare but decides (a fireball is thrown) happens too seldom in
its dreams, and an agent learns there that nothing can happen. More noise than the model was trained with makes the
rare more frequent again (Ha & Schmidhuber 2018 raise the temperature so that agents cannot exploit the dream). How much
more is not guessed here but measured: dreams along recorded actions are to end as often as the recorded episodes did.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worldsim.data.store import EpisodeStore
from worldsim.evaluation.stretches import Stretches, draw_stretches, dream_steps, pictured_frames
from worldsim.world_model import WorldModel

TEMPERATURES = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
STARTS, HORIZON = 96, 32


@dataclass(frozen=True)
class Calibration:
    """temperature: from the lowest to the highest of TEMPERATURES. hazards: probability of an ending per step, in
    reality and in dreams at this temperature.
    """

    temperature: float
    hazard_observed: float
    hazard_dreamt: float


def calibrate_temperature(
    model: WorldModel, store: EpisodeStore, *, seed: int = 0, starts: int = STARTS, horizon: int = HORIZON
) -> Calibration:
    """The temperature, to two decimals, at which dreams end as often as episodes do.

    The lowest of TEMPERATURES if dreams end often enough there, the highest if they never do. Dreams follow held-out
    episodes. The observed rate is that of all episodes of the store, which are real data that was paid for anyway, each
    step as often as dreams from all moments would come by it.
    Hazards rise with the temperature, so a search by halves finds the two temperatures between which it lies, and a
    line between them the place.
    """
    stretches = draw_stretches(
        store, starts, horizon=horizon, context_frames=min(8, model.dynamics.config.window), seed=seed
    )
    observed = observed_hazard(store, horizon)
    measured: dict[float, float] = {}

    def deadly(index: int) -> bool:
        measured[TEMPERATURES[index]] = dreamt_hazard(model, stretches, TEMPERATURES[index], seed=seed)
        return measured[TEMPERATURES[index]] >= observed

    low, high = 0, len(TEMPERATURES) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if deadly(middle) else (middle + 1, high)
    for index in {max(0, low - 1), low}:
        if TEMPERATURES[index] not in measured:
            deadly(index)
    found = TEMPERATURES[low]
    colder, hazard = TEMPERATURES[max(0, low - 1)], measured[found]
    if measured[colder] < observed < hazard:
        share = (observed - measured[colder]) / (hazard - measured[colder])
        found = round(colder + share * (found - colder), 2)
        hazard = dreamt_hazard(model, stretches, found, seed=seed)
    return Calibration(found, observed, hazard)


def observed_hazard(store: EpisodeStore, horizon: int) -> float:
    """The share of steps that ended an episode, each step counted once for every moment up to `horizon` steps before it
    from which `draw_stretches` may begin: late steps, more deadly in some envs, are come by more often than early ones.
    """
    ended = steps = 0
    for i in store.played().tolist():
        step = np.arange(1, int(store.lengths[i]) + 1)
        last_start = pictured_frames(store, i) - 2
        starts = np.minimum(step - 1, last_start) - np.maximum(0, step - horizon) + 1
        starts = starts.clip(min=0)
        steps += int(starts.sum())
        ended += int(starts[-1]) if store.terminated(i) else 0
    return ended / max(1, steps)


def dreamt_hazard(model: WorldModel, stretches: Stretches, temperature: float, *, seed: int = 0) -> float:
    """Mean predicted probability of an ending per step, of dreams along the real actions, the last one included."""
    steps = dream_steps(model, stretches, seed=seed, temperature=temperature)
    hazards = np.stack([step.termination_probability.float().cpu().numpy() for step in steps], axis=1)
    return float(hazards[stretches.future_stepped.numpy()].mean(dtype=np.float64))
