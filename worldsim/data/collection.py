"""Playing a policy in the real environment until a budget is used, with any number of worker processes.

Worker w of n plays the episodes w, w + n, w + 2n, ... into a shard of its own until its share of the budget is used.
An episode's seed and split follow from its number alone, so a collection that is interrupted and run again ends up
with the same bytes as one that was not: only the episode that was being played is played again. A `BatchPolicy` plays a
block of episodes at once. Which episodes form a block follows from what was stored before it; a block that was
interrupted is played again as a whole, since the rows of another batch would differ in the last bit.

The workers may be spread over several programs, on several machines that share the folder: `Collector`. As a worker's
share is the same wherever it is played, so are the episodes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from worldsim.data.episode import EnvSpec, as_episode
from worldsim.data.files import explained, in_turn, write_json
from worldsim.data.shards import IndexEntry
from worldsim.data.store import EpisodeStore, open_or_create
from worldsim.errors import UserError
from worldsim.rollouts import BatchPolicy, Env, OneRow, Policy, play_side_by_side, several
from worldsim.workers import Send, run_workers

REPORT_SECONDS = 0.5
FIRST_GUESS_TICS = 200  # of an episode, where none was played yet


@dataclass(frozen=True)
class RoundPlan:
    """What decides the episodes of a round, apart from its budget, which may grow."""

    seed: int
    round: int
    workers: int
    held_out_fraction: float
    policy: str
    max_steps: int | None
    reset_options: dict[str, Any] | None
    side_by_side: int


@dataclass(frozen=True)
class Collector:
    """One of `total` programs that collect a round together: plays the shares of every `total`-th worker.

    number: from 1 to `total`.
    """

    number: int
    total: int

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


@dataclass(frozen=True)
class Progress:
    """What a worker reports: played since its last report, in steps of the underlying environment."""

    tics: int
    episodes: int


def collect(
    store_folder: Path | str,
    spec: EnvSpec,
    make_env: Callable[[], Env],
    make_policy: Callable[[], Policy] | Callable[[], BatchPolicy],
    *,
    budget_tics: int,
    workers: int,
    seed: int,
    round: int,  # noqa: A002
    held_out_fraction: float,
    policy_name: str,
    progress: bool,
    max_steps: int | None = None,
    reset_options: dict[str, Any] | None = None,
    compression: str = "none",
    side_by_side: int = 0,
    collector: Collector | None = None,
) -> EpisodeStore:
    """Plays one round of `budget_tics` steps of the underlying environment and returns the store.

    Run again, it continues where it stopped, or returns at once when the budget is used; what each worker plays last
    is cut (truncated) at the worker's share. With more than one worker `make_env` and `make_policy` must be picklable.
    `max_steps` cuts single episodes, `reset_options` go to `env.reset`. side_by_side: 0 if the policy is a `Policy`;
    of a `BatchPolicy` the number of episodes that a worker plays at once. Raises UserError for unusable values, for a
    round that was begun otherwise, and when a worker fails; what was stored until then stays.

    collector: plays only its share of the workers. A round that collectors began is theirs: without one nothing is
    played, and UserError says which of them have not finished.
    """
    if budget_tics < workers or workers < 1:
        raise UserError(f"{budget_tics} tics for {workers} workers: expected at least 1 worker and 1 tic for each")
    if not 0 <= held_out_fraction <= 0.5:
        raise UserError(f"held_out_fraction: {held_out_fraction}, expected 0 to 0.5")
    if collector is not None and not 1 <= collector.number <= collector.total <= workers:
        raise UserError(
            f"collector {collector} of a round with {workers} workers: expected 1/{workers} to {workers}/{workers} or "
            "fewer collectors; collect.workers counts those of all collectors"
        )
    plan = RoundPlan(seed, round, workers, held_out_fraction, policy_name, max_steps, reset_options, side_by_side)
    with explained("collect", Path(store_folder)), _begins_alone(Path(store_folder), collector):
        store = open_or_create(store_folder, spec, compression)
        _check_same_plan(_plan_path(store.folder, round), plan)
        if collector is not None:
            _check_same_collectors(_collectors_path(store.folder, round), collector)
    if collector is None and _collectors_path(store.folder, round).exists():
        if missing := unfinished(store, round, budget_tics):
            raise UserError(
                f"{store.folder}: round {round} lacks the shares of the collectors {', '.join(map(str, missing))}: "
                f"wait for them, or run again those that were stopped (worldsim collect ... --collector {missing[0]})"
            )
        return store
    mine = range(workers) if collector is None else range(collector.number - 1, workers, collector.total)
    shares = _shares(budget_tics, workers)
    names = {_shard_name(round, worker) for worker in mine}
    done = [entry for i, entry in enumerate(store.entries) if store.shard_name(i) in names]
    episodes = len(done)
    with tqdm(
        total=sum(shares[worker] for worker in mine),
        initial=sum(entry.tics for entry in done),
        desc=f"collect round {round}",
        unit="frame",
        unit_scale=True,
        dynamic_ncols=True,
        disable=not progress,
    ) as bar:

        def report(worker: int, message: Progress) -> None:
            nonlocal episodes
            episodes += message.episodes
            bar.set_postfix(episodes=episodes, refresh=False)
            bar.update(message.tics)

        common = {"folder": store.folder, "plan": plan, "make_env": make_env, "make_policy": make_policy}
        arguments = [{**common, "worker": worker, "share_tics": shares[worker]} for worker in mine]
        run_workers(_collect_share, arguments, report)
    store.refresh()
    return store


def unfinished(store: EpisodeStore, round_number: int, budget_tics: int) -> list[Collector]:
    """Those of a round's collectors whose workers have not played all their tics; none if it has no collectors."""
    plan_path, collectors_path = _plan_path(store.folder, round_number), _collectors_path(store.folder, round_number)
    if not collectors_path.exists():
        return []
    plan = RoundPlan(**json.loads(plan_path.read_text(encoding="utf-8")))
    collectors = _read_collectors(collectors_path)
    shares = _shares(budget_tics, plan.workers)
    played: dict[str, list[IndexEntry]] = {}
    for i, entry in enumerate(store.entries):
        played.setdefault(store.shard_name(i), []).append(entry)

    def is_done(worker: int) -> bool:
        entries = played.get(_shard_name(plan.round, worker), [])
        return not _left(shares[worker], entries[: _block_begun(plan, shares[worker], entries)])

    late = {worker % collectors for worker in range(plan.workers) if not is_done(worker)}
    return [Collector(number + 1, collectors) for number in sorted(late)]


