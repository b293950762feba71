from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.counting import action_of, episode, fill, read_picture, spec
from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError
from worldsim.evaluation.stretches import Stretches, draw_stretches, exchanged_actions, pictured_frames, read_stretches


@pytest.fixture(params=[False, True], ids=["discrete", "box"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> EpisodeStore:
    box = bool(request.param)
    store = EpisodeStore.create(tmp_path / "store", spec(box=box, blank_terminal_frame=True))
    lengths = {1: 9, 2: 30, 3: 4, 4: 12}
    episodes = [
        episode(number, steps, box=box, terminated=number != 4, split="train" if number == 2 else "held_out")
        for number, steps in lengths.items()
    ]
    fill(store, "a", *episodes)
    return store


def check_alignment(store: EpisodeStore, stretches: Stretches) -> None:
    """Frames follow each other, and each action is the one that led to its frame."""
    box = bool(store.spec.action_shape)
    numbers, steps = read_picture(stretches.frames.numpy())
    for row in range(len(stretches)):
        there = np.flatnonzero(stretches.present[row].numpy())
        assert (np.diff(there) == 1).all()
        assert (np.diff(steps[row, there]) == 1).all()
        assert len(set(numbers[row, there])) == 1
        assert steps[row, there[-1]] <= {1: 8, 2: 29, 3: 3, 4: 12}[numbers[row, there[0]]]  # not the blank ones
        assert stretches.present[row, stretches.context_frames - 1 : stretches.context_frames + 1].all()
        for t in there:
            step, number = int(steps[row, t]), int(numbers[row, t])
            assert stretches.has_action[row, t] == (step > 0)
            if step > 0:
                expected = action_of(number, step - 1, box)
                np.testing.assert_array_equal(stretches.actions[row, t].numpy(), expected)
        absent = ~stretches.present[row]
        assert not stretches.frames[row][absent].any()
        stepped = stretches.stepped[row].numpy()
        assert not stretches.actions[row][~stepped].any()
        assert (stretches.has_action[row].numpy() <= stepped).all()
        for t in np.flatnonzero(stepped & ~stretches.present[row].numpy()):  # into the blank frame
            assert t == there[-1] + 1
            expected = action_of(int(numbers[row, t - 1]), int(steps[row, t - 1]), box)
            np.testing.assert_array_equal(stretches.actions[row, t].numpy(), expected)
        assert not stretches.has_action[row][absent].any()


def test_actions_belong_to_the_frames_they_led_to(store: EpisodeStore) -> None:
    stretches = draw_stretches(store, 40, horizon=6, context_frames=4, seed=3)
    assert stretches.frames.shape == (40, 10, *store.spec.frame_shape)
    assert (stretches.horizon, stretches.future.shape[1], stretches.future_actions.shape[1]) == (6, 6, 6)
    check_alignment(store, stretches)
    numbers, _ = read_picture(stretches.frames[:, 3].numpy())
    assert set(numbers.tolist()) == {1, 3, 4}  # held out


def test_every_moment_is_drawn_once_while_there_are_enough(store: EpisodeStore) -> None:
    moments = 8 + 3 + 12  # frames that have a successor with a picture
    stretches = draw_stretches(store, moments, horizon=2, context_frames=1)
    numbers, steps = read_picture(stretches.frames[:, 0].numpy())
    assert len(set(zip(numbers.tolist(), steps.tolist(), strict=True))) == moments
    assert [pictured_frames(store, i) for i in range(4)] == [9, 30, 4, 13]


def test_whole_stretches_where_there_are_any(store: EpisodeStore) -> None:
    stretches = draw_stretches(store, 10, horizon=7, context_frames=3, whole=True)
    assert stretches.future_present.all()
    check_alignment(store, stretches)
    too_long = draw_stretches(store, 3, horizon=100, context_frames=3, whole=True)
    assert too_long.future_present.sum(1).tolist() == [12, 12, 12]
    with pytest.raises(UserError, match="no elsewhere episodes"):
        draw_stretches(store, 3, horizon=4, split="elsewhere")


def test_exchanged_actions_are_another_rows_and_never_padding(store: EpisodeStore) -> None:
    stretches = read_stretches(store, [(0, 2), (2, 1), (3, 4)], horizon=6, context_frames=2)
    exchanged = exchanged_actions(stretches, seed=1)
    own = stretches.future_actions
    assert stretches.future_present.sum(1).tolist() == [6, 2, 6]
    tiled = [own[0], torch.cat([own[1][:2]] * 3), own[2]]
    for row in range(3):
        donors = [other for other in range(3) if torch.equal(exchanged[row], tiled[other])]
        assert donors
        assert row not in donors
