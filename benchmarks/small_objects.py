"""Do the small things survive? Recall and precision of fireballs and monsters by their size in the frame.

    python -m benchmarks.small_objects --model runs/take_cover/model --json small_objects.json
    python -m benchmarks.small_objects --json real.json            # the detector on real frames alone

A detector (benchmarks/object_detector.py) is trained on real, labelled Take Cover frames: about 4 minutes on one core
with collection. `--detector FILE` keeps it, so that several models are looked at with the same eye. Then it looks at

* real frames of other episodes;
* the same frames through the model's tokenizer. Target: 0.95 of the real recall, 0.9 of the real precision;
* dreams that continue such an episode with the actions that were really taken, after 2, 4, 8 and 32 steps. New
  fireballs are thrown by chance, so no dream can find them all. Three references show how far a score can go and how
  much of it is luck: real (the frames that came), frozen (the last frame before the dream, as the answer), other (real
  frames of another episode). `known` counts only what was visible when the dream began, by identity; `per_frame` is
  the number of detections in a frame, to be compared with the real one: does the dream stay as full of fireballs as
  the game?

Sizes are visible areas in pixels of the 64x64 frame; what shows less than one pixel counts neither way. Recall is by
labelled size, precision by the size that the detector estimates.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import object_detector
from benchmarks.labelled_frames import KINDS, TAKE_COVER, Box, Frames, LabelledEpisode, collect
from benchmarks.object_detector import SMALLEST_AREA, Detector, detect, match
from worldsim.envs import EnvConfig
from worldsim.workflow.showing import load_here
from worldsim.world_model import WorldModel, row_generator

SIZES = (SMALLEST_AREA, 2.0, 4.0, 8.0, 32.0, math.inf)  # bounds of the size classes, pixels
DREAM_STEPS = (2, 4, 8, 32)  # a fireball is in the air for about 10 steps at frame_skip 4
STILL_TOLERANCE, DREAM_TOLERANCE = 1.0, 3.0  # pixels a centre may lie outside the box
TARGET_RECALL, TARGET_PRECISION = 0.95, 0.9  # of those on real frames

Reconstruct = Callable[[Frames], Frames]
"""uint8 frames (B, H, W, C) -> the same frames through a tokenizer."""

Dream = Callable[[Frames, NDArray[np.int64], NDArray[np.int64]], Frames]
"""(frames (B, K, H, W, C), actions that led to them (B, K), actions to come (B, S)) -> dreamt frames (B, S, H, W, C).

