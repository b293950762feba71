"""Does `worldsim data validate` find what we break? Plants one fault after the other in copies of good episodes.

python -m benchmarks.planted_faults runs/take_cover/episodes runs/car_racing/episodes --steps 6000
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.data.episode import Episode
from worldsim.data.store import EpisodeStore
from worldsim.data.validation import Finding, validate

Plant = Callable[[list[Episode]], list[Episode]]


def shifted(values: NDArray[Any], by: int) -> NDArray[Any]:
    """Recorded `by` steps too late (early, if negative); zeros where nothing was recorded."""
    result = np.zeros_like(values)
    if by > 0:
        result[by:] = values[:-by]
    else:
        result[:by] = values[-by:]
    return result


def _each(change: Callable[[Episode], Episode]) -> Plant:
    return lambda episodes: [change(episode) for episode in episodes]


def _shift(actions: int, rewards: int) -> Plant:
    def change(episode: Episode) -> Episode:
        moved = shifted(episode.actions, actions) if actions else episode.actions
        earned = shifted(episode.rewards, rewards) if rewards else episode.rewards
        return replace(episode, actions=moved, rewards=earned)

    return _each(change)


def _without_endings(episode: Episode) -> Episode:
    nothing = np.zeros(len(episode), np.bool_)
    return replace(episode, terminated=nothing, truncated=nothing)


def _joined(episodes: list[Episode]) -> list[Episode]:
    """Two episodes as one; the step between them has the action 0."""
    pairs = zip(episodes[::2], episodes[1::2], strict=False)
    return [_join(first, second) for first, second in pairs]


def _join(first: Episode, second: Episode) -> Episode:
    length = len(first) + 1 + len(second)
    names = ("actions", "rewards")
    steps: dict[str, Any] = {
        name: np.concatenate([getattr(first, name), np.zeros_like(getattr(first, name)[:1]), getattr(second, name)])
        for name in names
    }
    flags: dict[str, Any] = {name: np.zeros(length, np.bool_) for name in ("terminated", "truncated")}
    for name, flag in flags.items():
        flag[-1] = getattr(second, name)[-1]
    frames = np.concatenate([first.frames, second.frames])
    tics = second.tics + round(first.tics / len(first)) * (len(first) + 1)
    return replace(second, frames=frames, **steps, **flags, tics=tics)


def _constant(episode: Episode) -> Episode:
    return replace(episode, actions=np.zeros_like(episode.actions) + episode.actions[:1])


def _every_second(episodes: list[Episode]) -> list[Episode]:
    """Half of the episodes with twice the frame skip."""
    return [_halved(episode) if number % 2 else episode for number, episode in enumerate(episodes)]


def _halved(episode: Episode) -> Episode:
    steps = len(episode) // 2
    ends: dict[str, Any] = {
        name: getattr(episode, name)[: 2 * steps].reshape(steps, 2).any(axis=1) for name in ("terminated", "truncated")
    }
    ends["truncated"][-1] |= not ends["terminated"][-1]
    return replace(
        episode,
        frames=episode.frames[: 2 * steps + 1 : 2],
        actions=episode.actions[: 2 * steps : 2],
        rewards=episode.rewards[: 2 * steps].reshape(steps, 2).sum(axis=1),
        **ends,
    )


def _held(episode: Episode) -> Episode:
    """An agent that chose once for four recorded frames."""
    return replace(episode, actions=episode.actions[np.arange(len(episode)) // 4 * 4])


def _repeated(which: Callable[[Episode], NDArray[np.bool_]]) -> Plant:
    """Frames replaced by the one before, where `which` (T+1,) says so."""

    def change(episode: Episode) -> Episode:
        frames = episode.frames.copy()
        for t in np.flatnonzero(which(episode)).tolist():
            frames[t] = frames[max(t - 1, 0)]
        return replace(episode, frames=frames)

    return _each(change)


FAULTS: dict[str, tuple[Plant, str]] = {  # what to plant, and what the finding is about
    "none": (list, ""),
    "actions late": (_shift(1, 0), "alignment"),
    "actions early": (_shift(-1, 0), "alignment"),
    "rewards late": (_shift(0, 1), "alignment"),
    "rewards early": (_shift(0, -1), "alignment"),
    "both late": (_shift(1, 1), "alignment"),
    "both early": (_shift(-1, -1), "alignment"),
    "no endings": (_each(_without_endings), "endings"),
    "episodes joined": (_joined, "endings"),
    "constant actions": (_each(_constant), "actions"),
    "two frame skips": (_every_second, "frame skip"),
    "actions held": (_each(_held), "frame skip"),
    "frames doubled": (_repeated(lambda episode: np.arange(len(episode) + 1) % 2 == 1), "duplicated frames"),
    "frames dropped": (
        _repeated(lambda episode: np.random.default_rng(episode.seed).random(len(episode) + 1) < 0.05),
        "duplicated frames",
    ),
}


def plant(episodes: Sequence[Episode], store: EpisodeStore, fault: str, folder: Path) -> EpisodeStore:
    """A store in `folder` of the episodes with the fault."""
    made = EpisodeStore.create(folder, store.spec)
    with made.writer("planted") as writer:
        for episode in FAULTS[fault][0](list(episodes)):
            writer.append(episode)
    made.refresh()
    return made


def problems(store: EpisodeStore) -> list[Finding]:
    """What validation says is to be mended."""
    return [finding for finding in validate(store, progress=False) if finding.problem]


def chosen(store: EpisodeStore, steps: int, policy: str | None) -> list[Episode]:
    """Episodes in random order until they have `steps` steps."""
    episodes: list[Episode] = []
    for i in np.random.default_rng(1).permutation(len(store)).tolist():
        if policy in (None, store.entries[i].policy) and sum(map(len, episodes)) < steps and store.lengths[i] > 8:
            episodes.append(store[i])
    return episodes


def main() -> None:
    """Prints a table of what was planted and found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="+", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--policy", help="only the episodes of this policy")
    options = parser.parse_args()
    for path in options.stores:
        store = EpisodeStore.open(path)
        episodes = chosen(store, options.steps, options.policy)
        print(f"{store.spec.id}: {sum(map(len, episodes))} steps of {len(episodes)} episodes ({path})")
        for fault, (_, about) in FAULTS.items():
            with tempfile.TemporaryDirectory() as folder:
                found = problems(plant(episodes, store, fault, Path(folder) / "planted"))
            right = {finding.about for finding in found} == ({about} if about else set())
            print(f"  {'ok   ' if right else 'WRONG'} {fault:17}", flush=True)
            for finding in found:
                print(f"        {finding.about}: {finding.text}", flush=True)


if __name__ == "__main__":
    main()
