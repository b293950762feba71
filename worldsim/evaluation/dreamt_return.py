"""What the dream itself says an agent is worth: full-length dreams from the first frames of episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from worldsim.dream import DreamVectorEnv
from worldsim.errors import UserError
from worldsim.evaluation.statistics import Score
from worldsim.start_contexts import StartContexts
from worldsim.world_model import WorldModel

Act = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class FirstEpisodes:
    """The first episode of each row: returns float64, lengths int64 and terminated bool, all (num_envs,)."""

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    terminated: NDArray[np.bool_]


def first_episodes(
    env: gym.vector.VectorEnv[Any, Any, Any], act: Act, seed: int, on_end: Callable[[int], object] | None = None
) -> FirstEpisodes:
    """Plays until every row's first episode is over, and counts nothing that a row does afterwards.

    Taking the first n episodes to finish of a few rows instead would prefer short ones. `env` must restart rows on
    its own. `on_end` is told how many rows have just ended.
    """
    observations, _ = env.reset(seed=seed)
    returns, lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, np.int64)
    terminated, running = np.zeros(env.num_envs, np.bool_), np.ones(env.num_envs, np.bool_)
    while running.any():
        observations, rewards, ends, cuts, _ = env.step(act(observations))
        returns[running] += np.asarray(rewards, np.float64)[running]
        lengths[running] += 1
        terminated |= running & ends
        ended = running & (ends | cuts)
        running = running & ~ended
        if on_end is not None and ended.any():
            on_end(int(ended.sum()))
    return FirstEpisodes(returns, lengths, terminated)


def score_in_dream(
    model: WorldModel,
    act: Act,
    *,
    episodes: int,
    seed: int,
    observation: str | None = None,
    max_episode_steps: int | None = None,
    temperature: float | None = None,
    start_contexts: StartContexts | None = None,
    rows_at_once: int = 64,
    progress: str | None = None,
) -> Score:
    """Returns of `episodes` dreams from episode starts, cut at the real environment's cap (or `max_episode_steps`).

    `act` takes the observations of all rows, (B, ...), and gives their actions; observation=None: what agents of the
    model read. Episode i is dreamt with seed `seed + i`, whatever `rows_at_once`. Raises UserError when nothing limits
    the length of a dream.
    """
    cap = max_episode_steps or model.spec.max_episode_steps
    if cap is None:
        raise UserError(f"{model.spec.id} has no limit of steps and a dream may never end: give max_episode_steps")
    groups = []
    with tqdm(total=episodes, desc=progress, unit="dream", dynamic_ncols=True, disable=progress is None) as bar:
        for first in range(0, episodes, rows_at_once):
            rows = DreamVectorEnv(
                model,
                min(rows_at_once, episodes - first),
                observation=observation or model.agent_observation,
                max_episode_steps=cap,
                temperature=temperature,
                start_contexts=start_contexts,
                start="episode_start",
            )
            groups.append(first_episodes(rows, act, seed + first, bar.update))
    terminated = float(np.concatenate([group.terminated for group in groups]).mean())
    return Score(
        returns=np.concatenate([group.returns for group in groups]).tolist(),
        seeds=list(range(seed, seed + episodes)),
        lengths=np.concatenate([group.lengths for group in groups]).tolist(),
        details={
            "terminated": terminated,
            "max_episode_steps": cap,
            "temperature": model.temperature if temperature is None else temperature,
        },
    )
