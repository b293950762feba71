"""Episode stores on disk for the tests of tokenizers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tokenizers.squares import MakeStore, make_episode, square_frames
from worldsim.data.episode import EnvSpec, Episode
from worldsim.data.store import EpisodeStore


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """`make_store(episodes, blank_terminal_frame=False)`."""

    def make(episodes: list[Episode], blank_terminal_frame: bool = False) -> EpisodeStore:
        height, width, channels = episodes[0].frames.shape[1:]
        spec = EnvSpec(
            id="Test-v0",
            settings={},
            frame_shape=(height, width, channels),
            action_space={"type": "discrete", "n": 2},
            action_meanings=["left", "right"],
            frames_per_second=10.0,
            max_episode_steps=None,
            blank_terminal_frame=blank_terminal_frame,
        )
        store = EpisodeStore.create(tmp_path / "store", spec)
        with store.writer("shard") as writer:
            for episode in episodes:
                writer.append(episode)
        store.refresh()
        return store

    return make


@pytest.fixture
def square_store(make_store: MakeStore) -> EpisodeStore:
    return make_store(
        [
            make_episode(square_frames(400, seed=1)[0]),
            make_episode(square_frames(400, seed=2)[0]),
            make_episode(square_frames(64, seed=3)[0], split="held_out"),
        ]
    )
