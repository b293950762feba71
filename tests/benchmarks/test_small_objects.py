"""The measure itself: matching, sizes, references and the alignment of contexts, on painted frames."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import object_detector, small_objects
from benchmarks.labelled_frames import Box, LabelledEpisode
from benchmarks.object_detector import Detection, Detector, match
from benchmarks.small_objects import draw_contexts, score, score_dreams, score_reconstructions

FIREBALL, MONSTER = 0, 1


class PerfectEye(Detector):
    """Sees a fireball at each red pixel and a monster at each green one; the brightness is the area."""

    def __init__(self) -> None:
        super().__init__()
        self.thresholds.fill_(0.5)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        pixels = frames.permute(0, 3, 1, 2)[:, :2].float()  # (B, 2, H, W)
        return torch.where(pixels > 0, 10.0, -10.0), pixels.clamp(min=1).log()


def box(kind: int, row: int, column: int, area: float = 4.0, identity: int = 0) -> Box:
    return Box(kind, identity, area, row - 0.5, row + 1.5, column - 0.5, column + 1.5)


def paint(*boxes: Box, size: int = 64) -> np.ndarray[Any, np.dtype[np.uint8]]:
    frame = np.zeros((size, size, 3), np.uint8)
    for item in boxes:
        frame[int((item.top + item.bottom) / 2), int((item.left + item.right) / 2), item.kind] = round(item.area)
    return frame


def at(kind: int, row: float, column: float) -> Detection:
    return Detection(kind, row, column, 0.9, 4.0)


def test_matching_is_one_to_one_within_the_tolerance_and_by_kind() -> None:
    boxes = [box(FIREBALL, 10, 10), box(FIREBALL, 10, 20), box(MONSTER, 30, 30)]
    assert match([at(FIREBALL, 10.5, 10.5), at(FIREBALL, 10.5, 10.5)], boxes, 1.0) == [0, None]
    assert match([at(MONSTER, 10.5, 10.5), at(MONSTER, 30.5, 30.5)], boxes, 1.0) == [None, 2]
    assert match([at(FIREBALL, 10.5, 22.4)], boxes, 1.0) == [1]
    assert match([at(FIREBALL, 10.5, 22.6)], boxes, 1.0) == [None]
    assert match([at(FIREBALL, 10.5, 22.6)], boxes, 3.0) == [1]


def test_what_is_too_small_counts_neither_way() -> None:
    sliver = box(FIREBALL, 10, 10, area=0.4)
    assert match([at(FIREBALL, 10.5, 10.5)], [sliver], 1.0) == [-1]
    result = score(PerfectEye(), np.stack([paint(box(FIREBALL, 10, 10, area=1.0))]), [[sliver]])
    assert result["fireball"]["objects"] == result["fireball"]["detections"] == 0
    assert result["fireball"]["recall"] is None


def test_scores_by_kind_and_size() -> None:
    small, large, monster = box(FIREBALL, 10, 10, area=3.0), box(FIREBALL, 40, 40, area=20.0), box(MONSTER, 20, 50)
    ghost = box(FIREBALL, 60, 5, area=3.0)
    frames = np.stack([paint(small, large, monster), paint(large, ghost)])
    result = score(PerfectEye(), frames, [[small, large, monster], [small, large, monster]])
    fireball = result["fireball"]
    assert (fireball["recall"], fireball["objects"]) == (0.75, 4)
    assert (fireball["precision"], fireball["detections"], fireball["per_frame"]) == (0.75, 4, 2.0)
    assert fireball["by_size"]["2-4"] == {"recall": 0.5, "objects": 2, "precision": 0.5, "detections": 2}
    assert fireball["by_size"]["8-32"] == {"recall": 1.0, "objects": 2, "precision": 1.0, "detections": 2}
    assert result["monster"]["recall"] == 0.5
    assert math.inf in small_objects.SIZES


def test_a_reconstruction_that_erases_fails_and_a_faithful_one_passes() -> None:
    boxes = [[box(FIREBALL, 10, 10), box(MONSTER, 20, 50)]] * 2
    frames = np.stack([paint(*boxes[0])] * 2)
    faithful = score_reconstructions(PerfectEye(), frames, boxes, lambda real: real.copy())
    assert faithful["fireball"]["recall_of_real"] == 1.0
    assert faithful["fireball"]["passed"]
    assert faithful["monster"]["passed"]
    erased = score_reconstructions(PerfectEye(), frames, boxes, lambda real: real * np.array([0, 1, 1], np.uint8))
    assert not erased["fireball"]["passed"]
    assert erased["monster"]["passed"]


def episode(length: int, number: int) -> LabelledEpisode:
    """Frame t has a fireball at (number, t); action t is t."""
    boxes = [[box(FIREBALL, 4 + 8 * number, t, identity=t // 30)] for t in range(1, length + 1)]
    return LabelledEpisode(np.stack([paint(*frame) for frame in boxes]), np.arange(length - 1), boxes)


def test_contexts_are_consecutive_and_carry_the_actions_that_led_to_them() -> None:
    episodes = [episode(45, 0), episode(60, 3), episode(20, 5)]
    contexts = draw_contexts(episodes, context_frames=4, num_contexts=20, seed=0)
    assert contexts.frames.shape == (20, 4, 64, 64, 3)
    assert contexts.future_frames.shape == (20, 32, 64, 64, 3)
    for row in range(20):
        columns = [int(np.argwhere(frame[..., 0])[0][1]) - 1 for frame in contexts.frames[row]]  # frame numbers
        after = [int(np.argwhere(frame[..., 0])[0][1]) - 1 for frame in contexts.future_frames[row]]
        assert columns[0] >= 1
        assert columns + after == list(range(columns[0], columns[0] + 36))
        assert contexts.actions[row].tolist() == [column - 1 for column in columns]
        assert contexts.future_actions[row].tolist() == [column - 1 for column in after]
        assert [frame[0].left + 0.5 for frame in contexts.future_boxes[row]] == [column + 1 for column in after]
    with pytest.raises(ValueError, match="collect more frames"):
        draw_contexts(episodes, context_frames=4, num_contexts=1000, seed=0)


def test_dreams_are_scored_beside_the_references() -> None:
    contexts = draw_contexts([episode(60, 0), episode(60, 4)], context_frames=4, num_contexts=16, seed=1)

    def dream(frames: Any, actions: Any, future_actions: Any) -> Any:
        assert frames.shape[:2] == actions.shape == (16, 4)
        return contexts.future_frames * np.array([1, 0, 0], np.uint8)

    result = score_dreams(PerfectEye(), contexts, dream)
    for step in ("step_8", "step_32"):
        assert result[step]["dream"]["fireball"]["recall"] == 1.0
        assert result[step]["real"]["fireball"]["precision"] == 1.0
        assert result[step]["frozen"]["fireball"]["recall"] == 0.0  # 8 pixels further on
        assert result[step]["other"]["fireball"]["recall"] < 1.0
        assert result[step]["dream"]["fireball"]["known"]["objects"] < 16  # some have left, some are new
    assert set(score_dreams(PerfectEye(), contexts, None)["step_8"]) == {"real", "frozen", "other"}
    with pytest.raises(ValueError, match="expected uint8 dreams"):
        score_dreams(PerfectEye(), contexts, lambda frames, *_: frames)


def test_a_detector_learns_dots_and_survives_saving(tmp_path: Any) -> None:
    rng = np.random.default_rng(0)

    def dots(count: int) -> LabelledEpisode:
        places = rng.integers(3, 28, (count, 2, 2))
        boxes = [[box(kind, row, column, area=200.0) for kind, (row, column) in enumerate(frame)] for frame in places]
        frames = np.stack([paint(*frame, size=32) for frame in boxes])
        return LabelledEpisode(frames, np.zeros(count - 1, np.int64), boxes)

    held_out = dots(50)
    detector = object_detector.train([dots(400)], [dots(50)], steps=150, batch=16, seed=0)
    result = score(detector, held_out.frames, held_out.boxes)
    assert min(result[kind][rate] for kind in ("fireball", "monster") for rate in ("recall", "precision")) > 0.9
    object_detector.save(detector, tmp_path / "detector.safetensors")
    loaded = object_detector.load(tmp_path / "detector.safetensors")
    assert object_detector.detect(loaded, held_out.frames) == object_detector.detect(detector, held_out.frames)


def test_labels_of_the_game_lie_on_the_objects() -> None:
    pytest.importorskip("vizdoom", reason='ViZDoom is not installed: pip install "worldsim-rl[vizdoom]"')
    from benchmarks.labelled_frames import collect

    episodes = collect(200, seed=0)
    assert sum(len(item.frames) for item in episodes) == 200
    for item in episodes:
        assert len(item.frames) == len(item.actions) + 1 == len(item.boxes)
        assert item.frames.max(axis=(1, 2, 3)).min() > 0  # no blank frame
    # Fireballs glow: their boxes are brighter than the rest of the frame.
    brighter = [
        item.frames[t, int(b.top) : math.ceil(b.bottom), int(b.left) : math.ceil(b.right)].mean()
        > item.frames[t].mean() + 10
        for item in episodes
        for t, frame in enumerate(item.boxes)
        for b in frame
        if b.kind == FIREBALL and b.area >= 2
    ]
    assert len(brighter) > 20
    assert np.mean(brighter) > 0.95
