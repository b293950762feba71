"""A tiny detector of fireballs and monsters: one heat map per kind, one log area per kind, a peak is an object.

Trained on real frames only. It stands for the eye of a policy: what it no longer finds in a reconstruction or a dream
is no longer there to be dodged.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.labelled_frames import KINDS, Box, Frames, LabelledEpisode

NUM_KINDS = len(KINDS)
SMALLEST_AREA = 1.0  # pixels: what shows less (a sliver behind a corner, a monster's shoulder) counts neither way
SPREAD = 0.7  # standard deviation of a target peak, pixels: neighbouring monsters stay apart
LEARNING_RATE = 4e-3


class Detection(NamedTuple):
    """One peak: its kind, its centre in pixels, its score in (0, 1), its estimated area in pixels."""

    kind: int
    row: float
    column: float
    score: float
    area: float


class Detector(nn.Module):
    """uint8 frames (B, H, W, C) -> heat map logits (B, K, H, W) and log areas (B, K, H, W), H and W even."""

    def __init__(self, channels: int = 3, width: int = 24) -> None:
        super().__init__()
        self.fine = nn.Conv2d(channels, width // 2, 3, padding=1)
        self.down = nn.Conv2d(width // 2, width, 4, stride=2, padding=1)
        self.context = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation) for dilation in (1, 2, 4, 8)
        )
        self.up = nn.Conv2d(width, width // 2 * 4, 1)
        self.mix = nn.Conv2d(width, width // 2, 3, padding=1)
        self.head = nn.Conv2d(width // 2, 2 * NUM_KINDS, 1)
        nn.init.constant_(self.head.bias[:NUM_KINDS], -4.0)  # type: ignore[index]  # few pixels are peaks
        self.register_buffer("thresholds", torch.full((NUM_KINDS,), 0.3))
        self.thresholds: Tensor

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Heat map logits and log areas."""
        pixels = frames.permute(0, 3, 1, 2).float() / 127.5 - 1.0  # (B, C, H, W)
        fine = functional.relu(self.fine(pixels))  # (B, 16, H, W)
        coarse = functional.relu(self.down(fine))  # (B, 32, H/2, W/2)
        for layer in self.context:
            coarse = coarse + functional.relu(layer(coarse))
        coarse = functional.pixel_shuffle(self.up(coarse), 2)  # (B, 16, H, W)
        features = functional.relu(self.mix(torch.cat([fine, coarse], dim=1)))  # (B, 16, H, W)
        heat, areas = self.head(features).chunk(2, dim=1)
        return heat, areas


def train(
    episodes: Sequence[LabelledEpisode], tuning: Sequence[LabelledEpisode], *, steps: int, batch: int, seed: int
) -> Detector:
    """Fits a detector to `episodes`; the score thresholds are those of the best F1 on `tuning`, other episodes."""
    frames = np.concatenate([episode.frames for episode in episodes])
    boxes = [frame for episode in episodes for frame in episode.boxes]
    rng = np.random.default_rng(seed)
    started = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = Detector(frames.shape[-1])
    optimizer = torch.optim.AdamW(detector.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for step in range(steps):
        chosen = rng.integers(len(frames), size=batch)
        heat, log_area = _targets([boxes[index] for index in chosen], frames.shape[1:3])
        picked = torch.from_numpy(frames[chosen])
        if rng.random() < 0.5:  # the game has no left and right of its own
            picked, heat, log_area = picked.flip(2), heat.flip(3), log_area.flip(3)
        logits, areas = detector(picked)
        at_peak = heat == 1.0
        loss = _focal_loss(logits, heat) + 0.25 * (areas - log_area)[at_peak].abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"detector step {step}: loss {loss.item():.3f}, {time.monotonic() - started:.0f} s", flush=True)
    detector.eval()
    _tune_thresholds(detector, tuning)
    print(f"thresholds {dict(zip(KINDS, detector.thresholds.tolist(), strict=True))}")
    return detector


def detect(detector: Detector, frames: Frames, *, lowest_score: float | None = None) -> list[list[Detection]]:
    """The objects in each of frames uint8 (B, H, W, C): local peaks above the kind's threshold, best first."""
    found: list[list[Detection]] = []
    for start in range(0, len(frames), 256):
        with torch.no_grad():
            logits, log_areas = detector(torch.from_numpy(np.ascontiguousarray(frames[start : start + 256])))
        scores = logits.sigmoid()
        peaks = scores == functional.max_pool2d(scores, 3, stride=1, padding=1)
        limits = detector.thresholds if lowest_score is None else torch.full_like(detector.thresholds, lowest_score)
        places = (peaks & (scores > limits[:, None, None])).nonzero()
        values = zip(
            places.tolist(), scores[tuple(places.T)].tolist(), log_areas.exp()[tuple(places.T)].tolist(), strict=True
        )
        batch: list[list[Detection]] = [[] for _ in range(len(scores))]
        for (index, kind, row, column), score, area in values:
            batch[index].append(Detection(kind, row + 0.5, column + 0.5, score, area))
        found.extend(sorted(frame, key=lambda detection: -detection.score) for frame in batch)
    return found


