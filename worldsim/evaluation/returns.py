"""Returns of policies in the real environment, played by worker processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from worldsim.evaluation.statistics import Score
from worldsim.rollouts import BatchPolicy, Env, EpisodeResult, Policy, play_episode, play_many
from worldsim.workers import Send, run_workers

MakeEnv = Callable[[], Env]
MakePolicy = Callable[[], Policy]
MakeBatchPolicy = Callable[[], BatchPolicy]


def score_policy(
    make_env: MakeEnv,
    make_policy: MakePolicy | MakeBatchPolicy,
    seeds: Sequence[int],
    workers: int = 1,
    *,
    side_by_side: int = 0,
    max_steps: int | None = None,
    details: dict[str, Any] | None = None,
    progress: str | None = None,
) -> Score:
    """One real episode per seed. With more than one worker both callables must be picklable.

    side_by_side: 0 for a `Policy`; of a `BatchPolicy` the number of episodes that a worker plays at once.

    `details` travels with the score; `progress` is the name on a progress bar, None for no bar.
    """
    with tqdm(total=len(seeds), desc=progress, unit="episode", dynamic_ncols=True, disable=progress is None) as bar:
        results = play_many(
            make_env,
            make_policy,
            seeds,
            workers,
            side_by_side=side_by_side,
            max_steps=max_steps,
            on_episode=lambda _: bar.update(),
        )
    return as_score(results, details)


def as_score(results: Sequence[EpisodeResult], details: dict[str, Any] | None = None) -> Score:
    """The score of episodes that were played already."""
    return Score(
        returns=[result.total_reward for result in results],
        seeds=[result.seed for result in results],
        lengths=[result.length for result in results],
        tics=[result.tics for result in results],
        details={"terminated": sum(result.terminated for result in results) / max(1, len(results)), **(details or {})},
    )


def returns_of_many(
    make_env: MakeEnv,
    make_policies: Sequence[MakePolicy],
    seeds: Sequence[int],
    workers: int = 1,
    *,
    max_steps: int | None = None,
    progress: str | None = None,
) -> list[list[float]]:
    """Returns [policy][seed] of many short-lived policies, with one set of workers and one environment in each."""
    jobs = [(number, make, seed) for number, make in enumerate(make_policies) for seed in seeds]
    returns: dict[tuple[int, int], float] = {}
    with tqdm(total=len(jobs), desc=progress, unit="episode", dynamic_ncols=True, disable=progress is None) as bar:

        def receive(worker: int, message: tuple[int, int, float]) -> None:
            number, seed, total_reward = message
            returns[number, seed] = total_reward
            bar.update()

        shares = [jobs[worker::workers] for worker in range(min(workers, len(jobs)))]
        arguments = [{"make_env": make_env, "jobs": share, "max_steps": max_steps} for share in shares]
        if arguments:
            run_workers(_play_jobs, arguments, receive)
    return [[returns[number, seed] for seed in seeds] for number in range(len(make_policies))]


def _play_jobs(
    send: Send, *, make_env: MakeEnv, jobs: Sequence[tuple[int, MakePolicy, int]], max_steps: int | None
) -> None:
    env = make_env()
    try:
        for number, make_policy, seed in jobs:
            result = play_episode(env, make_policy(), seed, max_steps=max_steps, keep_frames=False)
            send((number, seed, result.total_reward))
    finally:
        env.close()
