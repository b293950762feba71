"""Endings and rewards: what a world model says about them, one step ahead and over whole replayed episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldsim.data.store import EpisodeStore
from worldsim.evaluation.statistics import area_under_roc
from worldsim.evaluation.world import ObservedSteps
from worldsim.world_model import WorldModel, row_generator

BINS = 10


def score_heads(seen: ObservedSteps, bins: int = BINS) -> dict[str, Any]:
    """How good the next step's hazard and reward are while real episodes are watched, as JSON types.

    termination_auroc: None where nothing or everything ended. hazard_predicted, hazard_observed: means per step. bins:
    steps in `bins` equal parts by their hazard, each with its steps, mean predicted and observed rate.
    calibration_error: mean over the steps of the distance between the two in a step's bin. reward_error: mean absolute
    error, and of a constant, the best guess without looking (the median).
    """
    order = np.argsort(seen.hazard, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    table = [
        {
            "steps": len(part),
            "predicted": float(seen.hazard[part].mean()),
            "observed": float(seen.terminated[part].mean()),
        }
        for part in parts
    ]
    distance = sum(row["steps"] * abs(row["predicted"] - row["observed"]) for row in table)
    return {
        "steps": len(seen.hazard),
        "endings": int(seen.terminated.sum()),
        "termination_auroc": area_under_roc(seen.hazard, seen.terminated),
        "hazard_predicted": float(seen.hazard.mean()),
        "hazard_observed": float(seen.terminated.mean()),
        "calibration_error": distance / len(seen.hazard),
        "bins": table,
        "reward_error": float(np.abs(seen.expected_reward - seen.reward).mean()),
        "reward_error_of_a_constant": float(np.abs(np.median(seen.reward) - seen.reward).mean()),
    }


@dataclass(frozen=True)
class Replays:
    """Dreams of B episodes from their first frame along their actions, and how the episodes went.

    hazards, rewards: dreamt, (B, L). lengths: steps of the real episode (B,); terminated: bool (B,), whether it ended
    there. real_returns: (B,), of its first L steps.
    """

    hazards: NDArray[np.float64]
    rewards: NDArray[np.float64]
    lengths: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    real_returns: NDArray[np.float64]

    @property
    def known(self) -> NDArray[np.bool_]:
        """(B, L): the steps of which reality tells something, all but those after an episode was cut."""
        cut = np.arange(self.hazards.shape[1]) >= self.lengths[:, None]
        return ~(cut & ~self.terminated[:, None])

    @property
    def alive(self) -> NDArray[np.float64]:
        """(B, L + 1): the dream's probability that a row has not ended, at its start and after each step."""
        survival = np.cumprod(1 - self.hazards, axis=1, dtype=np.float64)
        return np.concatenate([np.ones((len(survival), 1)), survival], axis=1)

    @property
    def survival(self) -> NDArray[np.float64]:
        """(L,): the share of the dreams that go on after each step, without those whose episode was cut before it.

        As in Kaplan and Meier's estimate of reality, what is known of the others stands for them from then on.
        """
        alive, known = self.alive, self.known
        after, before = (alive[:, 1:] * known).sum(0), (alive[:, :-1] * known).sum(0)
        return np.cumprod(np.divide(after, before, out=np.ones_like(after), where=before > 0))

    @property
    def dreamt_returns(self) -> NDArray[np.float64]:
        """(B,): the expected return of the known steps. A step pays where the step before it did not end the dream."""
        return (self.alive[:, :-1] * self.rewards * self.known).sum(1)


