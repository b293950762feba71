"""Episodes as a mirror shows them: for an env that looks alike in one, each is worth two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from worldsim.data.episode import Episode
from worldsim.data.store import EpisodeStore


def mirror_round(store: EpisodeStore, round_number: int, actions: Sequence[int], progress: bool = False) -> None:
    """Adds to `store` the mirrored copies of a round's training episodes; goes on where it was interrupted.

    They lie in a shard of their own, and cost no tics: nobody played them. Held-out episodes have no copies, so figures
    are of reality alone. actions: for each action the one that a mirror makes of it.
    """
    entries = store.entries
    played = [i for i in store.played().tolist() if entries[i].round == round_number and entries[i].split == "train"]
    with store.writer(f"round{round_number:02d}-mirrored") as writer:
        todo = played[len(writer.entries) :]
        for i in tqdm(todo, desc=f"mirror round {round_number}", unit="episode", disable=not progress):
            writer.append(mirrored(store[i], actions))
    store.refresh()


def mirrored(episode: Episode, actions: Sequence[int]) -> Episode:
    """The copy: left is right in its frames, and so are its actions."""
    return replace(
        episode,
        frames=np.ascontiguousarray(episode.frames[:, :, ::-1]),
        actions=np.asarray(actions, np.int64)[episode.actions],
        policy=f"{episode.policy}, mirrored",
        tics=0,
    )
