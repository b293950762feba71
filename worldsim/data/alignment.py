"""At which lag actions and rewards belong to the frames: the silent bug of this field, found without training a model.

`motion[t]` is what changes from frame t to frame t + 1, so `actions[t]` should be the first action to show in it, and
`rewards[t]` the first reward that it tells of. Both questions are asked of linear regressions, judged on episodes that
they were not fitted to:

* How much does the action at lag k explain of `motion[t]` that earlier actions and `motion[t - 1]` do not? In an env,
  what has not been done yet explains nothing; so the *last* lag with a gain is where actions belong. Neighbouring
  actions that are alike (sticky policies, frame skip) drop out: only where the action changed can it explain more.
  Where a policy looks, lag 1 explains a little too: the action answers the change. Whether one does is
  asked first: does motion tell an action *two steps later*? If so, a small gain behind the large ones is left open.
* How much more of the reward at lag k does `motion[t]` tell than `motion[t - 1]` does? What happened before has shown
  already, what is to come may announce itself; so the *first* lag with a gain is where rewards belong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LAGS = (-2, -1, 0, 1, 2)
FOLDS = 5
BLOCK_STEPS = 50  # neighbouring steps are alike: whole blocks of them are taken as the independent samples
PENALTY = 0.1  # of the ridge regression, per step
CLIP = 3.0  # standard deviations: a scene cut must not outweigh everything else
LEAST_SCORE = 2.5  # standard errors above 0 that a gain must have
LARGE_SHARE = 0.15  # of the largest gain: more than a reaction explains
SMALL_SHARE = 0.03  # of the largest gain: in an env with inertia an action may show no more than that at first
LEAST_STEPS = 300


@dataclass(frozen=True)
class Alignment:
    """`gains[k]`: share of the variance that lag LAGS[k] explains beyond others; `scores`: the same in standard errors.

    `lags` are those at which the values may belong: 0 if aligned, 1 if they are recorded one step late (the value at
    t + 1 belongs to the step from frame t to frame t + 1), -1 if one step early. None: the data does not tell.
    `reacts`: the actions answer the frames. Several lags remain where they do, and where gains are uncertain.
    """

    gains: tuple[float, ...]
    scores: tuple[float, ...]
    lags: tuple[int, ...]
    reacts: bool


UNTOLD = Alignment((0.0,) * len(LAGS), (0.0,) * len(LAGS), (), False)


def align_actions(motion: Sequence[NDArray[np.float32]], actions: Sequence[NDArray[np.float32]]) -> Alignment:
    """Where actions belong, from the episodes' motion (T, F) and actions (T, A)."""
    earliest = LAGS[0] - 1
    rows = _Rows([len(episode) for episode in actions], before=-earliest, after=LAGS[-1])
    if len(rows.index) < LEAST_STEPS:
        return UNTOLD
    changes = _standardised(motion)
    target, known = rows.take(changes, 0), [rows.take(changes, -1), rows.take(actions, earliest)]
    gains = []
    error = rows.errors(np.concatenate(known, axis=1), target)
    for lag in LAGS:
        known.append(rows.take(actions, lag))
        before, error = error, rows.errors(np.concatenate(known, axis=1), target)
        gains.append(before - error)
    means, scores = rows.judge(gains)
    reacts = _react(rows, changes, actions)
    small = _with_gain(means, scores, SMALL_SHARE)
    if not (large := _with_gain(means, scores, LARGE_SHARE)):
        return Alignment(means, scores, (), reacts)
    return Alignment(means, scores, tuple(range(large[-1] if reacts else small[-1], small[-1] + 1)), reacts)


def align_rewards(motion: Sequence[NDArray[np.float32]], rewards: Sequence[NDArray[np.float32]]) -> Alignment:
    """Where rewards belong, from the episodes' motion (T, F) and rewards (T,)."""
    rows = _Rows([len(episode) for episode in rewards], before=-LAGS[0], after=LAGS[-1])
    # Against the usual one of the episode: that an episode pays more at each step is no matter of lags.
    values = _standardised([(episode - np.median(episode))[:, None] for episode in rewards])
    if len(rows.index) < LEAST_STEPS or np.ptp(rows.take(values, 0)) == 0:
        return UNTOLD
    changes = _standardised(motion)
    before = rows.take(changes, -1)
    both = np.concatenate([before, rows.take(changes, 0)], axis=1)
    gains = []
    for lag in LAGS:
        target = rows.take(values, lag)
        gains.append(rows.errors(before, target) - rows.errors(both, target))
    means, scores = rows.judge(gains)
    sure, large = _with_gain(means, scores, LARGE_SHARE), _with_gain(means, scores, LARGE_SHARE, least_score=0)
    return Alignment(means, scores, tuple(range(large[0], sure[0] + 1)) if sure else (), False)


