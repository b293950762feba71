"""One shard of an episode store: three files that only one writer appends to.

    frames.u8    frames of all episodes, one after the other (frames.zst: chunks of 16 frames, each compressed)
    steps.bin    one record for each step: action, reward, terminated, truncated
    index.jsonl  one line for each episode: where it lies, its checksums, seed, policy, split

The writer writes and syncs the data, then the index line. So what the index names is whole; what lies behind it was
left by a crash, and the next writer cuts it off. Readers never change a file.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import zstandard
from numpy.typing import NDArray

from worldsim.data.episode import EnvSpec, Episode
from worldsim.data.files import explained, lock, sync_folders, write_synced
from worldsim.errors import UserError

INDEX = "index.jsonl"
STEPS = "steps.bin"
COMPRESSIONS = ("none", "zstd")
CHUNK_FRAMES = 16


@dataclass(frozen=True)
class IndexEntry:
    """One line of a shard's index. `offset` and `bytes` place the episode in the shard's file of frames."""

    frames: int  # T + 1
    offset: int
    bytes: int
    frames_crc32: int  # of the bytes as they are stored
    steps_crc32: int
    seed: int
    policy: str
    split: str
    tics: int
    round: int
    chunks: Sequence[int] = ()  # bytes of each compressed chunk; empty without compression


class Shard:
    """One shard as a reader sees it: the index as it was, and memory maps of what it names."""

    def __init__(self, folder: Path, spec: EnvSpec, compression: str) -> None:
        self.folder = folder
        self.name = folder.name
        self.entries, self.index_bytes = _read_index(folder / INDEX)
        self.first_frame = np.cumsum([0] + [entry.frames for entry in self.entries])
        self._spec = spec
        self._compression = compression
        self._step_dtype = _step_dtype(spec)
        self.frames_bytes = self.entries[-1].offset + self.entries[-1].bytes if self.entries else 0
        num_steps = int(self.first_frame[-1]) - len(self.entries)
        self.steps_bytes = num_steps * self._step_dtype.itemsize
        self._stored = _map(folder / _frames_name(compression), self.frames_bytes)
        self._steps = _map(folder / STEPS, self.steps_bytes).view(self._step_dtype)

    def stored_bytes(self, k: int) -> NDArray[np.uint8]:
        """The frames of episode k as they are stored."""
        entry = self.entries[k]
        return self._stored[entry.offset : entry.offset + entry.bytes]

    def steps(self, k: int) -> NDArray[np.void]:
        """Records (T,) of episode k."""
        start = int(self.first_frame[k]) - k  # each episode has one step less than frames
        return self._steps[start : start + self.entries[k].frames - 1]

    def verify(self, k: int) -> None:
        """Raises UserError unless the bytes of episode k have the checksums that the index names."""
        entry = self.entries[k]
        found = (zlib.crc32(self.stored_bytes(k).data), zlib.crc32(self.steps(k).tobytes()))
        if found != (entry.frames_crc32, entry.steps_crc32):
            raise self._damaged(k)

    def frames(self, k: int, start: int, stop: int) -> NDArray[np.uint8]:
        """Frames [start, stop) of episode k, read-only (stop - start, H, W, C); a view where nothing is compressed."""
        entry = self.entries[k]
        if not 0 <= start <= stop <= entry.frames:
            raise IndexError(f"frames {start} to {stop} of an episode of {entry.frames} frames")
        shape = self._spec.frame_shape
        if self._compression == "none":
            return self.stored_bytes(k).reshape(entry.frames, *shape)[start:stop]
        first, last = start // CHUNK_FRAMES, -(-stop // CHUNK_FRAMES)
        ends = entry.offset + np.cumsum([0, *entry.chunks])
        decompress = zstandard.ZstdDecompressor().decompress
        try:
            parts = [decompress(self._stored[ends[c] : ends[c + 1]].data) for c in range(first, last)]
        except zstandard.ZstdError as error:
            raise self._damaged(k) from error
        frames = np.frombuffer(b"".join(parts), np.uint8).reshape(-1, *shape)
        return frames[start - first * CHUNK_FRAMES : stop - first * CHUNK_FRAMES]

    def _damaged(self, k: int) -> UserError:
        return UserError(f"{self.folder}: episode {k} is damaged (wrong checksum); collect this shard again")


class ShardWriter:
    """Appends whole episodes to one shard. When `append` returns, the episode survives a crash."""

    def __init__(self, folder: Path, spec: EnvSpec, compression: str) -> None:
        self.folder = folder
        self._spec = spec
        self._compression = compression
        with explained("write episodes", folder), ExitStack() as files:
            folder.mkdir(parents=True, exist_ok=True)
            self._index = files.enter_context(open(folder / INDEX, "ab"))
            lock(self._index, folder)
            self._frames = files.enter_context(open(folder / _frames_name(compression), "ab"))
            self._steps = files.enter_context(open(folder / STEPS, "ab"))
            shard = Shard(folder, spec, compression)
            self.entries = list(shard.entries)
            self._ends = (shard.frames_bytes, shard.steps_bytes, shard.index_bytes)
            self._cut_back()
            sync_folders(folder, folder.parent, folder.parent.parent)
            self._files = files.pop_all()

    def append(self, episode: Episode) -> None:
        """Raises UserError if it cannot be written; the shard then holds what it held before."""
        episode.check(self._spec)
        frames, chunks = self._encode(episode.frames)
        steps = _pack_steps(episode, self._spec).tobytes()
        entry = IndexEntry(
            frames=len(episode) + 1,
            offset=self._ends[0],
            bytes=sum(len(part) for part in frames),
            frames_crc32=_crc32(frames),
            steps_crc32=zlib.crc32(steps),
            seed=episode.seed,
            policy=episode.policy,
            split=episode.split,
            tics=episode.tics,
            round=episode.round,
            chunks=chunks,
        )
        line = json.dumps(asdict(entry)).encode() + b"\n"
        with explained("write episodes", self.folder):
            try:  # nothing is named by the index before it is on the disk
                write_synced(self._frames, frames)
                write_synced(self._steps, [steps])
                write_synced(self._index, [line])
            except BaseException:
                self._cut_back()
                raise
        self.entries.append(entry)
        self._ends = (entry.offset + entry.bytes, self._ends[1] + len(steps), self._ends[2] + len(line))

    def close(self) -> None:
        """Lets another writer have the shard."""
        self._files.close()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _encode(self, frames: NDArray[np.uint8]) -> tuple[list[bytes], list[int]]:
        if self._compression == "none":
            return [np.ascontiguousarray(frames).tobytes()], []
        compressor = zstandard.ZstdCompressor(level=3)
        parts = range(0, len(frames), CHUNK_FRAMES)
        chunks = [compressor.compress(frames[start : start + CHUNK_FRAMES].tobytes()) for start in parts]
        return chunks, [len(chunk) for chunk in chunks]

    def _cut_back(self) -> None:
        for file, end in zip((self._frames, self._steps, self._index), self._ends, strict=True):
            os.ftruncate(file.fileno(), end)


def _read_index(path: Path) -> tuple[list[IndexEntry], int]:
    """The episodes of an index and the length in bytes of its whole lines; a torn last line is left out."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    entries: list[IndexEntry] = []
    length = 0
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            break
        try:
            entries.append(IndexEntry(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: line {number} is damaged; collect this shard again") from error
        length += len(line)
    return entries, length


def _map(path: Path, length: int) -> NDArray[np.uint8]:
    if length == 0:
        return np.empty(0, np.uint8)
    size = path.stat().st_size if path.exists() else 0
    if size < length:
        raise UserError(f"{path} is damaged: {size} bytes, the index names {length}; collect this shard again")
    # A plain array over the map: indexing it is much faster than indexing a np.memmap.
    return np.asarray(np.memmap(path, np.uint8, "r", shape=(length,)))


def _frames_name(compression: str) -> str:
    return "frames.u8" if compression == "none" else "frames.zst"


def _step_dtype(spec: EnvSpec) -> np.dtype[np.void]:
    action = spec.action_dtype.newbyteorder("<")
    flags = [("terminated", "?"), ("truncated", "?")]
    return np.dtype([("action", action, spec.action_shape), ("reward", "<f4"), *flags])


def _pack_steps(episode: Episode, spec: EnvSpec) -> NDArray[np.void]:
    steps = np.empty(len(episode), _step_dtype(spec))
    steps["action"] = episode.actions
    steps["reward"] = episode.rewards
    steps["terminated"] = episode.terminated
    steps["truncated"] = episode.truncated
    return steps


def _crc32(parts: Sequence[bytes]) -> int:
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return checksum
