"""How well a world model follows reality on episodes it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.data.store import EpisodeStore
from worldsim.evaluation.statistics import area_under_roc
from worldsim.evaluation.stretches import (
    Stretches,
    decode,
    draw_stretches,
    dream_along,
    encode,
    exchanged_actions,
    pictured_frames,
)
from worldsim.evaluation.uncertainty import measure_uncertainty
from worldsim.world_model import WorldModel, row_generator

HORIZONS = (1, 2, 4, 8, 16, 32)
MAX_PSNR = 100.0  # dB, what equal frames get


def measure_world(
    model: WorldModel,
    store: EpisodeStore,
    *,
    starts: int = 64,
    horizons: Sequence[int] = HORIZONS,
    context_frames: int = 8,
    calibration_steps: int = 10_000,
    seed: int = 0,
    split: str = "held_out",
) -> dict[str, float]:
    """Everything below as one flat dict; a measure is left out where the split holds nothing to measure it on.

    uncertainty_auroc: see `worldsim.evaluation.uncertainty`.
    """
    stretches = draw_stretches(
        store,
        starts,
        horizon=max(horizons),
        context_frames=min(context_frames, model.dynamics.config.window),
        seed=seed,
        split=split,
    )
    latents = dream_along(model, stretches, seed=seed)
    uncertainty = measure_uncertainty(model, store, context_frames=context_frames, seed=seed, split=split).auroc
    return {
        **error_over_horizon(model, stretches, latents, horizons),
        **controllability(model, stretches, latents, seed=seed),
        **one_step_calibration(model, store, max_steps=calibration_steps, seed=seed, split=split),
        **({} if uncertainty is None else {"uncertainty_auroc": uncertainty}),
    }


def error_over_horizon(
    model: WorldModel, stretches: Stretches, latents: Tensor, horizons: Sequence[int] = HORIZONS
) -> dict[str, float]:
    """PSNR in dB against the real frame k steps ahead, for each horizon k that any stretch reaches.

    psnr_dream_k: of dreams, whose unit-scale `latents` are (B, K, N, D). psnr_copy_k: of the last frame seen, left as
    it is. psnr_tokenizer_k: of the real frame encoded and decoded, which no dream can pass by much. starts_k: how
    many stretches they are averaged over.
    """
    kept = [k for k in horizons if k <= stretches.horizon and bool(stretches.future_present[:, k - 1].any())]
    columns = [k - 1 for k in kept]
    real = stretches.future[:, columns]
    copied = stretches.frames[:, stretches.context_frames - 1].numpy()
    dreamt, rebuilt = decode(model, latents[:, columns]), decode(model, encode(model, real))
    result = {}
    for column, k in enumerate(kept):
        rows = stretches.future_present[:, k - 1].numpy()
        truth = real[:, column].numpy()[rows]
        result[f"psnr_dream_{k}"] = psnr(dreamt[rows, column], truth)
        result[f"psnr_copy_{k}"] = psnr(copied[rows], truth)
        result[f"psnr_tokenizer_{k}"] = psnr(rebuilt[rows, column], truth)
        result[f"starts_{k}"] = float(rows.sum())
    return result


def controllability(model: WorldModel, stretches: Stretches, latents: Tensor, *, seed: int = 0) -> dict[str, float]:
    """action_shuffle_ratio: error of dreams along other episodes' actions over that along the true ones, `latents`.

    Errors are mean squares in unit-scale latents over all frames that there are; starts and noise (`seed` must be
    that of `latents`) are the same. 1 means that the dream ignores actions.
    """
    real = encode(model, stretches.future).cpu()
    shuffled = dream_along(model, stretches, exchanged_actions(stretches, seed), seed=seed)
    true_error, shuffled_error = (
        _mean_square(dreamt - real, stretches.future_present) for dreamt in (latents, shuffled)
    )
    return {
        "action_shuffle_ratio": shuffled_error / max(true_error, 1e-9),
        "latent_error": true_error,
        "latent_error_shuffled": shuffled_error,
    }


def one_step_calibration(
    model: WorldModel,
    store: EpisodeStore,
    *,
    max_steps: int = 10_000,
    rows_at_once: int = 32,
    seed: int = 0,
    split: str = "held_out",
) -> dict[str, float]:
    """What the heads say about the next step while real episodes are observed, against what happened.

    termination_auroc: probability that a step that ended its episode was given a higher hazard than one that did not.
    hazard_predicted, hazard_observed: mean probability and rate of terminations per step. reward_error: mean absolute
    error of the expected reward. Episodes are taken in random order until `max_steps` steps are reached.
    """
    episodes = np.random.default_rng(seed).permutation(store.indices(split))
    steps_before = np.cumsum(store.lengths[episodes]) - store.lengths[episodes]
    episodes = episodes[steps_before < max_steps]
    if not len(episodes):
        return {}
    episodes = episodes[np.argsort(store.lengths[episodes], kind="stable")]  # rows of a group end at about one time
    groups = [episodes[first : first + rows_at_once].tolist() for first in range(0, len(episodes), rows_at_once)]
    observed = [_observe_group(model, store, group, seed) for group in groups]
    hazard, reward_error, terminated = (np.concatenate(parts) for parts in zip(*observed, strict=True))
    result = {
        "hazard_predicted": float(hazard.mean()),
        "hazard_observed": float(terminated.mean()),
        "reward_error": float(reward_error.mean()),
        "calibration_steps": float(len(hazard)),
    }
    auroc = area_under_roc(hazard, terminated.astype(np.bool_))
    return result if auroc is None else {"termination_auroc": auroc, **result}


def psnr(frames: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB of all pixels together, at most MAX_PSNR."""
    error = float(np.mean((frames.astype(np.float64) - truth) ** 2))
    return min(MAX_PSNR, 10 * float(np.log10(255**2 / max(error, 1e-12))))


def _observe_group(
    model: WorldModel, store: EpisodeStore, episodes: Sequence[int], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Hazard, absolute error of the reward, and termination of every step of some episodes, flat."""
    steps = [store.steps(i) for i in episodes]
    last_frame = [pictured_frames(store, i) - 1 for i in episodes]

    def frames_at(t: int) -> Tensor:
        """Frame t of each episode, (B, H, W, C); its last picture where there is none."""
        positions = [min(t, last) for last in last_frame]
        pictures = [store.read_frames(i, at, at + 1)[0] for i, at in zip(episodes, positions, strict=True)]
        return torch.from_numpy(np.stack(pictures))

    state = model.start_episode(frames_at(0), [row_generator(seed + i) for i in episodes])
    hazard, reward_error, terminated = [], [], []
    for t in range(max(len(records) for records in steps)):
        now = [records[min(t, len(records) - 1)] for records in steps]
        actions = torch.from_numpy(np.stack([np.asarray(record["action"]) for record in now]))
        state, step = model.observe(state, frames_at(t + 1), actions)
        running = np.array([t < len(records) for records in steps])
        reward = np.array([record["reward"] for record in now], np.float64)
        hazard.append(step.termination_probability.double().cpu().numpy()[running])
        reward_error.append(np.abs(step.reward.double().cpu().numpy() - reward)[running])
        terminated.append(np.array([record["terminated"] for record in now], np.bool_)[running])
    return np.concatenate(hazard), np.concatenate(reward_error), np.concatenate(terminated)


def _mean_square(difference: Tensor, present: Tensor) -> float:
    """Of (B, K, N, D) over the frames that are present, bool (B, K)."""
    return float(difference.square().mean((-2, -1))[present].double().mean())
