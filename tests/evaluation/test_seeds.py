from __future__ import annotations

import pytest

from worldsim.errors import UserError
from worldsim.evaluation.seeds import check_disjoint, fresh_seeds


def test_shared_seeds_are_named() -> None:
    check_disjoint(collection=[1, 2, 2], tuning=range(10, 20), evaluation=range(20, 30))
    with pytest.raises(UserError, match="seed 19 is used for tuning and for evaluation"):
        check_disjoint(collection=[1, 2], tuning=range(10, 20), evaluation=range(19, 30))


def test_fresh_seeds_step_over_used_ones() -> None:
    used = [101, 103, 500]
    seeds = fresh_seeds(100, 4, used)
    assert seeds == [100, 102, 104, 105]
    check_disjoint(used=used, fresh=seeds)
