"""Where a training step of the dynamics goes, and what share of the machine's matrix rate it reaches.

    python -m benchmarks.training_step configs/take_cover.yaml
    python -m benchmarks.training_step configs/take_cover.yaml dynamics.size=small threads=1

Random latents stand in for data: the time of a step does not depend on what they say. The matrix rate is that of one
large square product in the same precision, measured then and there: what the machine could do if nothing but such
products had to be done.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from worldsim.config import load_config
from worldsim.cuda_graphs import EAGER_CALLS
from worldsim.data.actions import action_feature_count
from worldsim.data.episode import EnvSpec
from worldsim.descent import Descent
from worldsim.device import autocast, describe
from worldsim.dynamics.config import DynamicsConfig
from worldsim.dynamics.dit_dynamics import DiTDynamics
from worldsim.dynamics.protocol import LatentClip
from worldsim.optimization import build_optimizers
from worldsim.tokenizers.build import build_tokenizer
from worldsim.workflow.config import RunConfig
from worldsim.workflow.machine import choose_machine
from worldsim.workflow.real_episodes import environment_spec

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
    training = dynamics_training(config.dynamics, *tokenizer.latent_shape, tokenizer.grid, spec, device, dtype)
    square, own = matrix_rate(dtype, device), own_shapes_rate(training, dtype, device)

    size = f"{training.parameters / 1e6:.1f}M parameters"
    tokens, channels = tokenizer.latent_shape
    print(describe(device, dtype))
    print(f"{config.dynamics.size}, {size}, {training.frames} frames of {tokens}x{channels} a step")
    for name, value in training.parts.items():
        print(f"  {name:10}{value:8.3f} s  {value / training.seconds:4.0%}")
    rate = training.work / training.seconds
    print(f"  {'a step':10}{training.seconds:8.3f} s  {training.frames / training.seconds:.0f} frames/s")
    print(
        f"matrix products of a step: {training.work / 1e9:.0f} GFLOP, so {rate / 1e9:.0f} GFLOP/s over the whole step"
    )
    print(f"one product of {SQUARE} cubed: {square / 1e9:.0f} GFLOP/s; the step reaches {rate / square:.0%} of it")
    print(f"products of the model's own shapes: {own / 1e9:.0f} GFLOP/s; the step reaches {rate / own:.0%} of it")


@dataclass(frozen=True)
class Training:
    """A step of training the dynamics.

    parts: seconds of "forward", "backward" and "optimizer", medians; on a GPU "recorded" alone, all three in one. work:
    floating-point operations of the matrix products. frames: of the clips. shapes: (rows, inputs, outputs) of each
    linear layer, once for each pass.
    """

    parts: dict[str, float]
    work: int
    frames: int
    parameters: int
    shapes: list[tuple[int, int, int]]

    @property
    def seconds(self) -> float:
        """Of a whole step."""
        return sum(self.parts.values())


def dynamics_training(
    config: DynamicsConfig,
    tokens: int,
    channels: int,
    grid: tuple[int, int],
    spec: EnvSpec,
    device: torch.device,
    dtype: torch.dtype,
) -> Training:
    """Time a few steps of training on random clips of the configured size."""
    model, clip, optimizers = untrained(config, tokens, channels, grid, spec, device, dtype)
    generator = torch.Generator(device).manual_seed(0)
    shapes: list[tuple[int, int, int]] = []

    def forward() -> torch.Tensor:
        with autocast(device, dtype):
            return model.loss(clip, generator=generator)[0]

    def update() -> None:
        for optimizer in optimizers:
            optimizer.step()

    def note(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(layer, torch.nn.Linear)
        shapes.append((inputs[0].numel() // layer.in_features, layer.in_features, layer.out_features))

    hooks = [layer.register_forward_pre_hook(note) for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(forward())
    for hook in hooks:
        hook.remove()
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
    if device.type == "cuda":
        parts = {"recorded": recorded_step(model, clip, optimizers, dtype)}
    return Training(
        parts=parts,
        work=counter.get_total_flops(),
        frames=config.batch_clips * config.clip_frames,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        shapes=shapes,
    )


def untrained(
    config: DynamicsConfig,
    tokens: int,
    channels: int,
    grid: tuple[int, int],
    spec: EnvSpec,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[DiTDynamics, LatentClip, list[torch.optim.Optimizer]]:
    """Dynamics of these settings, a random clip to train them on, and their optimizers."""
    model = DiTDynamics(config, tokens, channels, grid, action_feature_count(spec)).to(device)
    optimizers = build_optimizers(config.optimizer, model, 1e-4, config.weight_decay, dtype)
    return model, random_clip(config.batch_clips, config.clip_frames, model, device), optimizers


def recorded_step(
    model: DiTDynamics, clip: LatentClip, optimizers: list[torch.optim.Optimizer], dtype: torch.dtype
) -> float:
    """Median seconds of a whole step as a learner takes it on a GPU, recorded as a CUDA graph."""

    def loss(*tensors: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        with autocast(clip.latents.device, dtype):
            return model.loss(LatentClip(*tensors), generator=descent.noise)

    average = copy.deepcopy(model).requires_grad_(False)
    settings = {"gradient_clip": 1.0, "ema_decay": 0.99}
    descent = Descent(loss, model, average, optimizers, generator=torch.Generator(), recordable=True, **settings)
    batch = list(vars(clip).values())
    for _ in range(EAGER_CALLS + 2):
        descent.step(batch, 1e-4, 1)
    return statistics.median(timed(lambda: descent.step(batch, 1e-4, 1), clip.latents.device) for _ in range(20))


def own_shapes_rate(training: Training, dtype: torch.dtype, device: torch.device) -> float:
    """Floating-point operations per second of the forward products of all linear layers, nothing between them."""
    operations, seconds = 0, 0.0
    for shape in set(training.shapes):
        rows, inputs, outputs = shape
        times = training.shapes.count(shape)
        left, right = (torch.randn(count, inputs, device=device).to(dtype) for count in (rows, outputs))
        seconds += times * min(timed(lambda: F.linear(left, right), device) for _ in range(REPEATS + 1))  # noqa: B023
        operations += times * 2 * rows * inputs * outputs
    return operations / seconds


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
    _wait_for(device)
    start = time.perf_counter()
    action()
    _wait_for(device)
    return time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