def _with_gain(
    means: Sequence[float], scores: Sequence[float], least_share: float, least_score: float = LEAST_SCORE
) -> tuple[int, ...]:
    """The lags whose gain is as certain as `least_score` and at least a share of the largest."""
    least = least_share * max(means)
    each = zip(LAGS, means, scores, strict=True)
    return tuple(lag for lag, mean, score in each if score >= least_score and mean >= least)


def _react(rows: _Rows, changes: Sequence[NDArray[np.float32]], actions: Sequence[NDArray[np.float32]]) -> bool:
    """Whether what moved tells the action two steps later, beyond the actions until then."""
    earlier = np.concatenate([rows.take(actions, lag) for lag in (-1, 0, 1)], axis=1)
    seen, target = np.concatenate([earlier, rows.take(changes, -1)], axis=1), rows.take(actions, 2)
    _, (score,) = rows.judge([rows.errors(earlier, target) - rows.errors(seen, target)])
    return score > 0  # what has nothing to tell is below 0, for it makes the guess on other episodes worse


class _Rows:
    """The steps of all episodes that have `before` steps before them and `after` behind them."""

    def __init__(self, lengths: Sequence[int], before: int, after: int) -> None:
        steps = [np.arange(before, length - after) for length in lengths]
        first = np.cumsum([0, *lengths])
        episode = np.concatenate([np.full(len(t), number) for number, t in enumerate(steps)])
        self.index = np.concatenate([first[number] + t for number, t in enumerate(steps)])
        self._block = np.cumsum(np.diff(self.index // BLOCK_STEPS, prepend=-1) != 0)
        # A set of few episodes is split within them, else one of them would be judged by what others never do.
        groups = episode if len(np.unique(episode)) >= FOLDS else self._block
        self._fold = np.unique(groups, return_inverse=True)[1] % FOLDS

    def take(self, episodes: Sequence[NDArray[np.float32]], lag: int) -> Array:
        """The values (rows, n) at `lag` from each step."""
        return np.concatenate(episodes).astype(np.float64)[self.index + lag]

    def errors(self, inputs: Array, targets: Array) -> Array:
        """Squared errors (rows,), mean over targets, of ridge regressions that were fitted to the other folds."""
        errors = np.zeros(len(targets))
        for fold in range(FOLDS):
            fitted, judged = self._fold != fold, self._fold == fold
            mean, spread = inputs[fitted].mean(axis=0), inputs[fitted].std(axis=0)
            spread = np.where(spread > 1e-9, spread, 1)
            x, offset = (inputs[fitted] - mean) / spread, targets[fitted].mean(axis=0)
            gram = x.T @ x + PENALTY * len(x) * np.eye(x.shape[1])
            weights = np.linalg.solve(gram, x.T @ (targets[fitted] - offset))
            guess = (inputs[judged] - mean) / spread @ weights + offset
            errors[judged] = ((targets[judged] - guess) ** 2).mean(axis=1)
        return errors

    def judge(self, gains: Sequence[Array]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The means of gains (rows,), and the means in standard errors."""
        blocks = [np.bincount(self._block, gain) for gain in gains]
        scores = [float(block.sum() / (np.sqrt((block**2).sum()) or 1)) for block in blocks]
        return tuple(float(gain.mean()) for gain in gains), tuple(scores)


def _standardised(episodes: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Columns with median 0 and spread 1, cut at CLIP; constant ones stay 0."""
    everything = np.concatenate(episodes)
    middle, spread = np.median(everything, axis=0), everything.std(axis=0)
    low, high = np.quantile(everything, [0.16, 0.84], axis=0)
    spread = np.where(high > low, (high - low) / 2, np.where(spread > 0, spread, 1))
    return [np.clip((episode - middle) / spread, -CLIP, CLIP).astype(np.float32) for episode in episodes]
