"""What a set of episode returns says, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
_RESAMPLED_AT_ONCE = 4_000_000  # numbers held in memory while resampling


@dataclass(frozen=True)
class Score:
    """Returns of independent episodes. Entry i of each list belongs to the episode played with `seeds[i]`.

    lengths: steps. tics: steps of the underlying environment, None where there is none (a dream). details: anything
    else worth recording, such as the period of an open-loop policy; JSON types.
    """

    returns: Sequence[float]
    seeds: Sequence[int]
    lengths: Sequence[int]
    tics: Sequence[int] | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = {len(self.returns), len(self.seeds), len(self.lengths), len(self.tics or self.lengths)}
        if sizes != {len(self.returns)} or not self.returns:
            raise ValueError(f"a score needs as many returns as seeds, lengths and tics, at least one; sizes {sizes}")

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(np.mean(self.returns))

    @property
    def ci95(self) -> tuple[float, float]:
        """The 95 % bootstrap interval of the mean; always the same for the same returns."""
        return bootstrap_interval(self.returns)

    @property
    def median_seed(self) -> int:
        """The seed of the episode with the (lower) median return: neither the luckiest nor the unluckiest."""
        order = np.argsort(np.asarray(self.returns), kind="stable")
        return int(self.seeds[int(order[(len(order) - 1) // 2])])

    def to_dict(self) -> dict[str, Any]:
        """JSON types: mean, ci95 [low, high], episodes, mean_length, [mean_tics,] details, returns, seeds."""
        summary: dict[str, Any] = {
            "mean": self.mean,
            "ci95": list(self.ci95),
            "episodes": len(self.returns),
            "mean_length": float(np.mean(self.lengths)),
        }
        if self.tics is not None:
            summary["mean_tics"] = float(np.mean(self.tics))
            summary["tics"] = int(np.sum(self.tics))
        lists = {"returns": [float(value) for value in self.returns], "seeds": [int(seed) for seed in self.seeds]}
        return {**summary, **self.details, **lists}


def bootstrap_interval(
    values: ArrayLike, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` (n,), n >= 1. The same seed gives the same interval."""
    given = np.asarray(values, np.float64)
    if given.ndim != 1 or not len(given):
        raise ValueError(f"an interval needs values of shape (n,) with n >= 1, got {given.shape}")
    random = np.random.default_rng(seed)
    rows = max(1, _RESAMPLED_AT_ONCE // len(given))
    means = np.concatenate(
        [
            given[random.integers(len(given), size=(min(rows, resamples - done), len(given)))].mean(axis=1)
            for done in range(0, resamples, rows)
        ]
    )
    outside = (1 - confidence) / 2
    low, high = np.quantile(means, [outside, 1 - outside])
    return float(low), float(high)


def area_under_roc(scores: NDArray[Any], positive: NDArray[np.bool_]) -> float | None:
    """Probability that a positive's score (n,) exceeds a negative's, ties counted half; None without both kinds."""
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # the mean rank, from 1, of each group of equal scores
    rank_sum = float(ranks[group.reshape(-1)][positive].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)
