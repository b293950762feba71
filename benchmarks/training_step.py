"""Where a training step of the dynamics goes, and what share of the machine's matrix rate it reaches.

    python -m benchmarks.training_step configs/take_cover.yaml
    python -m benchmarks.training_step configs/take_cover.yaml dynamics.size=small threads=1

Random latents stand in for data: the time of a step does not depend on what they say. The matrix rate is that of one
large square product in the same precision, measured then and there: what the machine could do if nothing but such
products had to be done.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from worldsim.config import load_config
from worldsim.data.actions import action_feature_count
from worldsim.device import autocast, describe
from worldsim.dynamics.dit_dynamics import DiTDynamics
from worldsim.dynamics.protocol import LatentClip
from worldsim.optimization import OPTIMIZERS
from worldsim.tokenizers.build import build_tokenizer
from worldsim.workflow.config import RunConfig
from worldsim.workflow.run import choose_machine
from worldsim.workflow.stages import environment_spec

SQUARE = 2048
REPEATS = 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    config = load_config(RunConfig, arguments.config, arguments.overrides)
    machine = choose_machine(config)
    device, dtype = machine.device, machine.dtype

    spec = environment_spec(config)
    tokenizer = build_tokenizer(config.tokenizer, spec.frame_shape)
    tokens, channels = tokenizer.latent_shape
    model = DiTDynamics(config.dynamics, tokens, channels, tokenizer.grid, action_feature_count(spec)).to(device)
    optimizers = OPTIMIZERS[config.dynamics.optimizer](model, 1e-4, config.dynamics.weight_decay)
    clip = random_clip(config.dynamics.batch_clips, config.dynamics.clip_frames, model, device)
    generator = torch.Generator().manual_seed(0)

    def forward() -> torch.Tensor:
        with autocast(device, dtype):
            return model.loss(clip, generator=generator)[0]

    def update() -> None:
        for optimizer in optimizers:
            optimizer.step()

    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(forward())
    work = counter.get_total_flops()
    update()  # a first step allocates

    def step() -> dict[str, float]:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        losses: list[torch.Tensor] = []
        return {
            "forward": timed(lambda: losses.append(forward()), device),
            "backward": timed(lambda: torch.autograd.backward(losses[0]), device),
            "optimizer": timed(update, device),
        }

    steps = [step() for _ in range(REPEATS)]
    parts = {name: statistics.median(seconds[name] for seconds in steps) for name in steps[0]}
    whole = sum(parts.values())
    rate = matrix_rate(dtype, device)

    frames = config.dynamics.batch_clips * config.dynamics.clip_frames
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(describe(device, dtype))
    print(f"{config.dynamics.size}, {parameters / 1e6:.1f}M parameters, {frames} frames of {tokens}x{channels} a step")
    for name, value in parts.items():
        print(f"  {name:10}{value:8.3f} s  {value / whole:4.0%}")
    print(f"  {'a step':10}{whole:8.3f} s  {frames / whole:.0f} frames/s")
    print(f"matrix products of a step: {work / 1e9:.0f} GFLOP, so {work / whole / 1e9:.0f} GFLOP/s over the whole step")
    print(f"one product of {SQUARE} cubed: {rate / 1e9:.0f} GFLOP/s; the step reaches {work / whole / rate:.0%} of it")


def random_clip(batch: int, frames: int, model: DiTDynamics, device: torch.device) -> LatentClip:
    """A clip (batch, frames) without endings, of unit normal latents and random actions."""
    generator = torch.Generator().manual_seed(0)
    ones = torch.ones(batch, frames, dtype=torch.bool, device=device)
    return LatentClip(
        latents=torch.randn(batch, frames, *model.latent_shape, generator=generator).to(device),
        actions=torch.randn(batch, frames, model.action_features, generator=generator).to(device),
        has_action=ones,
        rewards=ones.float(),
        terminated=~ones,
        present=ones,
        frame_valid=ones,
        head_weight=ones.float(),
    )


def matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Floating-point operations per second of one square product, the best of a few."""
    left, right = (torch.randn(SQUARE, SQUARE, device=device).to(dtype) for _ in range(2))
    return 2 * SQUARE**3 / min(timed(lambda: left @ right, device) for _ in range(REPEATS + 1))


def timed(action: Callable[[], object], device: torch.device) -> float:
    """Seconds that `action` takes."""
    start = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
