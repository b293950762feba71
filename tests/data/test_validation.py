"""Each fault that we plant is found and named, and good data passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.planted_faults import FAULTS, plant, problems, shifted
from tests.data.sliding import episode, episodes, motion, spec
from worldsim.data.alignment import align_actions, align_rewards
from worldsim.data.episode import EnvSpec, Episode
from worldsim.data.mirror import mirror_round
from worldsim.data.motion import motion_features
from worldsim.data.store import EpisodeStore
from worldsim.data.validation import validate
from worldsim.errors import UserError


def store(folder: Path, given: list[Episode], env: EnvSpec | None = None) -> EpisodeStore:
    made = EpisodeStore.create(folder, env or spec())
    with made.writer("a") as writer:
        for one in given:
            writer.append(one)
    made.refresh()
    return made


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found_and_nothing_else(tmp_path: Path, fault: str) -> None:
    made = plant(episodes(), store(tmp_path / "good", episodes()[:1]), fault, tmp_path / "planted")
    about = FAULTS[fault][1]
    found = problems(made)
    assert {finding.about for finding in found} == ({about} if about else set()), found


def moved(values: NDArray[Any], lag: int) -> NDArray[Any]:
    return shifted(values, lag) if lag else values


@pytest.mark.parametrize("lag", [-2, -1, 0, 1, 2])
@pytest.mark.parametrize("inertia", [False, True])
def test_lags_are_told(lag: int, inertia: bool) -> None:
    given = episodes(inertia=inertia)
    one_hot = [np.eye(3, dtype=np.float32)[moved(one.actions, lag)] for one in given]
    assert align_actions(motion(inertia), one_hot).lags == (lag,)
    assert align_rewards(motion(inertia), [moved(one.rewards, lag) for one in given]).lags == (lag,)


@pytest.mark.parametrize("lag", [-1, 0, 1])
def test_a_policy_that_reacts_does_not_hide_where_actions_belong(lag: int) -> None:
    given = episodes(inertia=True, reacts=True)
    actions = [np.eye(3, dtype=np.float32)[moved(one.actions, lag)] for one in given]
    found = align_actions(motion(inertia=True, reacts=True), actions)
    assert found.reacts
    assert found.lags[0] == lag


def test_actions_without_effect_are_called_that(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    given = [replace(one, actions=random.integers(0, 3, len(one))) for one in episodes()]
    found = validate(store(tmp_path / "store", given), progress=False)
    assert not any(finding.problem for finding in found)
    assert any("no effect on the frames" in finding.text for finding in found)


def test_movement_is_measured_in_pixels() -> None:
    x = np.arange(200)
    wave = 120 + 50 * np.sin(x / 3) + 20 * np.sin(x / 5 + 1)
    frames = np.stack([np.tile(wave[50 - t : 82 - t], (32, 1)) for t in range(5)])[..., None].astype(np.uint8)
    features = motion_features(frames)
    right, down = features[:, :16].reshape(4, 4, 4), features[:, 16:32]  # of the finest scale, (T, rows, columns)
    assert np.allclose(right[..., 1:3], 1, atol=0.1)
    assert np.allclose(down, 0)
    assert not motion_features(np.repeat(frames[:1], 3, axis=0)).any()


def test_one_of_two_policies_is_named(tmp_path: Path) -> None:
    good, bad = episodes(), episodes()
    bad = [replace(one, policy="late", actions=shifted(one.actions, 1)) for one in bad]
    (found,) = problems(store(tmp_path / "store", good + bad))
    assert "late" in found.text
    assert "1 step too late" in found.text


def test_a_constant_component_is_named(tmp_path: Path) -> None:
    box = {"type": "box", "shape": [2], "low": [-1, -1], "high": [1, 1]}
    env = replace(spec(), action_space=box, action_meanings=["steer", "gas"])
    given = [
        replace(one, actions=np.stack([one.actions - 1, np.full(len(one), 0.5)], axis=1).astype(np.float32))
        for one in episodes()
    ]
    (found,) = problems(store(tmp_path / "store", given, env))
    assert "gas is always 0.5" in found.text


def test_rewards_that_only_the_end_tells(tmp_path: Path) -> None:
    """As in Take Cover: 4 a step, less in the last."""
    given = [replace(one, rewards=np.append(np.full(len(one) - 1, 4, np.float32), [1])) for one in episodes()]
    given = [replace(one, rewards=one.rewards.astype(np.float32)) for one in given]
    assert not problems(store(tmp_path / "good", given))
    for by, word in ((1, "too late"), (-1, "too early")):
        late = [replace(one, rewards=shifted(one.rewards, by)) for one in given]
        (found,) = problems(store(tmp_path / word.replace(" ", "-"), late))
        assert word in found.text


def test_a_blank_last_frame_is_no_fault(tmp_path: Path) -> None:
    env = replace(spec(), blank_terminal_frame=True)
    given = []
    for one in episodes():
        frames = one.frames.copy()
        frames[-1] = 0
        given.append(replace(one, frames=frames))
    assert not problems(store(tmp_path / "store", given, env))


def test_copies_in_a_mirror_are_no_fault_and_hide_none(tmp_path: Path) -> None:
    shifted_actions = [replace(one, actions=shifted(one.actions, 1)) for one in episodes()]
    for name, given, about in (("good", episodes(), set()), ("late", shifted_actions, {"alignment"})):
        made = store(tmp_path / name, given)
        mirror_round(made, 0, [2, 1, 0])
        assert len(made) > len(given)
        assert {finding.about for finding in problems(made)} == about


@pytest.mark.parametrize(
    ("reward", "ends", "told"),
    [(1.0, True, "learn only to make episodes last"), (-1.0, True, "only to end them soon"), (1.0, False, "nothing")],
)
def test_what_rewards_that_are_all_alike_can_teach(tmp_path: Path, reward: float, ends: bool, told: str) -> None:
    given = [
        replace(
            one,
            rewards=np.full_like(one.rewards, reward),
            terminated=one.terminated & ends,
            truncated=one.truncated | (one.terminated & (not ends)),
        )
        for one in episodes()
    ]
    (remark,) = [finding.text for finding in validate(store(tmp_path / "store", given)) if finding.about == "rewards"]
    assert told in remark


def test_short_episodes_and_few_of_them(tmp_path: Path) -> None:
    assert not problems(store(tmp_path / "one", [episode(0, 40)]))
    assert not problems(store(tmp_path / "short", [episode(number, 1 + number % 4) for number in range(30)]))


def test_no_episodes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="0 episodes"):
        validate(store(tmp_path / "store", []), progress=False)
