"""Episodes of a single round, for stores that tests make."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.data.episode import Episode


def played(
    frames: NDArray[np.uint8],
    actions: NDArray[Any],
    rewards: NDArray[np.float32],
    *,
    seed: int = 0,
    policy: str = "random",
    split: str = "train",
    terminated: bool = True,
    truncated: bool = False,
    tics: int | None = None,
) -> Episode:
    """T + 1 frames, T actions and rewards; the last step terminates, is truncated, or neither. tics: T if not given."""
    last = np.arange(len(actions)) == len(actions) - 1
    return Episode(
        frames=frames,
        actions=actions,
        rewards=rewards,
        terminated=last & terminated,
        truncated=last & truncated,
        seed=seed,
        policy=policy,
        split=split,
        tics=len(actions) if tics is None else tics,
        round=0,
    )
