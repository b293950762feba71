from __future__ import annotations

import pickle
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.data.counting import SHAPE, CountingEnv, episode, fill, read_picture
from tests.data.counting import spec as counting_spec
from tests.evaluation.worlds import THREE, RhythmEnv
from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError
from worldsim.evaluation.blind import (
    HOLD_STEPS,
    Sequenced,
    ShuffledObservations,
    alternations,
    constants,
    score_baselines,
    search,
)
from worldsim.evaluation.returns import returns_of_many, score_policy
from worldsim.rollouts import Action

BOX = gym.spaces.Box(np.array([-1, 0], np.float32), np.array([1, 10], np.float32))


class Witness:
    """Keeps what it is shown."""

    name = "witness"

    def __init__(self) -> None:
        self.seen: list[list[tuple[int, int]]] = []

    def reset(self, seeds: Sequence[int]) -> None:
        self.seen = [[] for _ in seeds]

    def __call__(self, frames: NDArray[np.uint8], rows: NDArray[np.int64]) -> list[Action]:
        numbers, steps = read_picture(frames)
        for row, number, step in zip(rows, numbers, steps, strict=True):
            self.seen[row].append((int(number), int(step)))
        return [int(step) % 5 for step in steps]


def actions_of(candidates: list[Sequenced]) -> list[Any]:
    return [[np.asarray(action).tolist() for action in candidate.actions] for candidate in candidates]


def test_candidates_of_a_discrete_space() -> None:
    space = gym.spaces.Discrete(3, start=1)
    assert actions_of(constants(space)) == [[1], [2], [3]]
    pairs = alternations(space, [2, 5])
    assert len(pairs) == 2 * 6
    assert {(candidate.actions, candidate.hold_steps) for candidate in pairs} >= {((1, 3), 2), ((3, 1), 5)}
    assert len(set(pairs)) == 12
    assert len(alternations(gym.spaces.Discrete(18), HOLD_STEPS, among=[4, 9])) == 2 * len(HOLD_STEPS)


def test_candidates_of_actions_of_several_parts() -> None:
    space = gym.spaces.MultiDiscrete([2, 3], start=[4, 0])
    assert actions_of(constants(space)) == [[[a, b]] for a in (4, 5) for b in (0, 1, 2)]
    assert len(alternations(space, [2, 5])) == 2 * 6 * 5
    buttons = gym.spaces.MultiBinary(6)  # 64 combinations: too many to try them all
    found = constants(buttons)
    assert [sum(candidate.actions[0]) for candidate in found] == [0, 1, 1, 1, 1, 1, 1]  # type: ignore[arg-type]
    assert all(buttons.contains(candidate.actions[0]) for candidate in found)


def test_candidates_of_a_box() -> None:
    assert actions_of(constants(BOX)) == [[[0, 5]], [[-1, 0]], [[1, 10]], [[-1, 5]], [[1, 5]], [[0, 0]], [[0, 10]]]
    line = gym.spaces.Box(-2.0, 2.0, (1,))
    assert actions_of(constants(line)) == [[[0]], [[-2]], [[2]]]
    assert actions_of(alternations(line, [1])) == [[[-2], [2]], [[2], [-2]]]
    pairs = actions_of(alternations(BOX, [3]))
    assert [[-1, 5], [1, 5]] in pairs
    assert [[0, 10], [0, 0]] in pairs
    assert [[-1, 0], [1, 10]] in pairs
    assert len(pairs) == 6
    with pytest.raises(UserError, match="bounded Box"):
        constants(gym.spaces.Box(-np.inf, np.inf, (2,)))


def test_the_search_finds_the_rhythm() -> None:
    candidates = [*constants(THREE), *alternations(THREE)]
    found = search(RhythmEnv, candidates, range(100, 108))
    assert found.best == Sequenced((1, 2), 4)
    details = found.to_dict()
    assert details["actions"] == [1, 2]
    assert details["hold_steps"] == 4
    assert details["tuning_mean"] == pytest.approx(48, abs=2)
    assert details["tuning_seeds"] == list(range(100, 108))
    assert details["tuning_episodes"] == 8
    assert details["candidates"] == 3 + 6 * len(HOLD_STEPS) == len(set(found.ranking))


