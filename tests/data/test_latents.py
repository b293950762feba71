from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.counting import episode, fill, spec
from worldsim.data.latents import LatentCache, encode_store
from worldsim.data.shards import COMPRESSIONS
from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError

CPU = torch.device("cpu")
EPISODES = [episode(1, 3), episode(2, 40), episode(3, 15), episode(4, 1)]


class FakeTokenizer:
    """Two tokens of three channels: the pixels that say which frame it is, halved."""

    latent_shape = (2, 3)

    def __init__(self, frames_before_failure: int = 10**9) -> None:
        self.encoded = 0
        self.largest_batch = 0
        self._limit = frames_before_failure

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        assert frames.dtype == torch.uint8
        self.encoded += len(frames)
        self.largest_batch = max(self.largest_batch, len(frames))
        if self.encoded > self._limit:
            raise RuntimeError("interrupted")
        return frames[..., 0, :2, :].float() / 2


def encode(store: EpisodeStore, tokenizer: FakeTokenizer, fingerprint: str = "abc") -> LatentCache:
    return encode_store(store, tokenizer, fingerprint, CPU, torch.float32, batch_frames=16, progress=False)


@pytest.fixture(params=COMPRESSIONS)
def store(tmp_path: Path, request: pytest.FixtureRequest) -> EpisodeStore:
    store = EpisodeStore.create(tmp_path / "store", spec(), request.param)
    fill(store, "b", *EPISODES[:2])
    fill(store, "a", *EPISODES[2:])
    return store


def assert_right(cache: LatentCache, store: EpisodeStore) -> None:
    assert len(cache) == len(store)
    for i, one in enumerate(store):
        assert cache[i].dtype == np.float16
        np.testing.assert_array_equal(cache[i], one.frames[:, 0, :2, :] / 2)


def test_a_shard_collected_anew_is_encoded_anew(store: EpisodeStore) -> None:
    """Same name, same number of frames, other episodes: found in practice, where it trained on actions of others."""
    encode(store, FakeTokenizer())
    shutil.rmtree(store.folder / "shards" / "a")
    fill(store, "a", episode(7, 15), episode(8, 1))
    assert_right(encode(store, FakeTokenizer()), store)


def test_each_episode_has_its_own_latents(store: EpisodeStore) -> None:
    tokenizer = FakeTokenizer()
    cache = encode(store, tokenizer)
    assert cache.latent_shape == (2, 3)
    assert_right(cache, store)
    assert_right(LatentCache.open(EpisodeStore.open(store.folder), "abc"), store)
    assert tokenizer.encoded == 4 + 41 + 16 + 2
    assert tokenizer.largest_batch == 16


def test_nothing_is_encoded_twice(store: EpisodeStore) -> None:
    encode(store, FakeTokenizer())
    again = FakeTokenizer()
    encode(store, again)
    assert again.encoded == 0
    fill(store, "a", episode(7, 5))
    fill(store, "c", episode(8, 6))
    assert_right(encode(store, again), store)
    assert again.encoded == 6 + 7


def test_an_interrupted_encoding_goes_on_where_it_stopped(store: EpisodeStore) -> None:
    encode(store, FakeTokenizer(), "whole")
    with pytest.raises(RuntimeError, match="interrupted"):
        encode(store, FakeTokenizer(frames_before_failure=30))
    with pytest.raises(UserError, match="encode the store again"):
        LatentCache.open(store, "abc")
    # A process that was killed may also have left part of an episode.
    with open(store.folder / "latents" / "abc" / "b.f16", "ab") as file:
        file.write(b"\xff" * 77)
    rest = FakeTokenizer()
    encode(store, rest)
    assert rest.encoded == 41, "the one episode that was being encoded"
    for shard in ("a", "b"):
        whole, resumed = (store.folder / "latents" / name / f"{shard}.f16" for name in ("whole", "abc"))
        assert whole.read_bytes() == resumed.read_bytes()


def test_latents_of_two_tokenizers_do_not_meet(store: EpisodeStore) -> None:
    encode(store, FakeTokenizer())
    with pytest.raises(UserError, match="holds no latents"):
        LatentCache.open(store, "def")
    other = FakeTokenizer()
    other.latent_shape = (3, 2)
    with pytest.raises(UserError, match="remove that folder"):
        encode(store, other)
    with pytest.raises(UserError, match="fingerprint"):
        encode(store, other, "../abc")


@pytest.mark.parametrize("bad", [float("nan"), 1e6])
def test_latents_beyond_float16_are_refused(store: EpisodeStore, bad: float) -> None:
    class Diverged(FakeTokenizer):
        def encode(self, frames: torch.Tensor) -> torch.Tensor:
            return super().encode(frames).fill_(bad)

    with pytest.raises(UserError, match="not finite or beyond float16"):
        encode(store, Diverged())
    assert_right(encode(store, FakeTokenizer()), store)
