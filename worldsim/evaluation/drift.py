"""Do long dreams stay in the world? Latents, sharpness, round trips and memory, far beyond the length of training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.evaluation.stretches import Stretches, decode, encode, repeated_actions, start_dreams
from worldsim.world_model import WorldModel

MEASUREMENTS = 40  # along a dream


def measure_drift(
    model: WorldModel,
    stretches: Stretches,
    steps: int,
    *,
    seed: int = 0,
    temperature: float | None = None,
    on_frames: Callable[[int], object] | None = None,
) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """Dreams of `steps` frames from each start, along its actions again and again; measures as JSON types.

    At each of `steps_measured`: latent_rms (unit scale), sharpness (mean absolute difference of neighbouring pixels in
    grey levels), round_trip (rms of encode(decode(z)) - z over the rms of z: a frame that no real frame looks like does
    not come back), alive (mean probability that the dream has not ended: what follows an ending was never trained),
    memory_megabytes (of this process; None where the system does not tell). `real` has the first three of the real
    frames that follow the same starts. The frames returned are those of the first row at each measurement,
    (measurements, H, W, C).
    """
    actions = repeated_actions(stretches, steps)
    every = max(1, steps // MEASUREMENTS)
    known = stretches.future[stretches.future_present]  # (frames, H, W, C)
    result: dict[str, Any] = {"steps_measured": [], "memory_megabytes": [], "alive": [], "rows": len(stretches)}
    names = ("latent_rms", "sharpness", "round_trip")
    result |= {name: [] for name in names}
    shown: list[NDArray[np.uint8]] = []
    alive = torch.ones(len(stretches))
    state = start_dreams(model, stretches, seed=seed)
    for t in range(1, steps + 1):
        state, step = model.step(state, actions[:, t - 1], temperature=temperature)
        alive *= 1 - step.termination_probability.float().cpu()
        if on_frames is not None:
            on_frames(len(stretches))
        if t == 1 or t % every == 0:
            *looks, frames = _looks(model, step.latents.float().cpu())
            for name, value in zip(names, looks, strict=True):
                result[name].append(value)
            shown.append(frames[0])
            result["steps_measured"].append(t)
            result["alive"].append(float(alive.mean()))
            result["memory_megabytes"].append(resident_megabytes())
    *looks, _ = _looks(model, encode(model, known[None])[0].cpu())
    return {**result, "real": dict(zip(names, looks, strict=True))}, np.stack(shown)


def sharpness(frames: Tensor) -> float:
    """Mean absolute difference of neighbouring pixels, grey levels, of uint8 frames (B, H, W, C)."""
    grey = frames.float().mean(-1)
    across, down = (grey.diff(dim=dimension).abs().mean() for dimension in (1, 2))
    return float(across + down) / 2


def resident_megabytes() -> float | None:
    """Memory that this process holds now; None where the system has no /proc."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith("VmRSS:")), None)
    return None if kilobytes is None else int(kilobytes) / 1024


def _looks(model: WorldModel, latents: Tensor) -> tuple[float, float, float, NDArray[np.uint8]]:
    """latent_rms, sharpness and round_trip of latents (B, N, D), and their frames (B, H, W, C)."""
    frames = decode(model, latents[None])[0]
    shown = torch.from_numpy(frames)
    back = encode(model, shown[None])[0].cpu()
    size = latents.square().mean().sqrt().clamp(min=1e-9)
    return float(size), sharpness(shown), float((back - latents).square().mean().sqrt() / size), frames
