"""Episodes on disk: append-only, safe against crashes, read through memory maps.

A store is a folder with `store.json` (format, version, compression, environment) and `shards/<shard>/`, each shard as
`worldsim.data.shards` describes it. One writer owns one shard, so any number of writers work side by side.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.data.episode import EnvSpec, Episode
from worldsim.data.files import explained, write_json
from worldsim.data.shards import COMPRESSIONS, IndexEntry, Shard, ShardWriter
from worldsim.errors import UserError

FORMAT = "worldsim-episodes"
VERSION = 1
MANIFEST = "store.json"


class EpisodeStore:
    """All episodes of a folder, sorted by (shard, position in the shard).

    `store[i]` reads one episode; its frames are read-only, and without compression a view of the file. The first
    reading of an episode verifies its checksums.
    """

    def __init__(self, folder: Path, last_round: int | None = None) -> None:
        self.last_round = last_round  # episodes of later rounds are not seen; None: all are
        with explained("read episodes", folder):
            manifest = _read_manifest(folder)
            self.folder = folder
            self.spec = EnvSpec.from_dict(manifest["spec"])
            self.compression: str = manifest["compression"]
            self.refresh()

    @classmethod
    def create(cls, folder: Path | str, spec: EnvSpec, compression: str = "none") -> EpisodeStore:
        """A new, empty store. Raises UserError if the folder holds something already or cannot be written."""
        folder = Path(folder)
        if compression not in COMPRESSIONS:
            raise UserError(f"compression {compression!r}: expected one of {', '.join(COMPRESSIONS)}")
        with explained("create the episode store", folder):
            folder.mkdir(parents=True, exist_ok=True)
            if any(path.name != MANIFEST + ".tmp" for path in folder.iterdir()):
                raise UserError(f"{folder} is not empty: expected a new folder for an episode store")
            manifest = {"format": FORMAT, "version": VERSION, "compression": compression, "spec": spec.to_dict()}
            write_json(folder / MANIFEST, manifest)
        return cls(folder)

    @classmethod
    def open(cls, folder: Path | str) -> EpisodeStore:
        """The store in `folder`. Raises UserError if there is none, or if files are shorter than their index says."""
        return cls(Path(folder))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.last_round)  # a memory map would be pickled with all its bytes

    def through_round(self, last_round: int) -> EpisodeStore:
        """The same episodes without those of later rounds, as the store stood when `last_round` had been collected."""
        return type(self)(self.folder, last_round)

    def refresh(self) -> None:
        """Sees the episodes appended since opening. Indices of later shards move when an earlier shard has grown."""
        shards = self.folder / "shards"
        names = sorted(path.name for path in shards.iterdir() if path.is_dir()) if shards.is_dir() else []
        self._shards = [Shard(shards / name, self.spec, self.compression) for name in names]
        self._shards = [
            shard
            for shard in self._shards
            if shard.entries and (self.last_round is None or shard.entries[0].round <= self.last_round)
        ]
        self._where = [(shard, k) for shard in self._shards for k in range(len(shard.entries))]
        self._verified: set[int] = set()
        self.lengths: NDArray[np.int64] = np.array([entry.frames - 1 for entry in self.entries], np.int64)
        self.splits = [entry.split for entry in self.entries]

    def __len__(self) -> int:
        return len(self._where)

    @property
    def entries(self) -> list[IndexEntry]:
        """The index line of each episode: its seed, policy, split, tics and round without reading it."""
        return [shard.entries[k] for shard, k in self._where]

    @property
    def shards(self) -> dict[str, int]:
        """Frames in each shard, in the order of the episodes."""
        return {shard.name: int(shard.first_frame[-1]) for shard in self._shards}

    def shard_name(self, i: int) -> str:
        """The shard in which episode i lies."""
        return self._where[i][0].name

    def frame_offset(self, i: int) -> int:
        """Index of the episode's first frame in the concatenation of all frames of its shard."""
        shard, k = self._where[i]
        return int(shard.first_frame[k])

    def indices(self, split: str) -> NDArray[np.int64]:
        """The episodes of a split, "train" or "held_out"."""
        return np.flatnonzero(np.array(self.splits, np.str_) == split).astype(np.int64)

    def played(self) -> NDArray[np.int64]:
        """The episodes that were played, without copies (`worldsim.data.mirror`)."""
        return np.flatnonzero([entry.tics > 0 for entry in self.entries]).astype(np.int64)

    def total_tics(self) -> int:
        """Steps of the underlying environment in all episodes: what a budget counts."""
        return sum(entry.tics for entry in self.entries)

    def total_steps(self) -> int:
        """Steps in all episodes that were played, without those of copies."""
        return int(self.lengths[self.played()].sum())

    def __getitem__(self, i: int) -> Episode:
        shard, k = self._where[i]
        self._verify(i)
        entry, steps = shard.entries[k], shard.steps(k)
        return Episode(
            frames=shard.frames(k, 0, entry.frames),
            actions=np.ascontiguousarray(steps["action"]),
            rewards=np.ascontiguousarray(steps["reward"]),
            terminated=np.ascontiguousarray(steps["terminated"]),
            truncated=np.ascontiguousarray(steps["truncated"]),
            seed=entry.seed,
            policy=entry.policy,
            split=entry.split,
            tics=entry.tics,
            round=entry.round,
        )

    def __iter__(self) -> Iterator[Episode]:
        return (self[i] for i in range(len(self)))

    def steps(self, i: int) -> NDArray[np.void]:
        """Records (T,) with fields action, reward, terminated, truncated: an episode without its frames."""
        shard, k = self._where[i]
        return shard.steps(k)

    def terminated(self, i: int) -> bool:
        """Whether the last step of episode i ended it; else it was cut."""
        return bool(self.steps(i)["terminated"][-1])

    def read_frames(self, i: int, start: int, stop: int) -> NDArray[np.uint8]:
        """Frames [start, stop) of episode i, uint8 (stop - start, H, W, C), without verifying the whole episode."""
        shard, k = self._where[i]
        return shard.frames(k, start, stop)

    def verify(self) -> None:
        """Reads every episode. Raises UserError at the first whose checksums differ."""
        for i in range(len(self)):
            self._verify(i)

    def writer(self, shard: str) -> ShardWriter:
        """The only writer of `shard`; cuts off what a crashed one left behind. Use it as a context manager."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", shard):
            raise UserError(f"shard name {shard!r}: expected letters, digits, '-', '_' and '.'")
        return ShardWriter(self.folder / "shards" / shard, self.spec, self.compression)

    def _verify(self, i: int) -> None:
        if i not in self._verified:
            shard, k = self._where[i]
            shard.verify(k)
            self._verified.add(i)


def open_or_create(folder: Path | str, spec: EnvSpec, compression: str = "none") -> EpisodeStore:
    """The store in `folder`, made if there is none. Raises UserError if it differs in environment or compression."""
    if not (Path(folder) / MANIFEST).exists():
        return EpisodeStore.create(folder, spec, compression)
    store = EpisodeStore.open(folder)
    old = {**store.spec.to_dict(), "compression": store.compression}
    new = {**json.loads(json.dumps(spec.to_dict())), "compression": compression}
    changed = [f"{name} is {old[name]} on disk, {new[name]} asked" for name in old if old[name] != new[name]]
    if changed:
        raise UserError(f"{folder} holds episodes of another kind: {'; '.join(changed)}; use another folder")
    return store


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.exists():
        raise UserError(f"{folder} holds no episode store (no {MANIFEST}); collect episodes first or check the path")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        given = (manifest["format"], manifest["version"], manifest["compression"] in COMPRESSIONS)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged or not of an episode store: {error!r}") from error
    if given != (FORMAT, VERSION, True):
        raise UserError(f"{path}: format {given[:2]}, expected {(FORMAT, VERSION)}; use the worldsim that wrote it")
    return dict(manifest)
