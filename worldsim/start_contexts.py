"""Real moments from which dreams start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from worldsim.data.latents import LatentCache
from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError


@dataclass(frozen=True)
class StartContexts:
    """K stretches of F real frames, each ending where a dream may begin.

    latents: float16 (K, F, N, D), as the tokenizer gives them. actions: (K, F) int64 or (K, F, A) float32, the action
    that led to each frame. has_action, present: bool (K, F); shorter histories stand on the right. at_start: bool
    (K,), True where the last frame is the first of its episode.
    """

    latents: Tensor
    actions: Tensor
    has_action: Tensor
    present: Tensor
    at_start: Tensor

    def __len__(self) -> int:
        return len(self.at_start)

    def rows(self, index: Tensor) -> StartContexts:
        """The contexts at `index` (R,)."""
        return StartContexts(
            self.latents[index],
            self.actions[index],
            self.has_action[index],
            self.present[index],
            self.at_start[index],
        )

    def only_episode_starts(self) -> StartContexts:
        """The contexts that show the first frame of an episode."""
        return self.rows(torch.nonzero(self.at_start)[:, 0])

    def tensors(self) -> dict[str, Tensor]:
        """The fields by name, to be saved."""
        return {name: getattr(self, name).contiguous() for name in self.__dataclass_fields__}


def draw_contexts(
    store: EpisodeStore,
    latents: LatentCache,
    count: int,
    frames: int,
    episode_starts: int,
    seed: int,
    before_endings: int = 0,
    reach: int = 1,
    from_step: int = 0,
) -> StartContexts:
    """`count` moments drawn uniformly from the train split, the first `episode_starts` of them at first frames.

    Those drawn uniformly lie at step `from_step` of their episodes or later. The last `before_endings`, if any episode
    terminated, lie 1 to `reach` steps before the step that ended one, each such episode equally likely. After the last
    step of an episode nothing follows, so it is never among them. First frames, and `at_start`, are those of the newest
    round: the first one may have begun its episodes elsewhere.
    Raises UserError if no episode goes on after `from_step` steps.
    """
    random = np.random.default_rng(seed)
    episodes = store.indices("train")
    lengths = store.lengths[episodes]  # steps; moments 0..length - 1 have a successor
    late_enough = np.maximum(lengths - from_step, 0)
    if not late_enough.any():
        raise UserError(
            f"no dream can begin at step {from_step} of a real episode or later: the longest of those to train on ends "
            f"after {lengths.max()} steps; choose an earlier one (dream.start_from_step)"
        )
    ends = np.cumsum(late_enough)
    moments = random.integers(ends[-1], size=count)
    which = np.searchsorted(ends, moments, side="right")
    position = from_step + moments - (ends - late_enough)[which]
    rounds = np.array([entry.round for entry in store.entries])[episodes]
    newest = np.flatnonzero(rounds == rounds.max())
    which[:episode_starts] = random.choice(newest, size=episode_starts)
    position[:episode_starts] = 0
    if before_endings and len(ended := np.flatnonzero([store.terminated(i) for i in episodes.tolist()])):
        chosen = random.choice(ended, size=before_endings)
        left = np.minimum(random.integers(1, reach + 1, size=before_endings), lengths[chosen] - 1)
        which[-before_endings:], position[-before_endings:] = chosen, lengths[chosen] - 1 - left

    owners = episodes[which]
    contexts = read_contexts(store, latents, list(zip(owners.tolist(), position.tolist(), strict=True)), frames)
    return replace(contexts, at_start=contexts.at_start & torch.from_numpy(rounds[which] == rounds.max()))


def read_contexts(
    store: EpisodeStore, latents: LatentCache, moments: Sequence[tuple[int, int]], frames: int
) -> StartContexts:
    """The `frames` frames up to frame t of episode i, for each (i, t) of `moments`."""
    count, spec = len(moments), store.spec
    kept = np.zeros((count, frames, *latents.latent_shape), np.float16)
    actions = np.zeros((count, frames, *spec.action_shape), spec.action_dtype)
    has_action = np.zeros((count, frames), np.bool_)
    present = np.zeros((count, frames), np.bool_)
    for row, (episode, last) in enumerate(moments):
        first = max(0, last - frames + 1)
        length = last - first + 1
        kept[row, frames - length :] = latents[episode][first : last + 1]
        present[row, frames - length :] = True
        steps = store.steps(episode)["action"][max(0, first - 1) : last]
        actions[row, frames - len(steps) :] = steps
        has_action[row, frames - len(steps) :] = True
    return StartContexts(
        torch.from_numpy(kept),
        torch.from_numpy(actions),
        torch.from_numpy(has_action),
        torch.from_numpy(present),
        torch.tensor([last == 0 for _, last in moments]),
    )
