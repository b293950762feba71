"""Can one see in the dream which action was taken? A small network learns it from real frames and reads dreamt ones.

It sees four frames in a row and tells the action that led to the third. Where actions accelerate things they show only
in how the motion before a frame differs from the motion after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldsim.data.actions import action_feature_count, action_features
from worldsim.data.episode import EnvSpec
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.stretches import Stretches, draw_stretches

SEEN = 4  # frames
ASKED = 2  # the frame whose action is told
WIDEST = 64  # pixels: larger frames are shrunk to this

# uint8 frames (B, SEEN, H, W, C), the action that led to frame ASKED (B[, A]), and the one before that.
Windows = tuple[Tensor, Tensor, Tensor]


def train_inverse_dynamics(
    spec: EnvSpec,
    windows: Windows,
    *,
    updates: int = 400,
    batch: int = 128,
    seed: int = 0,
    on_update: Callable[[int], object] | None = None,
) -> nn.Module:
    """A network from windows of frames to the action's features: logits if it is discrete, else values in [-1, 1].

    The same seed and the same number of threads give the same network.
    """
    frames, actions, _ = windows
    targets = action_features(spec, actions)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(_seen(frames[:1]).shape[1:], action_feature_count(spec))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=updates)
    discrete = not spec.action_shape
    for _ in range(updates):
        rows = torch.randint(len(frames), (batch,), generator=generator)
        told = network(_seen(frames[rows]))
        loss = F.cross_entropy(told, targets[rows]) if discrete else F.mse_loss(told, targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if on_update is not None:
            on_update(1)
    return network.eval().requires_grad_(False)


def score_inverse_dynamics(spec: EnvSpec, network: nn.Module, windows: Windows) -> dict[str, float]:
    """How well the network tells the actions of `windows`.

    Discrete: accuracy, and changed_accuracy over the windows whose two actions differ, where repeating the action
    seen before does not help (left out where there are none); windows, changed: how many. Box: r2 (1: exact, 0: no
    better than the mean action).
    """
    frames, actions, before = windows
    told = torch.cat([network(_seen(part)) for part in frames.split(256)])
    if spec.action_shape:
        truth = action_features(spec, actions)
        unexplained = (told - truth).square().sum() / (truth - truth.mean(0)).square().sum().clamp(min=1e-9)
        return {"r2": 1 - float(unexplained), "windows": float(len(actions))}
    right = told.argmax(1) == actions
    changed = actions != before
    scores = {
        "accuracy": float(right.float().mean()),
        "windows": float(len(actions)),
        "changed": float(changed.sum()),
    }
    return {**scores, "changed_accuracy": float(right[changed].float().mean())} if changed.any() else scores


def chance(spec: EnvSpec, actions: Tensor) -> float:
    """What a guess that never looks reaches: the share of the commonest action, or an r2 of 0."""
    if spec.action_shape:
        return 0.0
    return float(torch.bincount(actions).max() / len(actions))


def recorded_windows(store: EpisodeStore, count: int, split: str, seed: int = 0) -> Windows:
    """Up to `count` windows drawn uniformly from the real episodes of a split."""
    stretches = draw_stretches(store, count, horizon=SEEN - 1, context_frames=1, seed=seed, split=split)
    return windows_of(stretches, stretches.future)


def windows_of(stretches: Stretches, future: Tensor) -> Windows:
    """All windows within the last frame seen and the S frames after it, as far as the real episodes go.

    future: uint8 (B, S, H, W, C), the real frames, or dreamt or reconstructed ones in their place. The last frame seen
    is a real one: it can only be the first of a window.
    """
    first, steps = stretches.context_frames - 1, future.shape[1]
    shown = torch.cat([stretches.frames[:, first : first + 1], future], dim=1)  # (B, 1 + S, H, W, C)
    actions, known = (part[:, first : first + 1 + steps] for part in (stretches.actions, stretches.present))
    frames, asked, before = [], [], []
    for begin in range(2 + steps - SEEN):
        rows = known[:, begin + SEEN - 1]
        frames.append(shown[rows, begin : begin + SEEN])
        asked.append(actions[rows, begin + ASKED])
        before.append(actions[rows, begin + ASKED - 1])
    return torch.cat(frames), torch.cat(asked), torch.cat(before)


def _seen(frames: Tensor) -> Tensor:
    """(B, SEEN, H, W, C) uint8 -> (B, SEEN C, h, w): the frame asked about, and each frame less the one before it."""
    images = frames.movedim(-1, 2).float() / 255  # (B, SEEN, C, H, W)
    seen = torch.cat([images[:, ASKED : ASKED + 1] - 0.5, images.diff(dim=1)], dim=1).flatten(1, 2)
    shrink = -(-max(seen.shape[-2:]) // WIDEST)
    return F.avg_pool2d(seen, shrink, ceil_mode=True) if shrink > 1 else seen


def _network(shape: Sequence[int], outputs: int) -> nn.Module:
    """Convolutions, and a layer that keeps the places apart, since where a thing moved may tell the action."""
    channels, height, width = shape
    layers: list[Any] = []
    for wider in (32, 64, 64):
        layers += [nn.Conv2d(channels, wider, 3, stride=2, padding=1), nn.GELU()]
        channels, height, width = wider, -(-height // 2), -(-width // 2)
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(channels * height * width, 128), nn.GELU(), nn.Linear(128, outputs)
    )
