"""Baselines that do not look: an agent that does not beat the best of them has not learned to see.

All of them act under the agent's own wrappers. Open-loop sequences are tuned by successive halving: every candidate
plays a few of the tuning seeds, the better third goes on with twice as many, until the last have played them all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError
from worldsim.evaluation.returns import MakeBatchPolicy, MakeEnv, MakePolicy, returns_of_many, score_policy
from worldsim.evaluation.seeds import check_disjoint
from worldsim.evaluation.statistics import Score
from worldsim.rollouts import Action, Policy
from worldsim.scripted_policies import OpenLoop, StickyRandom, UniformRandom

HOLD_STEPS = (1, 2, 4, 6, 8, 12, 16, 25, 32, 50, 64, 128)  # 128 tics sweep the room of Take Cover
FIRST_EPISODES = 4  # of each candidate in the first round of the search
KEPT = 1 / 3  # of the candidates after each round
MAX_COMBINATIONS = 32  # of the parts of an action, to be tried as constants
MAX_PAIRED = 6  # actions, the best constant ones, of which all pairs are tried

# Which episode's frames are shown must not depend on what else is drawn from the same seed.
_FRAMES_STREAM = 0x73687566


@dataclass(frozen=True)
class Sequenced:
    """A candidate: `actions` in turn, each held for `hold_steps` steps, and again from the beginning."""

    actions: tuple[Action, ...]
    hold_steps: int = 1

    def make_policy(self) -> Policy:
        """The policy that plays it."""
        return OpenLoop(self.actions, self.hold_steps, name="constant" if len(self.actions) == 1 else "open-loop")

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {"actions": [np.asarray(action).tolist() for action in self.actions], "hold_steps": self.hold_steps}


@dataclass(frozen=True)
class Tuned:
    """What a search found. ranking: all candidates, the best first. returns: those of the best, one per seed."""

    ranking: list[Sequenced]
    returns: list[float]
    seeds: list[int]

    @property
    def best(self) -> Sequenced:
        """The winner."""
        return self.ranking[0]

    def to_dict(self) -> dict[str, Any]:
        """The winner and how it was found, as JSON types."""
        return {
            **self.best.to_dict(),
            "tuning_mean": float(np.mean(self.returns)),
            "tuning_episodes": len(self.returns),
            "tuning_seeds": list(self.seeds),
            "candidates": len(self.ranking),
        }


def constants(space: gym.Space[Any]) -> list[Sequenced]:
    """Every action of a Discrete space; of a bounded Box the middle, all low or high, or one dimension.

    Of an action of several discrete parts every combination while there are few, else all at their first value and
    each part moved alone.
    """
    if isinstance(space, gym.spaces.Discrete):
        return [Sequenced((int(space.start) + action,)) for action in range(int(space.n))]
    if isinstance(space, gym.spaces.MultiDiscrete | gym.spaces.MultiBinary):
        return [Sequenced((action,)) for action in _combinations(space)]
    middle, low, high = _bounds(space)
    one_moved = [_moved(middle, at, i) for i in range(middle.size) for at in (low, high)]
    corners = [low, high] if middle.size > 1 else []
    return [Sequenced((action,)) for action in (middle, *corners, *one_moved)]


def alternations(
    space: gym.Space[Any], hold_steps: Sequence[int] = HOLD_STEPS, among: Sequence[Action] | None = None
) -> list[Sequenced]:
    """All ordered pairs of the `constants` of a discrete space (or of the actions in `among`) with every hold.

    For a bounded Box: low and high, in both orders, of each dimension while the others rest in the middle, and of all.
    """
    pairs: list[tuple[Action, Action]]
    if not isinstance(space, gym.spaces.Box):
        actions = [candidate.actions[0] for candidate in constants(space)] if among is None else among
        pairs = list(permutations(actions, 2))
    else:
        middle, low, high = _bounds(space)
        opposite = [(_moved(middle, low, i), _moved(middle, high, i)) for i in range(middle.size)]
        opposite += [(low, high)] if middle.size > 1 else []
        pairs = [ordered for first, second in opposite for ordered in ((first, second), (second, first))]
    return [Sequenced(pair, hold) for hold in hold_steps for pair in pairs]


def search(
    make_env: MakeEnv,
    candidates: Sequence[Sequenced],
    seeds: Sequence[int],
    workers: int = 1,
    *,
    first_episodes: int = FIRST_EPISODES,
    max_steps: int | None = None,
    progress: str | None = None,
) -> Tuned:
    """Successive halving over the tuning `seeds`; all candidates of a round play the same ones. Ties: the earlier."""
    if not candidates or not seeds:
        raise UserError(f"{len(candidates)} candidates on {len(seeds)} tuning seeds: expected at least one of each")
    returns: dict[int, list[float]] = {number: [] for number in range(len(candidates))}
    alive, eliminated = list(returns), list[int]()
    done, episodes = 0, min(first_episodes, len(seeds))
    while True:
        makers = [candidates[number].make_policy for number in alive]
        played = returns_of_many(
            make_env, makers, seeds[done:episodes], workers, max_steps=max_steps, progress=progress
        )
        for number, new in zip(alive, played, strict=True):
            returns[number] += new
        alive.sort(key=lambda number: (-float(np.mean(returns[number])), number))
        done = episodes
        if done == len(seeds):
            break
        kept = math.ceil(len(alive) * KEPT)
        eliminated = alive[kept:] + eliminated
        alive, episodes = alive[:kept], min(2 * done, len(seeds))
    ranking = [candidates[number] for number in alive + eliminated]
    return Tuned(ranking, returns[alive[0]], [int(seed) for seed in seeds])


class ShuffledObservations:
    """A `BatchPolicy` that is shown the frames of another, recorded episode instead of what happens.

    The episode is drawn for each seed from `split` of the store; its frames begin anew when they run out.
    """

    def __init__(self, make_policy: MakeBatchPolicy, store_folder: Path | str, split: str = "held_out") -> None:
        self._policy = make_policy()
        self.name = f"{self._policy.name}, shuffled observations"
        self._store = EpisodeStore.open(store_folder)
        self._episodes = self._store.indices(split)
        if not len(self._episodes):
            raise UserError(f"{store_folder} has no episodes in split {split!r}: collect some to show their frames")
        self._recorded: list[NDArray[np.uint8]] = []
        self._step = 0

    def reset(self, seeds: Sequence[int]) -> None:
        """Begins a new episode in each row and draws the one to be shown in it."""
        self._policy.reset(seeds)
        self._recorded = [self._draw(seed) for seed in seeds]
        self._step = 0

    def __call__(self, frames: NDArray[np.uint8], rows: NDArray[np.int64]) -> Sequence[Action]:
        """The actions after frames (P, H, W, C) of the other episodes; the given ones are not looked at."""
        shown = np.stack([self._recorded[row][self._step % len(self._recorded[row])] for row in rows])
        self._step += 1
        return self._policy(shown, rows)

    def _draw(self, seed: int) -> NDArray[np.uint8]:
        entries = self._store.entries
        others = [i for i in self._episodes.tolist() if entries[i].seed != seed] or self._episodes.tolist()
        episode = self._store[others[np.random.default_rng((seed, _FRAMES_STREAM)).integers(len(others))]]
        blank = self._store.spec.blank_terminal_frame and bool(episode.terminated[-1])
        return episode.frames[: len(episode.frames) - blank]


def score_baselines(
    make_env: MakeEnv,
    action_space: gym.Space[Any],
    seeds: Sequence[int],
    tuning_seeds: Sequence[int],
    workers: int = 1,
    *,
    make_agent: MakeBatchPolicy | None = None,
    side_by_side: int = 1,
    store_folder: Path | str | None = None,
    stickiness: float | str = "mixed",
    hold_steps: Sequence[int] = HOLD_STEPS,
    max_steps: int | None = None,
    progress: bool = True,
) -> dict[str, Score]:
    """Scores on `seeds` of "random", "sticky_random", "best_constant" and "best_blind".

    `stickiness` is that of the data collection. The last two are chosen on `tuning_seeds`, which must be other seeds
    (UserError). With `make_agent`, which plays `side_by_side` episodes at once, and `store_folder` also
    "shuffled_observations": the agent shown frames of held-out episodes.
    """
    check_disjoint(evaluation=seeds, blind_tuning=tuning_seeds)

    def score(name: str, make_policy: MakePolicy, details: dict[str, Any] | None = None) -> Score:
        label = name.replace("_", " ") if progress else None
        return score_policy(make_env, make_policy, seeds, workers, max_steps=max_steps, details=details, progress=label)

    def tune(name: str, candidates: Sequence[Sequenced]) -> Tuned:
        label = f"tune {name}" if progress else None
        return search(make_env, candidates, tuning_seeds, workers, max_steps=max_steps, progress=label)

    scores = {
        "random": score("random", partial(UniformRandom, action_space)),
        "sticky_random": score("sticky_random", partial(StickyRandom, action_space, stickiness)),
    }
    constant = tune("best constant", constants(action_space))
    among = [candidate.actions[0] for candidate in constant.ranking[:MAX_PAIRED]]
    # A constant is a blind sequence too, so the best sequence is never worse on the tuning seeds. Constants come
    # first: of two that score alike the simpler one wins.
    blind = tune("best blind", [*constants(action_space), *alternations(action_space, hold_steps, among)])
    scores["best_constant"] = score("best_constant", constant.best.make_policy, constant.to_dict())
    scores["best_blind"] = score("best_blind", blind.best.make_policy, blind.to_dict())
    if make_agent is not None and store_folder is not None:
        scores["shuffled_observations"] = score_policy(
            make_env,
            partial(ShuffledObservations, make_agent, store_folder),
            seeds,
            workers,
            side_by_side=side_by_side,
            max_steps=max_steps,
            progress="shuffled observations" if progress else None,
        )
    return scores


def _combinations(space: gym.spaces.MultiDiscrete | gym.spaces.MultiBinary) -> list[NDArray[np.integer[Any]]]:
    """All actions of a space of several discrete parts, or the first one and those that differ from it in one part."""
    if isinstance(space, gym.spaces.MultiDiscrete):
        first, counts = np.asarray(space.start), space.nvec.tolist()
    else:
        first, counts = np.zeros(space.shape, space.dtype), [2] * space.shape[0]
    if math.prod(counts) <= MAX_COMBINATIONS:
        offsets = [np.array(index) for index in np.ndindex(*counts)]
    else:
        parts = np.eye(len(counts), dtype=np.int64)
        offsets = [
            0 * parts[0],
            *(value * part for part, n in zip(parts, counts, strict=True) for value in range(1, n)),
        ]
    return [(first + offset).astype(space.dtype) for offset in offsets]


def _bounds(space: gym.Space[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Middle, low and high of a bounded Box."""
    if not isinstance(space, gym.spaces.Box) or not space.is_bounded("both"):
        raise UserError(f"action space {space}: blind baselines need discrete actions or a bounded Box")
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    return (low / 2 + high / 2).astype(np.float32), low, high


def _moved(middle: NDArray[np.float32], to: NDArray[np.float32], dimension: int) -> NDArray[np.float32]:
    moved = middle.copy()
    moved.flat[dimension] = to.flat[dimension]
    return moved