def episode_seed(seed: int, round_number: int, number: int) -> int:
    """The seed of one episode: 31 bits that differ between experiments, rounds and episodes."""
    return int(np.random.SeedSequence((seed, round_number, number)).generate_state(1)[0] >> 1)


def is_held_out(number: int, fraction: float) -> bool:
    """Whether the episode is never trained on: for 0.1 the numbers 1, 11, 21, ..."""
    exact = Fraction(fraction).limit_denominator(10_000)
    return floor((number - 1) * exact) > floor((number - 2) * exact)


def _check_same_plan(path: Path, plan: RoundPlan) -> None:
    """Records the plan of a new round; raises UserError if the round was begun with another one."""
    if not path.exists():
        with explained("record the round", path.parent):
            write_json(path, asdict(plan))
        return
    old, new = json.loads(path.read_text(encoding="utf-8")), asdict(plan)
    changed = [f"{name} was {old.get(name)}, now {new[name]}" for name in new if old.get(name) != new[name]]
    if changed:
        raise UserError(f"{path}: this round was begun with other values: {'; '.join(changed)}; use another folder")


def reset_options(store: EpisodeStore, round_number: int) -> dict[str, Any] | None:
    """The options with which the episodes of a round were begun; None: without."""
    path = _plan_path(store.folder, round_number)
    options: dict[str, Any] | None = None
    if path.exists():
        options = json.loads(path.read_text(encoding="utf-8")).get("reset_options")
    return options


def keep_reset_options(source: EpisodeStore, store: EpisodeStore) -> None:
    """For a `store` whose round 0 is copied from `source`, so that its episodes can be replayed: those of the source's
    round 0. Episodes of its later rounds begin without, and are not replayed where there are any.
    """
    if options := reset_options(source, 0):
        write_json(_plan_path(store.folder, 0), {"reset_options": options})


