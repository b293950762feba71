"""Can one see in the dream which action was taken? A small network learns it from real frames and reads dreamt ones.

It sees three frames in a row and tells the action that led to the last. Three, because where actions accelerate things
two frames cannot tell them apart.
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

WIDEST = 64  # pixels: larger frames are shrunk to this

# uint8 frames (B, 3, H, W, C), the action that led to the last one (B[, A]) and to the middle one.
Triples = tuple[Tensor, Tensor, Tensor]


def train_inverse_dynamics(
    spec: EnvSpec,
    triples: Triples,
    *,
    updates: int = 400,
    batch: int = 128,
    seed: int = 0,
    on_update: Callable[[int], object] | None = None,
) -> nn.Module:
    """A network from triples of frames to the action's features: logits if it is discrete, else values in [-1, 1].

    The same seed and the same number of threads give the same network.
    """
    frames, actions, _ = triples
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


def score_inverse_dynamics(spec: EnvSpec, network: nn.Module, triples: Triples) -> dict[str, float]:
    """How well the network tells the actions of `triples`.

    Discrete: accuracy, and changed_accuracy over the triples whose two actions differ, where repeating the action
    seen before does not help (left out where there are none); triples, changed: how many. Box: r2 (1: exact, 0: no
    better than the mean action).
    """
    frames, actions, before = triples
    told = torch.cat([network(_seen(part)) for part in frames.split(256)])
    if spec.action_shape:
        truth = action_features(spec, actions)
        unexplained = (told - truth).square().sum() / (truth - truth.mean(0)).square().sum().clamp(min=1e-9)
        return {"r2": 1 - float(unexplained), "triples": float(len(actions))}
    right = told.argmax(1) == actions
    changed = actions != before
    scores = {
        "accuracy": float(right.float().mean()),
        "triples": float(len(actions)),
        "changed": float(changed.sum()),
    }
    return {**scores, "changed_accuracy": float(right[changed].float().mean())} if changed.any() else scores


def chance(spec: EnvSpec, actions: Tensor) -> float:
    """What a guess that never looks reaches: the share of the commonest action, or an r2 of 0."""
    if spec.action_shape:
        return 0.0
    return float(torch.bincount(actions).max() / len(actions))


def recorded_triples(store: EpisodeStore, count: int, split: str, seed: int = 0) -> Triples:
    """Up to `count` triples drawn uniformly from the real episodes of a split."""
    stretches = draw_stretches(store, count, horizon=2, context_frames=1, seed=seed, split=split)
    return triples_of(stretches, stretches.future, 2)


def triples_of(stretches: Stretches, future: Tensor, steps: int) -> Triples:
    """Every triple within the last frame seen and the `steps` frames after it, as far as the real episodes go.

    future: uint8 (B, >= steps, H, W, C), the real frames, or dreamt or reconstructed ones in their place: the last
    frame seen then is used only where it is real, which is the first frame of a first triple.
    """
    first = stretches.context_frames - 1
    shown = torch.cat([stretches.frames[:, first : first + 1], future[:, :steps]], dim=1)  # (B, 1 + steps, H, W, C)
    actions, known = (part[:, first : first + 1 + steps] for part in (stretches.actions, stretches.present))
    frames, last, middle = [], [], []
    for t in range(2, 1 + steps):
        rows = known[:, t]
        frames.append(shown[rows, t - 2 : t + 1])
        last.append(actions[rows, t])
        middle.append(actions[rows, t - 1])
    return torch.cat(frames), torch.cat(last), torch.cat(middle)


def _seen(frames: Tensor) -> Tensor:
    """(B, 3, H, W, C) uint8 -> (B, 3 C, h, w): the middle frame and how it differs from those around it."""
    before, middle, after = (part.movedim(-1, 1).float() / 255 for part in frames.unbind(1))
    seen = torch.cat([middle - 0.5, middle - before, after - middle], dim=1)  # (B, 3 C, H, W)
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
