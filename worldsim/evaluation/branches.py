"""What would have happened: several action sequences from one moment, in the real env and in the dream.

No simulator needs to save its state for this. A seeded, deterministic env comes back to a moment when it is reset with
the episode's seed and plays the same actions; whether it did is seen by its frame, which must be the recorded one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldsim.data.collection import reset_options
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.blind import constants
from worldsim.evaluation.stretches import decode, pictured_frames, read_stretches, start_dreams
from worldsim.rollouts import Action, Env
from worldsim.scripted_policies import StickyRandom
from worldsim.world_model import WorldModel

SEQUENCES = 5
CONSTANTS = 3  # of the sequences hold one action
PICTURES = 8  # steps of a branch whose frames are compared, where it has so many


@dataclass(frozen=True)
class Branches:
    """S moments, each continued by K action sequences of L steps, in reality or in a dream.

    actions: (S, K, L[, A]). frames: uint8 (S, K, P, H, W, C) of the first P steps. present: bool (S, K, P), whether
    the branch still went on and shows a picture. returns: (S, K), of L steps; in a dream the expected ones.
    """

    actions: NDArray[Any]
    frames: NDArray[np.uint8]
    present: NDArray[np.bool_]
    returns: NDArray[np.float64]


def draw_moments(
    store: EpisodeStore, count: int, *, longest_prefix: int = 64, seed: int = 0, split: str = "held_out"
) -> list[tuple[int, int]]:
    """Up to `count` (episode, frame) that come early enough to be played again, and have a frame after them."""
    moments = [
        (i, t)
        for i in store.indices(split).tolist()
        for t in range(min(longest_prefix + 1, pictured_frames(store, i) - 1))
    ]
    chosen = np.random.default_rng(seed).permutation(len(moments))[:count]
    return [moments[index] for index in chosen]


def draw_sequences(store: EpisodeStore, moments: int, steps: int, *, seed: int = 0) -> NDArray[Any]:
    """Action sequences (moments, SEQUENCES, steps[, A]): first constant ones, the others sticky random."""
    space, spec = store.spec.gym_action_space(), store.spec
    held = [candidate.actions[0] for candidate in constants(space)[:CONSTANTS]]
    actions = np.zeros((moments, SEQUENCES, steps, *spec.action_shape), spec.action_dtype)
    unseen = np.zeros((1, 1, 1), np.uint8)
    for moment in range(moments):
        for k in range(SEQUENCES):
            policy = StickyRandom(space)
            policy.reset(seed + moment * SEQUENCES + k)
            drawn: list[Action] = [held[k] if k < len(held) else policy(unseen) for _ in range(steps)]
            actions[moment, k] = np.stack([np.asarray(action).reshape(spec.action_shape) for action in drawn])
    return actions


def play_branches(
    make_env: Callable[[], Env],
    store: EpisodeStore,
    moments: Sequence[tuple[int, int]],
    actions: NDArray[Any],
    *,
    pictures: int = PICTURES,
    on_branch: Callable[[int], object] | None = None,
) -> tuple[Branches, NDArray[np.bool_]]:
    """The branches in the real env, and bool (S,): at which moments each of them began at the recorded frame.

    Where one did not, the env does not repeat itself and nothing can be said about that moment.
    """
    count, sequences, steps = actions.shape[:3]
    pictures = min(pictures, steps)
    frames = np.zeros((count, sequences, pictures, *store.spec.frame_shape), np.uint8)
    present = np.zeros((count, sequences, pictures), np.bool_)
    returns, repeated = np.zeros((count, sequences)), np.ones(count, np.bool_)
    env = make_env()
    try:
        for row, (episode, moment) in enumerate(moments):
            for k in range(sequences):
                if repeated[row] and replay(env, store, episode, moment):
                    returns[row, k] = _go_on(env, actions[row, k], frames[row, k], present[row, k], store)
                else:
                    repeated[row] = False
                if on_branch is not None:
                    on_branch(1)
    finally:
        env.close()
    return Branches(actions, frames, present, returns), repeated


def replay(env: Env, store: EpisodeStore, episode: int, moment: int) -> bool:
    """Play the recorded episode up to frame `moment`; whether that frame came out as it was recorded."""
    entry = store.entries[episode]
    frame, _ = env.reset(seed=entry.seed, options=reset_options(store, entry.round))
    for action in store.steps(episode)["action"][:moment]:
        frame, _, terminated, truncated, _ = env.step(as_action(store, action))
        if terminated or truncated:
            return False
    return bool(np.array_equal(frame, store.read_frames(episode, moment, moment + 1)[0]))


def as_action(store: EpisodeStore, stored: Any) -> Action:
    """A stored action as the env takes it."""
    spec = store.spec
    if not spec.action_shape:
        return int(stored)
    if spec.action_choices is not None:
        return np.asarray(stored, np.int64)
    return np.asarray(stored, np.float32).reshape(spec.action_space["shape"])


def dream_branches(
    model: WorldModel,
    store: EpisodeStore,
    moments: Sequence[tuple[int, int]],
    actions: NDArray[Any],
    *,
    context_frames: int,
    pictures: int = PICTURES,
    seed: int = 0,
    temperature: float | None = None,
    on_frames: Callable[[int], object] | None = None,
) -> Branches:
    """The same branches in the dream. All of a moment's branches meet the same noise, so only actions differ."""
    stretches = read_stretches(store, moments, horizon=0, context_frames=context_frames)
    count, sequences, steps = actions.shape[:3]
    pictures = min(pictures, steps)
    frames = np.zeros((count, sequences, pictures, *store.spec.frame_shape), np.uint8)
    returns = np.zeros((count, sequences))
    for k in range(sequences):
        state, alive, latents = start_dreams(model, stretches, seed=seed), np.ones(count), []
        for t in range(steps):
            state, step = model.step(state, torch.from_numpy(actions[:, k, t]), temperature=temperature)
            returns[:, k] += alive * step.reward.double().cpu().numpy()
            alive = alive * (1 - step.termination_probability.double().cpu().numpy())
            if t < pictures:
                latents.append(step.latents.float().cpu())
            if on_frames is not None:
                on_frames(count)
        frames[:, k] = decode(model, torch.stack(latents, dim=1))
    return Branches(actions, frames, np.ones(frames.shape[:3], np.bool_), returns)


