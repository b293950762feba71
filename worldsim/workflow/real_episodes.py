"""The stage that plays: real episodes of every round."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from worldsim import distributed, envs
from worldsim.data.collection import Collector, collect
from worldsim.data.episode import EnvSpec
from worldsim.data.import_episodes import has_real_env
from worldsim.data.mirror import mirror_round
from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError
from worldsim.scripted_policies import StickyRandom
from worldsim.workflow.config import RunConfig
from worldsim.workflow.folders import round_folders
from worldsim.workflow.machine import Machine
from worldsim.workflow.policies import SIDE_BY_SIDE, load_dream_trained
from worldsim.workflow.sources import take_episodes


def environment_spec(config: RunConfig, source: EpisodeStore | None = None) -> EnvSpec:
    """What the real env of `config` is; that of the episodes brought along, if they have none that can be made."""
    if source is not None and not has_real_env(source.spec):
        return source.spec
    env = envs.make(config.env)
    try:
        return EnvSpec.from_dict(envs.describe(env, config.env))
    finally:
        env.close()


def collect_episodes(
    config: RunConfig, run: Path, spec: EnvSpec, source: EpisodeStore | None, round_number: int, machine: Machine
) -> EpisodeStore:
    """Real episodes: round 0 with a sticky random policy, later rounds with the newest policy and some noise.

    With a source, round 0 takes its episodes instead. The store shows the rounds up to this one, so that a rerun finds
    every stage as it was.
    Raises UserError if they are too few to hold some out.
    """
    if source is not None and round_number == 0:
        distributed.on_rank_0(lambda: take_episodes(source, run, config.collect.compression))
    else:
        distributed.on_rank_0(lambda: play_round(config, run, spec, round_number, machine.dtype))
    store = EpisodeStore.open(run / "episodes").through_round(round_number)
    if config.collect.mirror_actions:
        distributed.on_rank_0(lambda: mirror_round(store, round_number, config.collect.mirror_actions, progress=True))
        store.refresh()
    return _checked(store, config)


def play_round(
    config: RunConfig,
    run: Path,
    spec: EnvSpec,
    round_number: int,
    dtype: torch.dtype,
    collector: Collector | None = None,
) -> EpisodeStore:
    """Play a round, or a collector's share of it; see `collect`. dtype: of the policy's networks in later rounds."""
    if round_number == 0:
        stickiness = config.collect.stickiness
        make_policy: Any = partial(
            StickyRandom,
            spec.gym_action_space(),
            stickiness if stickiness == "mixed" else float(stickiness),
        )
        policy_name = "sticky-random"
    else:
        before = round_folders(run, round_number - 1)
        make_policy = partial(
            load_dream_trained,
            before.world_model,
            before.policy,
            noise=config.collect.policy_noise,
            noise_steps=config.collect.noise_steps,
            dtype=dtype,
        )
        policy_name = f"dream-trained, round {round_number - 1}"
    return collect(
        run / "episodes",
        spec,
        partial(envs.make, config.env),
        make_policy,
        budget_tics=config.collect.tics[round_number],
        workers=config.collect.workers,
        seed=config.seed,
        round=round_number,
        held_out_fraction=config.collect.held_out_fraction,
        policy_name=policy_name,
        side_by_side=SIDE_BY_SIDE if round_number else 0,
        progress=True,
        reset_options=dict(config.collect.reset_options) or None if round_number == 0 else None,
        compression=config.collect.compression,
        collector=collector,
    )


def _checked(store: EpisodeStore, config: RunConfig) -> EpisodeStore:
    """The store, if it holds episodes of both splits."""
    if not len(store.indices("train")) or not len(store.indices("held_out")):
        where = f"collect.tics={config.collect.tics}"
        if config.collect.source is not None:
            where = f"collect.source={config.collect.source}"
        raise UserError(
            f"{where} gave {len(store)} episodes: expected enough to train on and to hold "
            f"out a share of {config.collect.held_out_fraction}; ask for more of them or a larger share"
        )
    return store