def replay_episodes(
    model: WorldModel,
    store: EpisodeStore,
    *,
    count: int = 64,
    steps: int = 64,
    seed: int = 0,
    split: str = "held_out",
    temperature: float | None = None,
    on_frames: Callable[[int], object] | None = None,
) -> Replays:
    """Up to `count` episodes, drawn at random; where an episode's actions run out they begin again.

    So a dream may outlive its episode, but not the limit that cuts all of them: L is `steps`, or that limit. Of an
    episode that was cut (not terminated) earlier, `Replays.known` tells which steps compare; where some are and others
    are not, dreams of those that ended have the more steps to earn in.
    """
    steps = min(steps, store.spec.max_episode_steps or steps)
    episodes = np.random.default_rng(seed).permutation(store.indices(split))[:count].astype(np.int64).tolist()
    if not episodes:
        nothing = np.zeros((0, steps))
        return Replays(nothing, nothing, np.zeros(0, np.int64), np.zeros(0, np.bool_), np.zeros(0))
    records = [store.steps(i) for i in episodes]
    actions = np.stack([np.resize(part["action"], (steps, *store.spec.action_shape)) for part in records])
    firsts = torch.from_numpy(np.concatenate([store.read_frames(i, 0, 1) for i in episodes]))
    state = model.start_episode(firsts, [row_generator(seed + i) for i in episodes])
    hazards, rewards = np.zeros((2, len(episodes), steps))
    for t in range(steps):
        state, step = model.step(state, torch.from_numpy(actions[:, t]), temperature=temperature)
        hazards[:, t] = step.termination_probability.double().cpu().numpy()
        rewards[:, t] = step.reward.double().cpu().numpy()
        if on_frames is not None:
            on_frames(len(episodes))
    return Replays(
        hazards,
        rewards,
        store.lengths[episodes],
        np.array([part["terminated"][-1] for part in records], np.bool_),
        np.array([part["reward"][:steps].astype(np.float64).sum() for part in records]),
    )


def compare_replays(replays: Replays) -> dict[str, Any]:
    """Survival and returns of replayed episodes, real against dreamt, as JSON types; {} without any.

    survival_observed: Kaplan and Meier's estimate after each step, with survival_interval, the 95 % range by
    Greenwood's formula; survival_predicted: of the dreams (`Replays.survival`). returns: a pair for each episode, of as
    many steps as were recorded of those that were cut, their means, correlation (None where one of them never varies)
    and mean absolute error, beside that of the real mean.
    """
    if not len(replays.lengths):
        return {}
    observed, spread = kaplan_meier(replays.lengths, replays.terminated, replays.hazards.shape[1])
    real, dreamt = replays.real_returns, replays.dreamt_returns
    varies = real.std() > 0 and dreamt.std() > 0
    return {
        "episodes": len(real),
        "steps": replays.hazards.shape[1],
        "survival_observed": observed.tolist(),
        "survival_interval": [
            (observed - 1.96 * spread).clip(0, 1).tolist(),
            (observed + 1.96 * spread).clip(0, 1).tolist(),
        ],
        "survival_predicted": replays.survival.tolist(),
        "return_real": float(real.mean()),
        "return_dreamt": float(dreamt.mean()),
        "return_correlation": float(np.corrcoef(real, dreamt)[0, 1]) if varies else None,
        "return_error": float(np.abs(real - dreamt).mean()),
        "return_error_of_the_mean": float(np.abs(real - real.mean()).mean()),
        "returns": {"real": real.tolist(), "dreamt": dreamt.tolist()},
    }


def kaplan_meier(
    lengths: Sequence[int] | NDArray[np.int64], terminated: NDArray[np.bool_], steps: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probability of going on after each of `steps` steps and its standard error, (steps,) each.

    An episode of length n that did not terminate was only seen to go on until then.
    """
    ends = np.asarray(lengths)
    survival, spread = np.ones((2, steps))
    alive, hazard_sum = 1.0, 0.0
    for t in range(1, steps + 1):
        at_risk = int((ends >= t).sum())
        died = int(((ends == t) & terminated).sum())
        if at_risk:
            alive *= 1 - died / at_risk
            # Greenwood 1926: the variance is S^2 times the sum of d / (n (n - d)).
            hazard_sum += died / (at_risk * max(1, at_risk - died))
        survival[t - 1], spread[t - 1] = alive, alive * hazard_sum**0.5
    return survival, spread