def match(detections: Sequence[Detection], boxes: Sequence[Box], tolerance: float) -> list[int | None]:
    """For each detection (best first) the index of the box it finds; -1 if on one too small to count; else None.

    A detection finds a box of its kind if its centre lies in the box grown by `tolerance` pixels on each side; each
    box is found once, by the first detection, which takes the nearest.
    """
    free = [box.area >= SMALLEST_AREA for box in boxes]
    result: list[int | None] = []
    for detection in detections:
        inside = [
            index
            for index, box in enumerate(boxes)
            if box.kind == detection.kind
            and box.top - tolerance <= detection.row <= box.bottom + tolerance
            and box.left - tolerance <= detection.column <= box.right + tolerance
        ]
        candidates = [index for index in inside if free[index]]
        if candidates:
            nearest = min(candidates, key=lambda index: _distance(detection, boxes[index]))
            free[nearest] = False
            result.append(nearest)
        else:
            result.append(-1 if any(boxes[index].area < SMALLEST_AREA for index in inside) else None)
    return result


def save(detector: Detector, file: Path) -> None:
    """Weights and thresholds as safetensors."""
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in detector.state_dict().items()}, file)


def load(file: Path) -> Detector:
    """A detector written by `save`."""
    from safetensors.torch import load_file

    state = load_file(file)
    detector = Detector(channels=state["fine.weight"].shape[1], width=state["down.weight"].shape[0])
    detector.load_state_dict(state)
    return detector.eval()


def _distance(detection: Detection, box: Box) -> float:
    row, column = (box.top + box.bottom) / 2 - detection.row, (box.left + box.right) / 2 - detection.column
    return row * row + column * column


def _targets(boxes: Sequence[Sequence[Box]], frame_size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Heat maps (B, K, H, W), exactly 1.0 at the pixel of each object's centre, and log areas, valid there."""
    height, width = frame_size
    heat = np.zeros((len(boxes), NUM_KINDS, height, width), np.float32)
    log_area = np.zeros_like(heat)
    reach = np.arange(-2, 3)
    peak = np.exp(-(reach[:, None] ** 2 + reach[None] ** 2) / (2 * SPREAD**2)).astype(np.float32)  # (5, 5)
    for index, frame in enumerate(boxes):
        for box in frame:
            if box.area < SMALLEST_AREA:
                continue
            row = min(int((box.top + box.bottom) / 2), height - 1)
            column = min(int((box.left + box.right) / 2), width - 1)
            top, left = max(row - 2, 0), max(column - 2, 0)
            view = heat[index, box.kind, top : row + 3, left : column + 3]
            part = peak[top - row + 2 :, left - column + 2 :][: view.shape[0], : view.shape[1]]
            np.maximum(view, part, out=view)
            log_area[index, box.kind, row, column] = np.log(box.area)
    return torch.from_numpy(heat), torch.from_numpy(log_area)


def _focal_loss(logits: Tensor, heat: Tensor) -> Tensor:
    """Law and Deng, CornerNet (2018), equation 1 with alpha = 2, beta = 4, per peak."""
    probability = logits.sigmoid()
    at_peak = heat == 1.0
    positive = (1 - probability) ** 2 * functional.logsigmoid(logits)
    negative = (1 - heat) ** 4 * probability**2 * functional.logsigmoid(-logits)
    return -torch.where(at_peak, positive, negative).sum() / at_peak.sum().clamp(min=1)


def _tune_thresholds(detector: Detector, episodes: Sequence[LabelledEpisode]) -> None:
    scores: list[list[float]] = [[] for _ in KINDS]
    right: list[list[bool]] = [[] for _ in KINDS]
    objects = [0] * NUM_KINDS
    for episode in episodes:
        found = detect(detector, episode.frames, lowest_score=0.05)
        for detections, boxes in zip(found, episode.boxes, strict=True):
            for box in boxes:
                objects[box.kind] += box.area >= SMALLEST_AREA
            for detection, index in zip(detections, match(detections, boxes, tolerance=1.0), strict=True):
                if index != -1:
                    scores[detection.kind].append(detection.score)
                    right[detection.kind].append(index is not None)
    for kind in range(NUM_KINDS):
        detector.thresholds[kind] = _best_threshold(np.array(scores[kind]), np.array(right[kind]), objects[kind])


def _best_threshold(scores: NDArray[np.float64], right: NDArray[np.bool_], objects: int) -> float:
    """The score at which F1 = 2 hits / (objects + detections) is highest."""
    if len(scores) == 0:
        return 0.3
    order = np.argsort(-scores)
    f1 = 2 * np.cumsum(right[order]) / (objects + np.arange(1, len(order) + 1))
    return float(scores[order][int(f1.argmax())]) - 1e-6
