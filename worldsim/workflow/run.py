"""The main job: from a real env to an agent that learned in its dream, and an honest verdict."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from worldsim import distributed
from worldsim.config import differences, to_dict
from worldsim.data.collection import Collector, unfinished
from worldsim.data.files import explained, in_turn, lock, write_json
from worldsim.data.import_episodes import has_real_env
from worldsim.device import describe
from worldsim.errors import UserError
from worldsim.ffmpeg import ffmpeg_program
from worldsim.workflow import stages
from worldsim.workflow.checks import check_environment, check_processes, check_settings
from worldsim.workflow.clock import StageClock
from worldsim.workflow.config import RunConfig
from worldsim.workflow.cost import describe_cost
from worldsim.workflow.folders import round_folders
from worldsim.workflow.machine import choose_machine
from worldsim.workflow.real_episodes import collect_episodes, environment_spec, play_round
from worldsim.workflow.sources import as_walked, describe_end, open_source
from worldsim.workflow.verdict import evaluate_run

CONFIG = "config.json"
LOCK = "run.lock"
# Settings that change neither data nor weights, or only what comes after both.
FREE_SETTINGS = ("threads", "device", "distributed", "checkpoint_seconds", "evaluate")

UNTIL = ("collect", "tokenizer", "dynamics", "agent", "evaluate")


def run(
    config: RunConfig,
    folder: Path,
    say: Callable[[str], None],
    until: str = "evaluate",
    when_begun: Callable[[], None] | None = None,
) -> dict[str, Any] | None:
    """Walk the stages in `folder`; run again, it skips what is finished and goes on with the rest.

    until: a name in UNTIL; the walk stops after that stage of the last round. With "collect" and "tokenizer", which
    later rounds cannot repeat without a policy, it stops in round 0. On recordings without a real env
    (`collect.source`) it always ends with the world model. when_begun: called once `folder` is there. Returns the
    verdict if it was reached. Raises UserError for a config that contradicts what is on disk.

    Processes started by torchrun share the training of tokenizer and dynamics (`distributed`); the first one does all
    the rest, writes, speaks and returns the verdict.
    """
    if until not in UNTIL:
        raise UserError(f"until={until!r}: expected one of {', '.join(UNTIL)}")
    check_settings(config)
    if until not in ("collect", "tokenizer"):
        ffmpeg_program()  # without it a run would end after hours, where the first videos are made
    with distributed.joined(config.distributed), ExitStack() as held:
        return _walk(config, folder, say if distributed.rank() == 0 else _silent, until, when_begun, held)


def _walk(
    config: RunConfig,
    folder: Path,
    say: Callable[[str], None],
    until: str,
    when_begun: Callable[[], None] | None,
    held: ExitStack,
) -> dict[str, Any] | None:
    check_processes(config, distributed.size())
    check_same_run(config, folder)
    machine = choose_machine(config)
    source = open_source(config)
    spec = environment_spec(config, source)
    check_environment(config, spec)
    distributed.on_rank_0(lambda: _begin(config, folder, when_begun, held))
    walked = config if source is None else as_walked(config, source)
    say(f"worldsim run in {folder}: {describe(machine.device, machine.dtype)}\n{describe_cost(walked, spec)}")
    clock = StageClock(folder / "seconds.json")
    measure = clock.measure if distributed.rank() == 0 else _unmeasured

    only_recordings = source is not None and not has_real_env(spec)
    last_round = 0 if only_recordings else config.rounds - 1
    for number in range(config.rounds):
        with measure(f"round {number}: collect"):
            store = collect_episodes(config, folder, spec, source, number, machine)
        if until == "collect":
            return None
        with measure("tokenizer"):
            tokenizer = stages.train_tokenizer(config, folder, number, store, machine)
        if until == "tokenizer":
            return None
        with measure(f"round {number}: encode"):
            latents = stages.encode_episodes(store, tokenizer, machine)
        with measure(f"round {number}: dynamics"):
            learner = stages.train_dynamics(config, folder, number, store, latents, tokenizer, machine)
        dynamics, endings, plans = learner.average, None, None
        if config.endings.steps:
            with measure(f"round {number}: endings"):
                foresee = partial(stages.train_endings, config, folder, number, store, latents, dynamics, machine)
                endings = distributed.on_rank_0(foresee)
        if config.plans.steps:
            with measure(f"round {number}: plans"):
                learn = partial(stages.train_plans, walked, folder, number, store, latents, tokenizer, machine)
                plans = distributed.on_rank_0(learn)
        # In the last round alone: one agent's training does not earn a distillation back.
        if config.dynamics.distillation_steps and number == last_round:
            with measure(f"round {number}: distillation"):
                distil = partial(stages.distil, config, folder, number, store, latents, tokenizer, dynamics, machine)
                dynamics = distributed.on_rank_0(distil) or dynamics
        with measure(f"round {number}: world model"):
            parts = (tokenizer, learner, dynamics, endings, plans, machine)
            save = partial(stages.save_world_model, config, folder, number, store, latents, *parts)
            distributed.on_rank_0(save)
        if only_recordings:
            say(describe_end(spec, round_folders(folder, number).world_model))
            return None
        if until == "dynamics" and number == last_round:
            return None
        with measure(f"round {number}: agent"):
            train_agent = partial(stages.train_agent, config, folder, number, store, latents, machine)
            distributed.on_rank_0(train_agent)
    if until == "agent":
        return None
    with measure("evaluate"):
        verdict = distributed.on_rank_0(partial(evaluate_run, config, folder, machine, store, clock.now))
    say(f"verdict, videos and pictures: {folder}")
    return verdict


def _begin(
    config: RunConfig, folder: Path, when_begun: Callable[[], None] | None = None, held: ExitStack | None = None
) -> None:
    """Make `folder` the run's. With `held` it is this process's alone until that ends: two would write the same
    checkpoints. UserError if another one has it.
    """
    with explained("start the run", folder):
        folder.mkdir(parents=True, exist_ok=True)
        if held is not None:
            lock(held.enter_context((folder / LOCK).open("wb")), folder)
        if when_begun is not None:
            when_begun()
        write_json(folder / CONFIG, to_dict(config))


def _silent(text: str) -> None:
    pass


def _unmeasured(stage: str) -> AbstractContextManager[None]:
    return nullcontext()


def collect_share(config: RunConfig, folder: Path, say: Callable[[str], None], collector: Collector) -> None:
    """Play a collector's share of round 0 in `folder`, which all collectors share; run again, it goes on.

    Raises UserError for a config that contradicts what is on disk, and where there is nothing to play.
    """
    check_settings(config)
    if config.collect.source is not None:
        raise UserError(f"collect.source={config.collect.source}: these episodes are taken, none are played; use `run`")
    with explained("collect", folder):
        folder.mkdir(parents=True, exist_ok=True)
        with in_turn(folder / "episodes.lock"):
            check_same_run(config, folder)
            _begin(config, folder)
    spec = environment_spec(config)
    check_environment(config, spec)
    store = play_round(config, folder, spec, 0, torch.float32, collector)
    missing = unfinished(store, 0, config.collect.tics[0])
    rest = f"not finished yet: {', '.join(map(str, missing))}" if missing else "all have finished: worldsim run goes on"
    say(f"collector {collector} has finished; {rest}")


def begun_settings(folder: Path) -> dict[str, Any] | None:
    """The settings of the run in `folder`, None if none was begun there. Raises UserError if something else was."""
    path = folder / CONFIG
    if not path.exists():
        return None
    with explained("read the run", folder):
        text = path.read_bytes()
    try:
        settings = json.loads(text)
        foreign = not isinstance(settings, dict) or "collect" not in settings
    except ValueError:
        foreign = True
    if foreign:
        raise UserError(f"{path} is not that of a run: choose another --folder")
    return settings


def check_same_run(config: RunConfig, folder: Path) -> None:
    """Raise UserError if `folder` holds a run with other settings, with the difference, or something else."""
    old = begun_settings(folder)
    if old is None:
        return
    settings = json.loads(json.dumps(to_dict(config)))
    for name in FREE_SETTINGS:
        old.pop(name, None)
        settings.pop(name, None)
    if changed := differences(old, settings):
        raise UserError(f"{folder} was begun with other settings: {'; '.join(changed)}; use another --folder")
