"""A short look at a real env that nobody has described: its pictures, how much a step changes, how fast it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldsim import envs
from worldsim.envs.config import EnvConfig
from worldsim.envs.pictures import resize
from worldsim.envs.wrappers import PixelEnv
from worldsim.errors import UserError
from worldsim.scripted_policies import StickyRandom

LOOK_SECONDS = 6.0
LARGEST_SIDE = 256  # of the pictures that are looked at; larger ones are scaled to it
MOST_FRAMES = 600
FEWEST_FRAMES = 48  # however slow the env is
UNKNOWN_LENGTH = 1000  # tics of an episode where none ended and no limit is known
LAGS = (1, 2, 4, 8, 16)  # tics between two frames that are compared
SHORT_SIDES = (32, 48, 64)  # of the frames among which one is chosen
PAIRS = 48
CONTRAST_LAG = 4  # tics: what moves slowly must have come somewhere
VISIBLE_CHANGE = 40  # grey levels
KEPT_QUANTILE = 0.25  # of the tiles; what is lost first are the small things
TILES = 16  # a side; the peaks of each are compared, so that a large change does not hide a small one

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Look:
    """What a few random episodes of an env show.

    picture: (height, width) in pixels, after the crop. grey: the three channels are equal in all of them.
    tics_per_second: as the env states it, None where it does not. max_episode_tics: its time limit, if any.
    action_space: plain data, as in `EnvSpec`. episode_tics: length of each finished episode. endings: how many of them
    terminated. changes: by lag in tics, mean absolute change in grey levels of the frames that changed at all. still:
    share of tics that left the picture as it was, 0 to 1. kept: by length of a frame's short side in pixels, the share
    of their contrast that three of four changes keep at least at that size, 0 to 1. seconds_per_tic: of simulating,
    with its part of the resets; seconds_per_frame: of getting a picture; both on one core.
    """

    picture: tuple[int, int]
    grey: bool
    tics_per_second: float | None
    max_episode_tics: int | None
    action_space: dict[str, Any]
    episode_tics: tuple[int, ...]
    endings: int
    changes: dict[int, float]
    still: float
    kept: dict[int, float]
    seconds_per_tic: float
    seconds_per_frame: float


def look_at(config: EnvConfig, seconds: float = LOOK_SECONDS, seed: int = 0) -> Look:
    """Play random episodes of the env for about so long and measure. Frame size, frame skip and grayscale do not count.

    Raises UnusableEnvironmentError, and UserError where random play cannot draw an action.
    """
    size = _picture_size(config)
    scale = min(1.0, LARGEST_SIDE / max(size))
    height, width = (max(1, round(side * scale)) for side in size)
    watched = replace(config, frame_height=height, frame_width=width, grayscale=False, frame_skip=1)
    env = envs.make(watched)
    try:
        facts = envs.describe(env, watched)
        _check_bounds(config, env.action_space)
        played = _play(env, seconds / 2, FEWEST_FRAMES, seed, keep=MOST_FRAMES)
        stated = envs.tics_per_second(env, watched)
    finally:
        env.close()
    limit = facts["max_episode_steps"]
    per_tic, per_frame = _seconds(config, seconds / 4, seed)
    between = played.reset_seconds / len(played.frames)  # paid once an episode
    typical = float(np.mean(played.lengths)) if played.lengths else float(limit or UNKNOWN_LENGTH)
    episodes = [np.stack(frames) for frames in played.frames]
    return Look(
        picture=size,
        grey=all(bool((frames == frames[..., :1]).all()) for frames in episodes),
        tics_per_second=stated,
        max_episode_tics=limit,
        action_space=facts["action_space"],
        episode_tics=tuple(played.lengths),
        endings=played.endings,
        changes=_changes(episodes),
        still=_still(episodes),
        kept=_kept(episodes, seed),
        seconds_per_tic=per_tic + between / typical,
        seconds_per_frame=per_frame,
    )


def frame_size(picture: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(height, width) with this short side and about the picture's aspect, in multiples of 16, at most 4 to 1."""
    long = round(short_side * max(picture) / min(picture) / 16) * 16
    long = min(max(long, short_side), 4 * short_side)
    return (short_side, long) if picture[0] <= picture[1] else (long, short_side)


@dataclass
class _Played:
    """frames: of each episode, those that are kept. lengths: of those that ended. Seconds are of all steps, resets."""

    frames: list[list[Frames]]
    lengths: list[int]
    endings: int = 0
    steps: int = 0
    tics: int = 0
    step_seconds: float = 0.0
    reset_seconds: float = 0.0


