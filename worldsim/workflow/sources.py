"""Runs on episodes that were brought along (`collect.source`) instead of played in round 0."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from worldsim.config import differences, from_dict
from worldsim.data.collection import keep_reset_options
from worldsim.data.episode import EnvSpec
from worldsim.data.import_episodes import has_real_env
from worldsim.data.shards import IndexEntry
from worldsim.data.store import EpisodeStore, open_or_create
from worldsim.envs.config import EnvConfig
from worldsim.errors import UserError
from worldsim.workflow.config import RunConfig

SHARD = "round00-source"


def open_source(config: RunConfig) -> EpisodeStore | None:
    """The episodes of `collect.source`, or None. Raises UserError if there are none, or if `env` is another one."""
    if config.collect.source is None:
        return None
    store = EpisodeStore.open(config.collect.source)
    if not len(store):
        raise UserError(f"collect.source={config.collect.source} holds 0 episodes: collect or import some first")
    if has_real_env(store.spec):
        recorded = asdict(from_dict(EnvConfig, store.spec.settings, str(store.folder)))
        if changed := differences(recorded, asdict(config.env)):
            given = f"collect.source={config.collect.source} was recorded with another env"
            raise UserError(f"{given}: {'; '.join(changed)}; give the run the same env settings")
    return store


def take_episodes(source: EpisodeStore, run: Path, compression: str) -> EpisodeStore:
    """Copies the episodes that were played into the run, as those of round 0; goes on where it was interrupted.

    Their copies in a mirror stay behind: the run makes its own where it is asked to. Raises UserError if the run holds
    other episodes than `source` does.
    """
    store = open_or_create(run / "episodes", source.spec, compression)
    keep_reset_options(source, store)
    with store.writer(SHARD) as writer:
        taken, played = len(writer.entries), source.played().tolist()
        entries = source.entries
        same = taken <= len(played) and all(map(_same_steps, writer.entries, (entries[i] for i in played)))
        if not same:
            raise UserError(f"{run / 'episodes'} holds other episodes than {source.folder}: use another --folder")
        todo = played[taken:]
        for i in tqdm(todo, desc="copy episodes", unit="episode", initial=taken, total=len(played)):
            writer.append(replace(source[i], round=0))
    store.refresh()
    return store


def as_walked(config: RunConfig, source: EpisodeStore) -> RunConfig:
    """The config as it is walked: with the tics of the source in place of those that round 0 would play, and without
    later rounds where there is no env to play them in.
    """
    later = config.collect.tics[1:] if has_real_env(source.spec) else []
    collect = replace(config.collect, tics=[source.total_tics(), *later])
    return replace(config, collect=collect, rounds=1 + len(later))


def describe_end(spec: EnvSpec, world_model: Path) -> str:
    """What is said where a run on recordings alone ends."""
    return (
        f"{spec.id} has no real env here, only its episodes: the run ends with the world model {world_model}; "
        f"see it with: worldsim dream {world_model} --random"
    )


def _same_steps(first: IndexEntry, second: IndexEntry) -> bool:
    return (first.frames, first.steps_crc32, first.seed) == (second.frames, second.steps_crc32, second.seed)
