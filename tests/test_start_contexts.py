"""Start contexts: each shows consecutive real frames and the actions that led to them; the payload is the index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.episodes import played
from worldsim.data.episode import EnvSpec
from worldsim.data.latents import encode_store
from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError
from worldsim.start_contexts import draw_contexts

FRAMES = 4


class IndexEncoder:
    """The "latent" of a frame is what its first two pixels say: episode and step."""

    latent_shape = (1, 2)

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        return frames[..., 0, :2, 0].float()[..., None, :]


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    spec = EnvSpec("Index-v0", {}, (1, 2, 1), {"type": "discrete", "n": 100}, ["?"] * 100, 10.0, None, False)
    store = EpisodeStore.create(tmp_path / "episodes", spec)
    with store.writer("only") as writer:
        for number, length in enumerate((1, 3, 9, 14)):
            frames = np.zeros((length + 1, 1, 2, 1), np.uint8)
            frames[:, 0, 0, 0], frames[:, 0, 1, 0] = number, np.arange(length + 1)
            writer.append(
                played(
                    frames,
                    10 + np.arange(length),  # action t, which leads to frame t + 1, is 10 + t
                    np.ones(length, np.float32),
                    seed=number,
                    policy="index",
                    split="held_out" if number == 1 else "train",
                )
            )
    store.refresh()
    return store


def test_contexts_are_consecutive_aligned_and_from_the_train_split(store: EpisodeStore) -> None:
    encoder = IndexEncoder()
    latents = encode_store(store, encoder, "index", torch.device("cpu"), torch.float32, progress=False)
    contexts = draw_contexts(store, latents, 300, FRAMES, episode_starts=20, seed=0)
    lengths = {0: 1, 2: 9, 3: 14}
    seen = set()
    for row in range(len(contexts)):
        steps = [int(step) for step in contexts.latents[row, :, 0, 1]]
        present = contexts.present[row].tolist()
        last = steps[-1]
        episode = int(contexts.latents[row, -1, 0, 0])
        assert episode in lengths, "held-out episodes start no dream"
        assert last < lengths[episode], "nothing follows a last frame"
        seen.add((episode, last))
        count = min(last + 1, FRAMES)
        assert present == [False] * (FRAMES - count) + [True] * count
        assert steps[FRAMES - count :] == list(range(last - count + 1, last + 1))
        for t in range(FRAMES - count, FRAMES):
            assert bool(contexts.has_action[row, t]) == (steps[t] > 0)
            if steps[t] > 0:
                assert int(contexts.actions[row, t]) == 10 + steps[t] - 1, "the action that led to this frame"
        assert bool(contexts.at_start[row]) == (last == 0)
    assert contexts.at_start[:20].all()
    assert len(seen) == sum(lengths.values())
    assert len(contexts.only_episode_starts()) == int(contexts.at_start.sum())


def test_some_lie_shortly_before_the_end_of_an_episode(store: EpisodeStore) -> None:
    latents = encode_store(store, IndexEncoder(), "index", torch.device("cpu"), torch.float32, progress=False)
    contexts = draw_contexts(store, latents, 300, FRAMES, episode_starts=20, seed=0, before_endings=200, reach=4)
    episodes, steps = contexts.latents[100:, -1, 0, 0].long(), contexts.latents[100:, -1, 0, 1].long()
    seen = {(int(episode), int(step)) for episode, step in zip(episodes, steps, strict=True)}
    assert seen == {(0, 0), *((2, 8 - left) for left in (1, 2, 3, 4)), *((3, 13 - left) for left in (1, 2, 3, 4))}
    plain = draw_contexts(store, latents, 300, FRAMES, episode_starts=20, seed=0)
    torch.testing.assert_close(contexts.latents[:100], plain.latents[:100])


def test_all_but_those_at_first_frames_may_lie_late_in_their_episodes(store: EpisodeStore) -> None:
    latents = encode_store(store, IndexEncoder(), "index", torch.device("cpu"), torch.float32, progress=False)
    contexts = draw_contexts(store, latents, 300, FRAMES, episode_starts=20, seed=0, from_step=7)
    assert contexts.at_start[:20].all()
    episodes, steps = contexts.latents[20:, -1, 0, 0].long(), contexts.latents[20:, -1, 0, 1].long()
    seen = {(int(episode), int(step)) for episode, step in zip(episodes, steps, strict=True)}
    assert seen == {(2, 7), (2, 8), *((3, step) for step in range(7, 14))}
    with pytest.raises(UserError, match=r"step 14 of a real episode or later: .* ends after 14 steps"):
        draw_contexts(store, latents, 300, FRAMES, episode_starts=20, seed=0, from_step=14)