Frame [:, s] of the answer is the one after action [:, s] of those to come."""


@dataclass(frozen=True)
class Contexts:
    """K real frames with the actions that led to them, and what really came in the S steps after."""

    frames: Frames  # (B, K, H, W, C)
    actions: NDArray[np.int64]  # (B, K)
    future_actions: NDArray[np.int64]  # (B, S)
    future_frames: Frames  # (B, S, H, W, C)
    boxes: list[list[Box]]  # of the last context frame
    future_boxes: list[list[list[Box]]]  # B lists of S


def score(
    detector: Detector, frames: Frames, boxes: Sequence[Sequence[Box]], tolerance: float = STILL_TOLERANCE
) -> dict[str, Any]:
    """Recall and precision of each kind in frames uint8 (B, H, W, C), whole and by size.

    For each kind: recall, precision (None where there is nothing to divide by), objects, detections, per_frame, and
    "by_size": {"1-2": {recall, objects, precision, detections}, ...}.
    """
    looked_for: list[tuple[int, float, bool]] = []  # kind, labelled area, found
    pointed_at: list[tuple[int, float, bool]] = []  # kind, estimated area, right
    for detections, present in zip(detect(detector, frames), boxes, strict=True):
        indices = match(detections, present, tolerance)
        looked_for += [
            (box.kind, box.area, index in indices) for index, box in enumerate(present) if box.area >= SMALLEST_AREA
        ]
        pointed_at += [
            (detection.kind, detection.area, index is not None)
            for detection, index in zip(detections, indices, strict=True)
            if index != -1
        ]
    result: dict[str, Any] = {}
    for kind, name in enumerate(KINDS):
        objects = [(area, hit) for of_kind, area, hit in looked_for if of_kind == kind]
        found = [(max(area, SMALLEST_AREA), hit) for of_kind, area, hit in pointed_at if of_kind == kind]
        result[name] = {
            **_rates(objects, found),
            "per_frame": round(len(found) / len(frames), 3),
            "by_size": {
                _size_name(low, high): _rates(
                    [item for item in objects if low <= item[0] < high],
                    [item for item in found if low <= item[0] < high],
                )
                for low, high in itertools.pairwise(SIZES)
            },
        }
    return result


def score_reconstructions(
    detector: Detector, frames: Frames, boxes: Sequence[Sequence[Box]], reconstruct: Reconstruct
) -> dict[str, Any]:
    """The score of reconstructed frames, and for each kind `recall_of_real` and `precision_of_real` with a verdict."""
    real, seen = score(detector, frames, boxes), score(detector, reconstruct(frames), boxes)
    for name in KINDS:
        recall, precision = _ratio(seen[name], real[name], "recall"), _ratio(seen[name], real[name], "precision")
        seen[name]["recall_of_real"], seen[name]["precision_of_real"] = recall, precision
        seen[name]["passed"] = (recall or 0.0) >= TARGET_RECALL and (precision or 0.0) >= TARGET_PRECISION
    return seen


def score_dreams(detector: Detector, contexts: Contexts, dream: Dream | None) -> dict[str, Any]:
    """Scores at each of DREAM_STEPS of the dream (if any) and of the three references, matched with the real labels."""
    answers: dict[str, Frames] = {
        "real": contexts.future_frames,
        "frozen": np.repeat(contexts.frames[:, -1:], contexts.future_frames.shape[1], axis=1),
        "other": np.roll(contexts.future_frames, len(contexts.frames) // 2, axis=0),
    }
    if dream is not None:
        dreamt = dream(contexts.frames, contexts.actions, contexts.future_actions)
        if dreamt.shape != contexts.future_frames.shape or dreamt.dtype != np.uint8:
            raise ValueError(f"expected uint8 dreams {contexts.future_frames.shape}, got {dreamt.dtype} {dreamt.shape}")
        answers = {"dream": dreamt, **answers}
    result: dict[str, Any] = {"tolerance_pixels": DREAM_TOLERANCE, "contexts": len(contexts.frames)}
    for step in DREAM_STEPS:
        boxes = [future[step - 1] for future in contexts.future_boxes]
        known = [{box.identity for box in before} for before in contexts.boxes]
        result[f"step_{step}"] = {}
        for name, frames in answers.items():
            scores = score(detector, frames[:, step - 1], boxes, DREAM_TOLERANCE)
            for kind, rates in _recall_of_known(detector, frames[:, step - 1], boxes, known).items():
                scores[kind]["known"] = rates
            result[f"step_{step}"][name] = scores
    return result


def draw_contexts(
    episodes: Sequence[LabelledEpisode], *, context_frames: int, num_contexts: int, seed: int
) -> Contexts:
    """`num_contexts` places with `context_frames` frames before them and a future.

    An episode's first frame is in no context: no action led to it.
    """
    steps = max(DREAM_STEPS)
    places = [
        (number, last)
        for number, episode in enumerate(episodes)
        for last in range(context_frames, len(episode.frames) - steps)
    ]
    if len(places) < num_contexts:
        raise ValueError(
            f"{len(places)} places with a future of {steps} steps, {num_contexts} asked: collect more frames"
        )
    rng = np.random.default_rng(seed)
    chosen = [places[index] for index in rng.choice(len(places), num_contexts, replace=False)]
    before, after = [], []
    for number, last in chosen:
        before.append((episodes[number], slice(last - context_frames + 1, last + 1)))
        after.append((episodes[number], slice(last + 1, last + 1 + steps)))
    return Contexts(
        frames=np.stack([episode.frames[part] for episode, part in before]),
        # actions[t] leads from frame t to t+1: the action that led to frame t is number t-1.
        actions=np.stack([episode.actions[part.start - 1 : part.stop - 1] for episode, part in before]),
        future_actions=np.stack([episode.actions[part.start - 1 : part.stop - 1] for episode, part in after]),
        future_frames=np.stack([episode.frames[part] for episode, part in after]),
        boxes=[episodes[number].boxes[last] for number, last in chosen],
        future_boxes=[episode.boxes[part] for episode, part in after],
    )


def reconstruct_with(model: WorldModel, batch_frames: int = 128) -> Reconstruct:
    """The model's tokenizer as a callable on arrays."""

    def reconstruct(frames: Frames) -> Frames:
        parts = []
        with torch.no_grad():
            for start in range(0, len(frames), batch_frames):
                batch = torch.from_numpy(np.ascontiguousarray(frames[start : start + batch_frames]))
                parts.append(model.tokenizer.decode(model.tokenizer.encode(batch)).cpu().numpy())
        return np.concatenate(parts)

    return reconstruct


