"""Latents of all frames of a store, computed once by a frozen tokenizer and kept beside the episodes.

    <store>/latents/<fingerprint>/latents.json   tokens and channels
    <store>/latents/<fingerprint>/<shard>.f16    float16 (frames, N, D), frames in the order of the shard
    <store>/latents/<fingerprint>/<shard>.crc32  of the shard's first episode: tells it from others of that name

`fingerprint` names the tokenizer's weights, so latents of different tokenizers never mix.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from worldsim.data.files import explained, lock, write_json, write_whole
from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError

MANIFEST = "latents.json"


class Encoder(Protocol):
    """The half of a tokenizer that is needed here."""

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(N, D)."""

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """uint8 frames (..., H, W, C) to latents (..., N, D)."""


class LatentCache:
    """Latents by episode, in the order of the store: `cache[i]` is float16 (T+1, N, D), a view of the file."""

    def __init__(self, store: EpisodeStore, fingerprint: str) -> None:
        folder = _folder(store, fingerprint)
        if not (folder / MANIFEST).exists():
            raise UserError(f"{folder} holds no latents; encode the store with this tokenizer first")
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        self.latent_shape: tuple[int, int] = (int(manifest["tokens"]), int(manifest["channels"]))
        self._latents: list[NDArray[np.float16]] = []
        shards = {
            name: _map(folder / f"{name}.f16", frames, self.latent_shape) for name, frames in store.shards.items()
        }
        for i, steps in enumerate(store.lengths.tolist()):
            start = store.frame_offset(i)
            self._latents.append(shards[store.shard_name(i)][start : start + steps + 1])

    @classmethod
    def open(cls, store: EpisodeStore, fingerprint: str) -> LatentCache:
        """The latents of every episode in `store`. Raises UserError where some are missing."""
        return cls(store, fingerprint)

    def __len__(self) -> int:
        return len(self._latents)

    def __getitem__(self, i: int) -> NDArray[np.float16]:
        return self._latents[i]


def encode_store(
    store: EpisodeStore,
    tokenizer: Encoder,
    fingerprint: str,
    device: torch.device,
    dtype: torch.dtype,
    *,
    batch_frames: int = 256,
    progress: bool = True,
) -> LatentCache:
    """Encodes the episodes that have no latents yet; run again after an interruption, it goes on where it stopped.

    Matrix products run in `dtype`, at most `batch_frames` frames at once, all of one episode: what is computed
    together does not depend on interruptions. Raises UserError if the disk is full or cannot be written, and for
    latents that float16 cannot hold.
    """
    folder = _folder(store, fingerprint)
    tokens, channels = tokenizer.latent_shape
    manifest = {"tokens": tokens, "channels": channels}
    with explained("write latents", folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MANIFEST).exists():
            write_json(folder / MANIFEST, manifest)
        elif (found := json.loads((folder / MANIFEST).read_text(encoding="utf-8"))) != manifest:
            raise UserError(f"{folder} holds latents {found}, the tokenizer makes {manifest}; remove that folder")
        encode = partial(_encode, tokenizer=tokenizer, device=device, dtype=dtype, batch_frames=batch_frames)
        frame_bytes, total = 2 * tokens * channels, sum(store.shards.values())
        with tqdm(total=total, desc="encode", unit="frame", unit_scale=True, disable=not progress) as bar:
            for shard in store.shards:
                _encode_shard(store, shard, folder / f"{shard}.f16", frame_bytes, encode, bar.update)
    return LatentCache(store, fingerprint)


def _encode_shard(
    store: EpisodeStore,
    shard: str,
    path: Path,
    frame_bytes: int,
    encode: Callable[[NDArray[np.uint8]], NDArray[np.float16]],
    on_frames: Callable[[int], object],
) -> None:
    """Appends the latents of the shard's episodes to the file, whose size tells which ones it holds already.

    Shards only grow, so the first episode tells them apart: latents of one that was deleted and collected anew under
    the same name would fit in size and belong to nothing.
    """
    episodes = [i for i in range(len(store)) if store.shard_name(i) == shard]
    mark, owner = path.with_suffix(".crc32"), f"{store.entries[episodes[0]].frames_crc32}\n".encode()
    with open(path, "ab") as file:
        lock(file, path)
        if not mark.exists() or mark.read_bytes() != owner:
            file.truncate(0)
            write_whole(mark, owner)
        done = os.fstat(file.fileno()).st_size // frame_bytes
        for i in episodes:
            first, frames = store.frame_offset(i), int(store.lengths[i]) + 1
            if first + frames > done:
                file.truncate(first * frame_bytes)  # what an interrupted run wrote of this episode
                file.write(encode(store[i].frames).tobytes())
            on_frames(frames)
        file.flush()
        os.fsync(file.fileno())


@torch.inference_mode()
def _encode(
    frames: NDArray[np.uint8], *, tokenizer: Encoder, device: torch.device, dtype: torch.dtype, batch_frames: int
) -> NDArray[np.float16]:
    """Frames (T, H, W, C) to latents (T, N, D)."""
    latents = []
    with nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype):
        for start in range(0, len(frames), batch_frames):
            batch = torch.from_numpy(frames[start : start + batch_frames].copy()).to(device)
            latents.append(tokenizer.encode(batch).to(torch.float16).cpu().numpy())
    result: NDArray[np.float16] = np.concatenate(latents)
    if not np.isfinite(result).all():
        raise UserError("the tokenizer's latents are not finite or beyond float16; train it again or scale them")
    return result


def _folder(store: EpisodeStore, fingerprint: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", fingerprint):
        raise UserError(f"latent fingerprint {fingerprint!r}: expected letters, digits, '-', '_' and '.'")
    return store.folder / "latents" / fingerprint


def _map(path: Path, frames: int, latent_shape: tuple[int, int]) -> NDArray[np.float16]:
    frame_bytes = 2 * int(np.prod(latent_shape))
    found = path.stat().st_size // frame_bytes if path.exists() else 0
    if found < frames:
        raise UserError(f"{path} holds the latents of {found} frames of {frames}; encode the store again to go on")
    return np.asarray(np.memmap(path, np.float16, "r", shape=(frames, *latent_shape)))