def test_the_search_spends_its_episodes_on_the_promising(monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[tuple[int, list[int]]] = []

    def counted(make_env: Any, makers: Any, seeds: Any, *rest: Any, **options: Any) -> list[list[float]]:
        played.append((len(makers), list(seeds)))
        return returns_of_many(make_env, makers, seeds, *rest, **options)

    monkeypatch.setattr("worldsim.evaluation.blind.returns_of_many", counted)
    search(RhythmEnv, alternations(THREE, [1, 4, 8]), range(16))
    assert played == [(18, [0, 1, 2, 3]), (6, [4, 5, 6, 7]), (2, list(range(8, 16)))]


def test_of_equals_the_first_wins() -> None:
    found = search(CountingEnv, [Sequenced((2,)), Sequenced((2, 2), 3)], [1, 2, 3])
    assert found.best == Sequenced((2,))
    with pytest.raises(UserError, match="0 tuning seeds"):
        search(CountingEnv, [Sequenced((2,))], [])


def test_baselines_are_scored_on_the_evaluation_seeds() -> None:
    seeds, tuning = range(10, 16), range(4)
    scores = score_baselines(RhythmEnv, THREE, seeds, tuning, hold_steps=[2, 4], progress=False)
    assert list(scores) == ["random", "sticky_random", "best_constant", "best_blind"]
    assert all(list(score.seeds) == list(seeds) for score in scores.values())
    assert scores["random"].mean == pytest.approx(16, abs=4)
    assert scores["best_constant"].mean == pytest.approx(24, abs=2)
    assert scores["best_blind"].mean == pytest.approx(48, abs=2)
    assert scores["best_blind"].details["hold_steps"] == 4
    assert scores["best_constant"].details["actions"] in ([1], [2])
    # Other episodes than those of the tuning: the scores differ by the chance in the rewards.
    assert scores["best_blind"].mean != scores["best_blind"].details["tuning_mean"]
    with pytest.raises(UserError, match="seed 3 is used for"):
        score_baselines(RhythmEnv, THREE, range(3, 6), tuning, progress=False)


def test_worker_processes_play_the_same() -> None:
    makers = [candidate.make_policy for candidate in alternations(gym.spaces.Discrete(5), [4], among=[0, 2, 3])]
    alone = returns_of_many(CountingEnv, makers, [1, 2, 3])
    assert np.shape(alone) == (6, 3)
    assert len(set(np.ravel(alone).tolist())) > 6
    assert alone == returns_of_many(CountingEnv, makers, [1, 2, 3], workers=2)
    score = score_policy(CountingEnv, makers[0], [1, 2, 3])
    assert alone[0] == score.returns
    assert score.tics is not None
    assert list(score.details) == ["terminated"]


@pytest.fixture
def counting_store(tmp_path: Path) -> EpisodeStore:
    store = EpisodeStore.create(tmp_path / "store", counting_spec(blank_terminal_frame=True))
    episodes = [episode(number, 5, split="held_out" if number > 2 else "train") for number in range(1, 6)]
    fill(store, "a", *episodes)
    return store


def test_shuffled_observations_come_from_another_episode(counting_store: EpisodeStore) -> None:
    policy = ShuffledObservations(Witness, counting_store.folder)
    witness = policy._policy
    assert isinstance(witness, Witness)
    shown = set()
    for seed in range(3, 40):
        policy.reset([1000, seed])
        truth = np.zeros((2, *SHAPE), np.uint8)
        actions = [policy(truth, np.arange(2))[1] for _ in range(6)]
        actions += [policy(truth[:1], np.array([1]))[0] for _ in range(6)]  # the other row has ended
        numbers, steps = zip(*witness.seen[1], strict=True)
        # Five steps have six frames; the last, after the termination, is blank and not shown. Then from the start.
        assert steps == (0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1)
        assert actions == [step % 5 for step in steps]
        assert len(set(numbers)) == 1
        assert numbers[0] in {3, 4, 5} - {seed}  # held-out ones, never the one that is played
        shown.add(numbers[0])
    assert shown == {3, 4, 5}


def test_shuffled_observations_travel_to_workers(counting_store: EpisodeStore) -> None:
    make = partial(ShuffledObservations, Witness, counting_store.folder)
    policy = pickle.loads(pickle.dumps(make))()
    assert policy.name == "witness, shuffled observations"
    again = pickle.loads(pickle.dumps(ShuffledObservations(Witness, counting_store.folder)))
    again.reset([8])
    assert again(np.zeros((1, *SHAPE), np.uint8), np.arange(1)) == [0]
    with pytest.raises(UserError, match="no episodes in split 'nowhere'"):
        ShuffledObservations(Witness, counting_store.folder, split="nowhere")
    scores = score_baselines(
        CountingEnv,
        gym.spaces.Discrete(5),
        [7, 8, 9],
        [1, 2],
        hold_steps=[2],
        side_by_side=2,
        make_agent=Witness,
        store_folder=counting_store.folder,
        progress=False,
    )
    # The witness plays the steps it is shown, 0 to 4 over and over, so its return says how long each episode was.
    expected = [sum(t % 5 for t in range(length)) for length in scores["shuffled_observations"].lengths]
    assert scores["shuffled_observations"].returns == expected