def dream_with(model: WorldModel, seed: int, temperature: float | None = None, batch_dreams: int = 64) -> Dream:
    """The model's dream as a callable on arrays; row i draws from a generator of its own, seed + i.

    temperature: None is the model's own.
    """

    def dream(frames: Frames, actions: NDArray[np.int64], future_actions: NDArray[np.int64]) -> Frames:
        parts = []
        for start in range(0, len(frames), batch_dreams):
            rows = slice(start, min(start + batch_dreams, len(frames)))
            context = torch.from_numpy(np.ascontiguousarray(frames[rows]))
            given = torch.ones(context.shape[:2], dtype=torch.bool)
            state = model.start(
                model.encode(context),
                torch.from_numpy(actions[rows]),
                has_action=given,
                present=given,
                generators=[row_generator(seed + index) for index in range(rows.start, rows.stop)],
            )
            dreamt = []
            for step in range(future_actions.shape[1]):
                actions_now = torch.from_numpy(future_actions[rows, step])
                state, outcome = model.step(state, actions_now, temperature=temperature)
                dreamt.append(model.decode(outcome.latents).cpu().numpy())
            parts.append(np.stack(dreamt, axis=1))  # (rows, S, H, W, C)
        return np.concatenate(parts)

    return dream


def main() -> None:
    """Train or load the detector, look at real frames, reconstructions and dreams, print and write the report."""
    arguments = _arguments()
    model: WorldModel | None = None
    config = TAKE_COVER
    if arguments.model:
        model = load_here(arguments.model)
        config = EnvConfig(**model.spec.settings)
    detector = _detector(arguments, config)
    episodes = collect(arguments.frames, arguments.seed + 2, config)
    frames = np.concatenate([episode.frames for episode in episodes])
    boxes = [frame for episode in episodes for frame in episode.boxes]
    contexts = draw_contexts(
        episodes, context_frames=arguments.context_frames, num_contexts=arguments.contexts, seed=arguments.seed
    )
    report: dict[str, Any] = {"frames": len(frames), "real": score(detector, frames, boxes)}
    if model is not None:
        report["reconstructed"] = score_reconstructions(detector, frames, boxes, reconstruct_with(model))
    report["dreams"] = score_dreams(
        detector,
        contexts,
        dream_with(model, arguments.seed, arguments.temperature) if model is not None else None,
    )
    _print(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Recall and precision of small objects in real, reconstructed and dreamt frames."
    )
    parser.add_argument("--model", help="folder or name of a world model of Take Cover; without it, real frames only")
    parser.add_argument("--temperature", type=float, help="of the dreams (default: the model's own)")
    parser.add_argument("--json", type=Path, help="file for the report")
    parser.add_argument("--detector", type=Path, help="safetensors file: loaded if it exists, else trained and written")
    parser.add_argument("--frames", type=int, default=6000, help="labelled frames to look at")
    parser.add_argument("--contexts", type=int, default=256, help="dreams to continue")
    parser.add_argument("--context-frames", type=int, default=8, help="real frames before each dream")
    parser.add_argument("--training-frames", type=int, default=12000, help="labelled frames for the detector")
    parser.add_argument("--steps", type=int, default=800, help="training steps of the detector")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _detector(arguments: argparse.Namespace, config: EnvConfig) -> Detector:
    if arguments.detector and arguments.detector.exists():
        return object_detector.load(arguments.detector)
    detector = object_detector.train(
        collect(arguments.training_frames, arguments.seed, config),
        collect(arguments.training_frames // 8, arguments.seed + 1, config),
        steps=arguments.steps,
        batch=arguments.batch,
        seed=arguments.seed,
    )
    if arguments.detector:
        object_detector.save(detector, arguments.detector)
    return detector


def _recall_of_known(
    detector: Detector, frames: Frames, boxes: Sequence[Sequence[Box]], known: Sequence[set[int]]
) -> dict[str, dict[str, Any]]:
    """For each kind: recall and number of the objects whose identity is in `known` of their frame."""
    found: list[list[bool]] = [[] for _ in KINDS]
    for detections, present, identities in zip(detect(detector, frames), boxes, known, strict=True):
        indices = match(detections, present, DREAM_TOLERANCE)
        for index, box in enumerate(present):
            if box.identity in identities and box.area >= SMALLEST_AREA:
                found[box.kind].append(index in indices)
    return {name: {"recall": _mean(hits), "objects": len(hits)} for name, hits in zip(KINDS, found, strict=True)}


def _rates(objects: Sequence[tuple[float, bool]], found: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    return {
        "recall": _mean([hit for _, hit in objects]),
        "objects": len(objects),
        "precision": _mean([hit for _, hit in found]),
        "detections": len(found),
    }


def _mean(hits: Sequence[bool]) -> float | None:
    return round(sum(hits) / len(hits), 4) if hits else None


def _ratio(seen: dict[str, Any], real: dict[str, Any], name: str) -> float | None:
    return round(seen[name] / real[name], 4) if seen[name] is not None and real[name] else None


def _size_name(low: float, high: float) -> str:
    return f"{low:g}+" if math.isinf(high) else f"{low:g}-{high:g}"


def _print(report: dict[str, Any]) -> None:
    """One line per place, kind and size: recall (objects) and precision (detections)."""
    places: dict[str, Any] = {name: report[name] for name in ("real", "reconstructed") if name in report}
    for step in DREAM_STEPS:
        places.update({f"{name} at step {step}": part for name, part in report["dreams"][f"step_{step}"].items()})
    print(f"{'frames':18}{'kind':10}{'size':6}{'recall':>8}{'objects':>9}{'precision':>11}{'found':>8}")
    for place, kinds in places.items():
        for kind, rates in kinds.items():
            sizes = {} if " at step " in place else rates["by_size"]  # of dreams the sum; the file has the sizes
            for size, part in {"all": rates, **sizes}.items():
                recall, precision = (
                    f"{part[name]:.3f}" if part[name] is not None else "-" for name in ("recall", "precision")
                )
                print(
                    f"{place:18}{kind:10}{size:6}{recall:>8}{part['objects']:>9}{precision:>11}{part['detections']:>8}"
                )
            if "known" in rates:
                known = rates["known"]
                recall = f"{known['recall']:.3f}" if known["recall"] is not None else "-"
                print(
                    f"{place:18}{kind:10}known {recall:>8}{known['objects']:>9}{'per frame':>11}{rates['per_frame']:>8}"
                )
            if "passed" in rates:
                verdict = "passed" if rates["passed"] else "FAILED"
                print(
                    f"{place:18}{kind:10}{verdict}: {rates['recall_of_real']} of real recall (target {TARGET_RECALL}), "
                    f"{rates['precision_of_real']} of real precision (target {TARGET_PRECISION})"
                )


if __name__ == "__main__":
    main()
