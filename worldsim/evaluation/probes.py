"""Does the dream know where things are? Linear probes from [latent, belief] to the simulator's true state.

They are fitted while the model watches real episodes, and then read its dreams. What a probe cannot find in real frames
it cannot find in dreamt ones, so its error while watching is the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.data.collection import reset_options
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.branches import as_action
from worldsim.evaluation.observing import groups_by_length, watch
from worldsim.evaluation.stretches import dream_steps, pictured_frames, read_stretches
from worldsim.rollouts import Env
from worldsim.world_model import WorldModel

ReadState = Callable[[Env], dict[str, float]]
# Of the ridge, per row. A penalty of p is that of a probe which expects noise of variance p in every feature. Less than
# 0.03 squared would read features that hardly ever change, and a dream is never so exact in these as a real frame.
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
FEWEST = 50  # values of a quantity below which no probe is fitted
FEWEST_JUDGED = 5  # values at a horizon below which no error is given


@dataclass(frozen=True)
class Truth:
    """The true state at each frame of some episodes.

    names: of the Q quantities. values: by episode, float64 (T+1, Q), NaN where a quantity is not there. unrepeated:
    episodes that did not come out as they were recorded when they were played again, and were left out.
    """

    names: tuple[str, ...]
    values: Mapping[int, NDArray[np.float64]]
    unrepeated: int


def record_truth(
    make_env: Callable[[], Env],
    read_state: ReadState,
    store: EpisodeStore,
    split: str,
    *,
    max_frames: int,
    seed: int = 0,
    on_frames: Callable[[int], object] | None = None,
) -> Truth:
    """Plays recorded episodes again, in random order until they have `max_frames` frames, and reads their states."""
    names: tuple[str, ...] = ()
    values: dict[int, NDArray[np.float64]] = {}
    unrepeated, frames = 0, 0
    env = make_env()
    try:
        episodes = np.intersect1d(store.indices(split), store.played())  # copies cannot be played again
        for episode in np.random.default_rng(seed).permutation(episodes).tolist():
            if frames >= max_frames:
                break
            states = _replay(env, read_state, store, episode)
            frames += int(store.lengths[episode]) + 1
            if on_frames is not None:
                on_frames(int(store.lengths[episode]) + 1)
            if states is None:
                unrepeated += 1
                continue
            names = tuple(states[0])
            values[episode] = np.array([list(state.values()) for state in states], np.float64)
    finally:
        env.close()
    return Truth(names, values, unrepeated)


@dataclass(frozen=True)
class Probe:
    """A linear reading of features (n, F): (features - mean) @ weights + offset."""

    mean: NDArray[np.float64]
    weights: NDArray[np.float64]
    offset: float

    def __call__(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """The quantity read from each row, (n,)."""
        result: NDArray[np.float64] = (features - self.mean) @ self.weights + self.offset
        return result


def fit_probe(features: NDArray[np.floating], truth: NDArray[np.float64]) -> Probe:
    """Ridge regression of `truth` (n,) on `features` (n, F) of about unit scale, rows in the order of their episodes.

    The penalty is that of PENALTIES with the least error on the last quarter of the rows, which are other episodes; the
    probe is then fitted on all rows.
    """
    mean = features.mean(0, dtype=np.float64)
    x = features - mean
    cut = len(x) * 3 // 4

    def solved(rows: slice) -> Callable[[float], tuple[NDArray[np.float64], float]]:
        offset = float(truth[rows].mean())
        gram, moment = x[rows].T @ x[rows], x[rows].T @ (truth[rows] - offset)
        values, vectors = np.linalg.eigh(gram)
        rotated = vectors.T @ moment
        count = len(x[rows])
        return lambda penalty: (vectors @ (rotated / (np.maximum(values, 0) + penalty * count)), offset)

    trial = solved(slice(0, cut))

    def error(penalty: float) -> float:
        weights, offset = trial(penalty)
        return float(((x[cut:] @ weights + offset - truth[cut:]) ** 2).mean())

    weights, offset = solved(slice(None))(min(PENALTIES, key=error))
    return Probe(mean, weights, offset)


def probe_dreams(
    model: WorldModel,
    store: EpisodeStore,
    fitted_on: Truth,
    judged_on: Truth,
    *,
    starts: int = 48,
    horizons: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    context_frames: int = 8,
    seed: int = 0,
    temperature: float | None = None,
    on_frames: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """For each quantity that can be read at all, errors over the dream's horizon, as JSON types.

    Errors are rms in units of the quantity's own standard deviation (1: knows nothing): dream, read from dreamt
    [latent, belief]; watching, from those of the real frame k ahead, the floor; copy_last, from those of the last real
    frame. scale: the standard deviation. values: how many there were at each horizon. `left_out` says what has no
    probe, and why.
    """
    seen = features_of(model, store, list(fitted_on.values), seed=seed, on_frames=on_frames)
    watched = features_of(model, store, list(judged_on.values), seed=seed, on_frames=on_frames)
    moments = _moments(store, list(judged_on.values), starts, seed)
    result: dict[str, Any] = {"quantities": {}, "left_out": {}, "horizons": list(horizons), "starts": len(moments)}
    if not moments or not seen:
        return result
    stretches = read_stretches(store, moments, horizon=max(horizons), context_frames=context_frames)
    dreamt: dict[int, NDArray[np.float32]] = {}
    for k, step in enumerate(dream_steps(model, stretches, seed=seed, temperature=temperature), start=1):
        if on_frames is not None:
            on_frames(len(moments))
        if k in horizons:
            dreamt[k] = joined(step.latents, step.belief)
    features = np.concatenate(list(seen.values()))
    truths = np.concatenate([fitted_on.values[i][: len(seen[i])] for i in seen])
    for q, name in enumerate(fitted_on.names):
        known = ~np.isnan(truths[:, q])
        scale = float(truths[known, q].std()) if known.any() else 0.0
        if known.sum() < FEWEST or scale < 1e-6:
            result["left_out"][name] = "never changes" if known.sum() >= FEWEST else f"seen {int(known.sum())} times"
            continue
        probe = fit_probe(features[known], truths[known, q])
        curves: dict[str, list[Any]] = {"dream": [], "watching": [], "copy_last": [], "values": []}
        for k in horizons:
            rows = [row for row, (i, t) in enumerate(moments) if t + k < len(watched[i])]
            truth = np.array([judged_on.values[moments[row][0]][moments[row][1] + k, q] for row in rows])
            there = ~np.isnan(truth)
            rows, truth = [row for row, here in zip(rows, there, strict=True) if here], truth[there]
            curves["values"].append(len(rows))
            known_enough = len(rows) >= FEWEST_JUDGED
            read = {
                "dream": dreamt[k][rows],
                "watching": np.array([watched[moments[row][0]][moments[row][1] + k] for row in rows]),
                "copy_last": np.array([watched[moments[row][0]][moments[row][1]] for row in rows]),
            }
            for curve, values in read.items():
                error = float(np.sqrt(((probe(values) - truth) ** 2).mean())) / scale if known_enough else None
                curves[curve].append(error)
        result["quantities"][name] = {"scale": scale, **curves}
    return result


def features_of(
    model: WorldModel,
    store: EpisodeStore,
    episodes: Sequence[int],
    *,
    rows_at_once: int = 32,
    seed: int = 0,
    on_frames: Callable[[int], object] | None = None,
) -> dict[int, NDArray[np.float32]]:
    """By episode [latent, belief] at each frame that carries a picture while the model watches it, (frames, F)."""
    found: dict[int, list[NDArray[np.float32]]] = {i: [] for i in episodes}
    for group in groups_by_length(store, np.array(episodes, np.int64), rows_at_once):
        pictured = [pictured_frames(store, i) for i in group]
        for seen in watch(model, store, group, seed):
            features = joined(seen.state.latents, seen.state.belief)
            for row, episode in enumerate(group):
                if seen.t < pictured[row]:
                    found[episode].append(features[row])
            if on_frames is not None:
                on_frames(int(seen.running.sum()))
    return {i: np.stack(rows) for i, rows in found.items()}


def joined(latents: Tensor, belief: Tensor) -> NDArray[np.float32]:
    """Latents (B, N, D) and belief (B, belief_size) as features (B, F)."""
    return torch.cat([latents.flatten(1).float(), belief.float()], dim=1).cpu().numpy()


def _replay(env: Env, read_state: ReadState, store: EpisodeStore, episode: int) -> list[dict[str, float]] | None:
    """The states at every frame of an episode; None where a frame is not the recorded one."""
    entry = store.entries[episode]
    frame, _ = env.reset(seed=entry.seed, options=reset_options(store, entry.round))
    states = [read_state(env)]
    frames = store.read_frames(episode, 0, entry.frames)
    for t, action in enumerate(store.steps(episode)["action"]):
        if not np.array_equal(frame, frames[t]):
            return None
        frame, _, terminated, truncated, _ = env.step(as_action(store, action))
        states.append(read_state(env))
        if (terminated or truncated) and t + 2 < entry.frames:
            return None
    return states if np.array_equal(frame, frames[-1]) else None


def _moments(store: EpisodeStore, episodes: Sequence[int], count: int, seed: int) -> list[tuple[int, int]]:
    """Up to `count` (episode, frame) with a pictured frame after them."""
    all_moments = [(i, t) for i in episodes for t in range(pictured_frames(store, i) - 1)]
    chosen = np.random.default_rng(seed).permutation(len(all_moments))[:count]
    return [all_moments[index] for index in chosen]