def _shares(budget_tics: int, workers: int) -> list[int]:
    """The tics of each worker."""
    return [budget_tics // workers + (worker < budget_tics % workers) for worker in range(workers)]


def _begins_alone(store_folder: Path, collector: Collector | None) -> AbstractContextManager[None]:
    """Of collectors that begin at the same moment, one makes the store while the others wait."""
    if collector is None:
        return nullcontext()
    store_folder.parent.mkdir(parents=True, exist_ok=True)
    return in_turn(store_folder.with_name(store_folder.name + ".lock"))


def _check_same_collectors(path: Path, collector: Collector) -> None:
    """Records how many collectors a new round has; raises UserError if it was begun with another number."""
    if not path.exists():
        write_json(path, {"collectors": collector.total})
    elif (found := _read_collectors(path)) != collector.total:
        raise UserError(f"collector {collector}: {path} says that this round has {found} collectors; keep that number")


def _read_collectors(path: Path) -> int:
    return int(json.loads(path.read_text(encoding="utf-8"))["collectors"])


def _plan_path(store_folder: Path, round_number: int) -> Path:
    return store_folder / f"round{round_number:02d}.json"


def _collectors_path(store_folder: Path, round_number: int) -> Path:
    return store_folder / f"round{round_number:02d}-collectors.json"


def _shard_name(round_number: int, worker: int) -> str:
    return f"round{round_number:02d}-worker{worker:02d}"


def _collect_share(
    send: Send,
    *,
    folder: Path,
    plan: RoundPlan,
    worker: int,
    share_tics: int,
    make_env: Callable[[], Env],
    make_policy: Callable[[], Any],
) -> None:
    with EpisodeStore.open(folder).writer(_shard_name(plan.round, worker)) as writer:
        first = _block_begun(plan, share_tics, writer.entries)
        if not _left(share_tics, writer.entries[:first]):
            return
        policy = make_policy() if plan.side_by_side else OneRow(make_policy())
        reporter = _Reporter(send)
        with several(make_env, max(1, plan.side_by_side)) as envs:
            while left := _left(share_tics, writer.entries[:first]):
                count = _block_size(plan, left, writer.entries[:first])
                numbers = [worker + plan.workers * (first + k) for k in range(count)]
                seeds = [episode_seed(plan.seed, plan.round, number) for number in numbers]
                results = play_side_by_side(
                    envs,
                    policy,
                    seeds,
                    max_steps=plan.max_steps,
                    max_tics=left,
                    on_step=reporter.add_step,
                    reset_options=plan.reset_options,
                )
                stored = len(writer.entries) - first  # of a block that was interrupted
                for number, result in list(zip(numbers, results, strict=True))[stored:]:
                    split = "held_out" if is_held_out(number, plan.held_out_fraction) else "train"
                    writer.append(as_episode(result, policy=plan.policy, split=split, round=plan.round))
                    reporter.send(episodes=1)
                first += count


def _block_size(plan: RoundPlan, left: int, entries: list[IndexEntry]) -> int:
    """How many episodes to play next, so that what is left is enough for each, going by those before (`entries`)."""
    if not plan.side_by_side:
        return 1
    mean_tics = sum(entry.tics for entry in entries) / len(entries) if entries else FIRST_GUESS_TICS
    return max(1, min(plan.side_by_side, int(left / mean_tics)))


def _block_begun(plan: RoundPlan, share_tics: int, entries: list[IndexEntry]) -> int:
    """Where among `entries` the block begins that is not stored as a whole; their number if all are."""
    first = 0
    while first < len(entries):
        size = _block_size(plan, _left(share_tics, entries[:first]), entries[:first])
        if first + size > len(entries):
            break
        first += size
    return first


def _left(share_tics: int, entries: list[IndexEntry]) -> int:
    """Tics that the worker may still play; 0 when not even one step fits."""
    left = share_tics - sum(entry.tics for entry in entries)
    longest_step = max((-(-entry.tics // (entry.frames - 1)) for entry in entries), default=1)
    return left if left >= longest_step else 0


class _Reporter:
    """Sends progress now and then: a message for each step would cost more than the step."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._tics = 0
        self._due = time.monotonic() + REPORT_SECONDS

    def add_step(self, tics: int) -> None:
        self._tics += tics
        if time.monotonic() >= self._due:
            self.send(episodes=0)

    def send(self, episodes: int) -> None:
        self._send(Progress(self._tics, episodes))
        self._tics = 0
        self._due = time.monotonic() + REPORT_SECONDS
