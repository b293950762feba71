from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from tests.evaluation.worlds import BlindOracle, ColumnEnv, Oracle
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.branches import (
    Branches,
    compare_effects,
    decision_regret,
    draw_moments,
    draw_sequences,
    dream_branches,
    play_branches,
)

MOMENTS, STEPS, PICTURES = 12, 16, 4


class ForgetfulEnv(ColumnEnv):
    """Begins every episode somewhere else, whatever the seed."""

    episodes = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.episodes += 1
        return super().reset(seed=None if self.episodes > 1 else seed)


@pytest.fixture(scope="module")
def moments(store: EpisodeStore) -> list[tuple[int, int]]:
    return draw_moments(store, MOMENTS, longest_prefix=10)


@pytest.fixture(scope="module")
def real(store: EpisodeStore, moments: list[tuple[int, int]]) -> Branches:
    branches, repeated = play_branches(
        ColumnEnv, store, moments, draw_sequences(store, len(moments), STEPS), pictures=PICTURES
    )
    assert repeated.all()
    return branches


def dreamt(model: Any, store: EpisodeStore, moments: list[tuple[int, int]], real: Branches) -> Branches:
    return dream_branches(model, store, moments, real.actions, context_frames=3, pictures=PICTURES)


def test_moments_are_held_out_and_have_a_frame_after_them(store: EpisodeStore, moments: list[tuple[int, int]]) -> None:
    assert len(set(moments)) == MOMENTS
    held_out = set(store.indices("held_out").tolist())
    for episode, moment in moments:
        assert episode in held_out
        assert 0 <= moment <= 10
        assert moment < store.lengths[episode]


def test_the_first_sequences_hold_one_action_and_no_two_moments_share_the_random_ones(store: EpisodeStore) -> None:
    actions = draw_sequences(store, 3, STEPS)
    assert actions.shape == (3, 5, STEPS)
    assert [set(actions[0, k].tolist()) for k in range(3)] == [{0}, {1}, {2}]
    assert not np.array_equal(actions[0, 3:], actions[1, 3:])


def test_who_knows_the_world_finds_every_effect_and_never_regrets(
    store: EpisodeStore, moments: list[tuple[int, int]], real: Branches
) -> None:
    dream = dreamt(cast(Any, Oracle()), store, moments, real)
    assert np.array_equal(dream.frames[real.present], real.frames[real.present])
    effects = compare_effects(real, dream)
    assert effects["effect_correlation"] == pytest.approx([1] * PICTURES, abs=1e-4)
    assert effects["effect_size"] == pytest.approx([1] * PICTURES, abs=1e-4)
    assert effects["moments"][0] > 0
    regret = decision_regret(real, dream)
    assert dream.returns == pytest.approx(real.returns)
    assert regret["decided"] > 0
    assert regret["regret"] == 0 < regret["regret_random"]
    assert regret["share_of_best"] == 1 > regret["share_of_best_random"]
    assert regret["correlation"] == pytest.approx(1)


def test_who_ignores_actions_has_no_effects_and_picks_at_random(
    store: EpisodeStore, moments: list[tuple[int, int]], real: Branches
) -> None:
    dream = dreamt(cast(Any, BlindOracle()), store, moments, real)
    effects = compare_effects(real, dream)
    assert effects["effect_size"] == [0] * PICTURES
    assert effects["effect_correlation"] == [None] * PICTURES
    assert decision_regret(real, dream)["correlation"] is None


def test_branches_that_are_mixed_up_are_found_out(
    store: EpisodeStore, moments: list[tuple[int, int]], real: Branches
) -> None:
    dream = dreamt(cast(Any, Oracle()), store, moments, real)
    turned = replace(dream, frames=dream.frames[:, [2, 0, 1, 3, 4]], returns=dream.returns[:, [2, 0, 1, 3, 4]])
    true, mixed = compare_effects(real, dream), compare_effects(real, turned)
    assert all(before > after for before, after in zip(true["right_branch"], mixed["right_branch"], strict=True))
    assert decision_regret(real, turned)["regret"] > 0


def test_an_env_that_does_not_repeat_itself_is_noticed(store: EpisodeStore, moments: list[tuple[int, int]]) -> None:
    _, repeated = play_branches(ForgetfulEnv, store, moments, draw_sequences(store, len(moments), STEPS))
    assert repeated.mean() < 0.2  # chance may repeat one