def _play(env: gym.Env[Any, Any], seconds: float, fewest: int, seed: int, keep: int = 0) -> _Played:
    """Sticky random episodes until the time is over, with at least `fewest` steps; `keep` of the frames are kept."""
    policy = StickyRandom(env.action_space)
    played = _Played([], [])
    began = time.perf_counter()
    while played.steps < fewest or time.perf_counter() - began < seconds:
        episode = len(played.frames)
        policy.reset(seed + episode)
        reset = time.perf_counter()
        frame, _ = env.reset(seed=seed + episode)
        started = time.perf_counter()
        played.reset_seconds += started - reset
        played.frames.append([frame])
        length, ended = 0, False
        while not ended and (played.steps < fewest or time.perf_counter() - began < seconds):
            frame, _, terminated, truncated, info = env.step(policy(frame))
            played.steps += 1
            length += info["tics"]
            if played.steps < keep:
                played.frames[-1].append(frame)
            ended = bool(terminated or truncated)
            played.endings += bool(terminated)
        played.tics += length
        played.step_seconds += time.perf_counter() - started
        if ended:
            played.lengths.append(length)
    return played


def _seconds(config: EnvConfig, seconds: float, seed: int) -> tuple[float, float]:
    """Seconds of a tic and of a frame, without resets: from play with a frame after each tic and after every fourth."""
    costs, tics = [], []
    for skip in (1, 4):
        env = envs.make(replace(config, frame_height=64, frame_width=64, frame_skip=skip))
        try:
            played = _play(env, seconds, fewest=16, seed=seed)
        finally:
            env.close()
        costs.append(played.step_seconds / played.steps)
        tics.append(played.tics / played.steps)
    slope = (costs[1] - costs[0]) / max(tics[1] - tics[0], 0.5)
    per_tic = float(np.clip(slope, 0.05 * costs[0], costs[0]))
    return per_tic, costs[0] - per_tic


def _picture_size(config: EnvConfig) -> tuple[int, int]:
    env = envs.make(config)
    try:
        assert isinstance(env, PixelEnv)
        return env.picture_size
    finally:
        env.close()


def _check_bounds(config: EnvConfig, space: gym.Space[Any]) -> None:
    if isinstance(space, gym.spaces.Box) and not space.is_bounded("both"):
        raise UserError(
            f"{config.id}: action space {space} has no bounds, so random play cannot draw from it; give the Box finite "
            "low and high, for instance in a gymnasium.wrappers.TransformAction"
        )


def _pairs(episodes: list[Frames], lag: int) -> Iterator[tuple[Frames, Frames]]:
    for frames in episodes:
        yield from zip(frames, frames[lag:], strict=False)


def _changes(episodes: list[Frames]) -> dict[int, float]:
    found = {}
    for lag in LAGS:
        steps = [float(np.abs(later.astype(np.int16) - now).mean()) for now, later in _pairs(episodes, lag)]
        changed = [change for change in steps if change > 0]
        if changed:
            found[lag] = float(np.mean(changed))
    return found


def _still(episodes: list[Frames]) -> float:
    same = [bool((now == later).all()) for now, later in _pairs(episodes, 1)]
    return float(np.mean(same)) if same else 1.0


def _kept(episodes: list[Frames], seed: int) -> dict[int, float]:
    """By short side: the share of a tile's largest change that is left at that size."""
    pairs = [(now, later) for now, later in _pairs(episodes, CONTRAST_LAG) if (now != later).any()]
    chosen = np.random.default_rng(seed).permutation(len(pairs))[:PAIRS]
    shares: dict[int, list[NDArray[np.float64]]] = {side: [] for side in SHORT_SIDES}
    for now, later in (pairs[i] for i in chosen):
        size = now.shape[:2]
        whole = _tile_peaks(now, later, size)
        seen = whole >= VISIBLE_CHANGE
        for side in SHORT_SIDES:
            small = frame_size(size, side)
            shrunk = _tile_peaks(resize(now, *small), resize(later, *small), size)
            shares[side].append((shrunk[seen] / whole[seen]).clip(max=1.0))
    joined = {side: np.concatenate(parts) for side, parts in shares.items() if parts}
    return {side: float(np.quantile(values, KEPT_QUANTILE)) for side, values in joined.items() if len(values)}


def _tile_peaks(now: Frames, later: Frames, size: tuple[int, int]) -> NDArray[np.float64]:
    """The largest change in each of TILES x TILES tiles, of pictures laid over one of `size`."""
    change = np.abs(later.astype(np.int16) - now).max(-1)
    rows, cols = (np.arange(side) * given // side for side, given in zip(size, change.shape, strict=True))
    spread = change[rows][:, cols]
    starts = [np.unique(np.arange(min(TILES, side)) * side // min(TILES, side)) for side in size]
    return np.maximum.reduceat(np.maximum.reduceat(spread, starts[0], 0), starts[1], 1).astype(np.float64)