def compare_effects(real: Branches, dreamt: Branches) -> dict[str, Any]:
    """Whether an action does in the dream what it does in reality, after 1, ..., P steps, as JSON types.

    Compared are the branches that still go on in reality, at moments where at least two do (`moments`: how many). The
    effect of a branch is how its frame differs from the mean of its moment's branches. effect_correlation: between the
    real and the dreamt effects, over all pixels. effect_size: rms of the dreamt effects over that of the real ones.
    right_branch: how often a dreamt frame is nearest to the real frame of its own actions, of all that are compared
    (equal ones share), and chance: of a guess. None where nothing can be compared or nothing has an effect.
    """
    steps = real.frames.shape[2]
    result: dict[str, Any] = {"steps": list(range(1, steps + 1)), "moments": []}
    names = ("effect_correlation", "effect_size", "right_branch", "chance")
    result |= {name: [] for name in names}
    for t in range(steps):
        rows = np.flatnonzero(real.present[:, :, t].sum(1) >= 2)
        true_square, dreamt_square, product = 0.0, 0.0, 0.0
        hits, guesses = [], []
        for row in rows:
            going = real.present[row, :, t]
            truth, dream = (part.frames[row, going, t].reshape(int(going.sum()), -1) / 255 for part in (real, dreamt))
            true_effect, dreamt_effect = truth - truth.mean(0), dream - dream.mean(0)
            true_square += float((true_effect**2).sum())
            dreamt_square += float((dreamt_effect**2).sum())
            product += float((true_effect * dreamt_effect).sum())
            hits.append(_right_branch(truth, dream))
            guesses.append(1 / going.sum())
        both = (true_square * dreamt_square) ** 0.5
        result["moments"].append(len(rows))
        result["effect_correlation"].append(product / both if both else None)
        result["effect_size"].append((dreamt_square / true_square) ** 0.5 if true_square else None)
        result["right_branch"].append(float(np.mean(hits)) if true_square else None)
        result["chance"].append(float(np.mean(guesses)) if true_square else None)
    return result


def decision_regret(real: Branches, dreamt: Branches) -> dict[str, Any]:
    """What it costs to take, at each moment, the sequence that the dream promises most for, as JSON types.

    regret: how much more the best sequence of each moment earns in the real env, on average; regret_random: of a
    sequence picked at random. decided: at how many moments it mattered which was picked. share_of_best: how often the
    pick was the best or as good. correlation: between promised and real returns, each less the moment's mean.
    """
    picks = dreamt.returns.argmax(1)
    best = real.returns.max(1)
    picked = real.returns[np.arange(len(picks)), picks]
    true, promised = (part.returns - part.returns.mean(1, keepdims=True) for part in (real, dreamt))
    size = float(np.sqrt((true**2).sum() * (promised**2).sum()))
    decided = best > real.returns.min(1)
    return {
        "moments": len(picks),
        "decided": int(decided.sum()),
        "regret": float((best - picked).mean()),
        "regret_random": float((best - real.returns.mean(1)).mean()),
        "share_of_best": float((picked >= best)[decided].mean()) if decided.any() else None,
        "share_of_best_random": float((real.returns >= best[:, None])[decided].mean()) if decided.any() else None,
        "correlation": float((true * promised).sum()) / size if size else None,
    }


def selected(branches: Branches, rows: NDArray[np.bool_]) -> Branches:
    """The branches of some moments, bool (S,)."""
    return Branches(branches.actions[rows], branches.frames[rows], branches.present[rows], branches.returns[rows])


def _go_on(
    env: Env, actions: NDArray[Any], frames: NDArray[np.uint8], present: NDArray[np.bool_], store: EpisodeStore
) -> float:
    """Play `actions` to the end of the episode at most; fills in frames (P, H, W, C) and present (P,)."""
    total = 0.0
    for t, action in enumerate(actions):
        frame, reward, terminated, truncated, _ = env.step(as_action(store, action))
        total += float(reward)
        blank = terminated and store.spec.blank_terminal_frame
        if t < len(frames) and not blank:
            frames[t], present[t] = frame, True
        if terminated or truncated:
            break
    return total


def _right_branch(truth: NDArray[np.float64], dream: NDArray[np.float64]) -> float:
    """How often a dreamt branch (K, pixels) is nearest to its own real one; equal real branches share a hit."""
    distance = ((dream[:, None] - truth[None]) ** 2).mean(-1)  # (K dreamt, K real)
    nearest = distance <= distance.min(1, keepdims=True) + 1e-9
    return float((nearest.diagonal() / nearest.sum(1)).mean())
