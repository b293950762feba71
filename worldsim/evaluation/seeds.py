"""Seeds that were never used before: what is tuned or trained on one set of episodes is judged on another."""

from __future__ import annotations

from collections.abc import Iterable

from worldsim.errors import UserError


def check_disjoint(**groups: Iterable[int]) -> None:
    """Raises UserError, naming both groups and a seed, if a seed occurs in two of the named groups."""
    owner: dict[int, str] = {}
    for name, seeds in groups.items():
        for seed in {int(value) for value in seeds}:
            if seed in owner:
                raise UserError(
                    f"seed {seed} is used for {owner[seed]} and for {name}: expected seeds never used before; "
                    "choose another first seed for the evaluation"
                )
            owner[seed] = name


def fresh_seeds(first: int, count: int, used: Iterable[int] = ()) -> list[int]:
    """The first `count` seeds from `first` upwards that are not in `used`."""
    taken = {int(seed) for seed in used}
    seeds: list[int] = []
    while len(seeds) < count:
        if first not in taken:
            seeds.append(first)
        first += 1
    return seeds
