"""How fast a model dreams and learns on this machine.

    python -m benchmarks.throughput --model take_cover --json throughput.json
    python -m benchmarks.throughput --model runs/mine --threads 2 --last-step 100000

Frames a second of dreams with everything that an env step brings (reward, ending, uncertainty), with and without the
decoded picture; what a step costs late in a rollout against early; training of the tokenizer, the dynamics and an
agent at the model's own settings. Beside them stands the machine's matrix rate, measured then and there, in bf16 where
it is used. Of a run folder also the share of each stage in its time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from benchmarks.training_step import dynamics_training, matrix_rate, own_shapes_rate, timed
from worldsim.agents.actor_critic import ActorCriticLearner
from worldsim.agents.config import ActorCriticConfig
from worldsim.data.files import write_json
from worldsim.device import autocast, describe
from worldsim.dream import DreamVectorEnv
from worldsim.memory import keep_freed_memory
from worldsim.model_folder import find_model
from worldsim.tokenizers.loss import reconstruction_loss
from worldsim.tokenizers.pixel_range import to_model_range
from worldsim.tokenizers.vit import VitTokenizer
from worldsim.workflow.showing import load_here
from worldsim.world_model import WorldModel, row_generator

BATCHES = (1, 16, 64, 256)
SAMPLING_STEPS = (1, 2, 4)
MILESTONES = (10, 100, 500, 5000)
MEDIAN_OF = 40  # steps from each milestone on
AGENT_ROWS = 64


def main() -> None:
    """Measure, print, write."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    model = load_here(find_model(arguments.model))
    device, dtype = model.device, model.dtype

    report: dict[str, Any] = {"model": arguments.model, "machine": machine(device, dtype)}
    here = report["machine"]
    print(f"{arguments.model} on {here['processor']}, {arguments.threads} thread(s), {here['device']}")
    report["matrix_gflops"] = {
        name: matrix_rate(precision, device) / 1e9
        for name, precision in (("bf16", torch.bfloat16), ("fp32", torch.float32))
        if precision in (dtype, torch.float32)  # emulated, bf16 would take minutes
    }
    print(
        "matrix products:", ", ".join(f"{rate:.0f} GFLOP/s in {name}" for name, rate in report["matrix_gflops"].items())
    )

    table = dream_rates(model, arguments.batches, arguments.seconds)
    report["dream_frames_per_second_table"] = table
    default = model.dynamics.config.sampling_steps
    report["default_sampling_steps"] = default
    report["dream_frames_per_second"] = {batch: rates["decoded"][str(default)] for batch, rates in table.items()}

    report |= rollout_cost(model, arguments.last_step)
    report |= training_rates(model, dtype, arguments.seconds)
    report |= agent_rate(model)
    report["peak_memory_mb"] = peak_memory()
    if device.type == "cuda":
        report["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / 1e6
        print(f"peak GPU memory {report['peak_gpu_memory_mb']:.0f} MB")
    if (Path(arguments.model) / "seconds.json").exists():
        report["stage_shares"] = stage_shares(Path(arguments.model))
        print("stages:", ", ".join(f"{name} {share:.0%}" for name, share in report["stage_shares"].items()))
    print(f"peak memory {report['peak_memory_mb']:.0f} MB")
    if arguments.json:
        write_json(arguments.json, report)


def dream_rates(model: WorldModel, batches: list[int], seconds: float) -> dict[str, dict[str, dict[str, float]]]:
    """Frames a second, [batch]["decoded" or "latent"][sampling steps], of a DreamVectorEnv that is stepped."""
    own = model.dynamics.config
    model.dynamics.config = replace(own, shortcut_fraction=1.0)  # steps not trained for take as long as if they were
    choices = set(model.dynamics.sampling_choices)
    steps_tried = sorted({*SAMPLING_STEPS, model.dynamics.config.sampling_steps} & choices)
    print(
        "dream frames/s    "
        + "".join(f"{f'{steps} steps':>12}" for steps in steps_tried)
        + "   (decoded / latents alone)"
    )
    table: dict[str, dict[str, dict[str, float]]] = {}
    for batch in batches:
        rates: dict[str, dict[str, float]] = {"decoded": {}, "latent": {}}
        for kind, observation in (("decoded", "pixels"), ("latent", "latent")):
            for steps in steps_tried:
                rows = DreamVectorEnv(
                    model, batch, observation=observation, sampling_steps=steps, max_episode_steps=10_000
                )
                rows.reset(seed=0)
                actions = rows.action_space.sample()
                step = cast(Callable[[], object], lambda rows=rows, actions=actions: rows.step(actions))
                rates[kind][str(steps)] = batch / seconds_per_call(step, model.device, seconds)
        table[str(batch)] = rates
        cells = [f"{rates['decoded'][str(steps)]:5.0f}/{rates['latent'][str(steps)]:5.0f}" for steps in steps_tried]
        print(f"  batch {batch:<10}" + "".join(f"{cell:>12}" for cell in cells), flush=True)
    model.dynamics.config = own
    return table


def seconds_per_call(action: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Median of as many calls as fit in `seconds`, at least five, after two that do not count."""
    for _ in range(2):
        action()
    taken: list[float] = []
    while len(taken) < 5 or sum(taken) < seconds:
        taken.append(timed(action, device))
    return statistics.median(taken)


def rollout_cost(model: WorldModel, last_step: int) -> dict[str, Any]:
    """Seconds of a decoded step of one dream at each milestone, and how the peak memory grew after the third."""
    state = model.start_from(model.start_contexts.rows(torch.zeros(1, dtype=torch.long)), [row_generator(0)])
    action = torch.from_numpy(np.zeros((1, *model.spec.action_shape), model.spec.action_dtype))
    seconds: list[float] = []
    memory = {}
    milestones = sorted({k for k in MILESTONES if k < last_step} | {last_step})

    def advance() -> None:
        nonlocal state
        state, step = model.step(state, action)
        model.decode(step.latents)

    for k in range(last_step + MEDIAN_OF):
        seconds.append(timed(advance, model.device))
        if k in milestones:
            memory[k] = peak_memory()
    cost = {str(k): statistics.median(seconds[k : k + MEDIAN_OF]) for k in milestones}
    ratio = cost[str(last_step)] / cost[str(milestones[0])]
    growth = memory[last_step] - memory[milestones[min(2, len(milestones) - 1)]]
    print("one dream, ms a step:", ", ".join(f"{1e3 * value:.1f} at step {k}" for k, value in cost.items()))
    print(f"  step {last_step} costs {ratio:.2f} of step {milestones[0]}; memory grew by {growth:.1f} MB")
    return {"seconds_at_step": cost, "horizon_ratio": ratio, "memory_growth_mb": growth}


def training_rates(model: WorldModel, dtype: torch.dtype, seconds: float) -> dict[str, Any]:
    """Frames a second in training, of the tokenizer and the dynamics at the model's own batch sizes."""
    report: dict[str, Any] = {}
    tokenizer = model.tokenizer
    if isinstance(tokenizer, VitTokenizer):
        rate = tokenizer_training_rate(tokenizer, model.spec.frame_shape, dtype, seconds)
        report["tokenizer_training_frames_per_second"] = rate
        print(f"training the tokenizer: {rate:.0f} frames/s")
    training = dynamics_training(
        model.dynamics.config, *model.latent_shape, tokenizer.grid, model.spec, model.device, dtype
    )
    own = own_shapes_rate(training, dtype, model.device)
    square = matrix_rate(dtype, model.device)
    report["dynamics_training_frames_per_second"] = training.frames / training.seconds
    report["dynamics_training_gflops"] = training.work / training.seconds / 1e9
    report["own_shapes_gflops"] = own / 1e9
    report["training_matrix_fraction"] = training.work / training.seconds / own
    report["training_square_fraction"] = training.work / training.seconds / square
    print(
        f"training the dynamics: {report['dynamics_training_frames_per_second']:.0f} frames/s, "
        f"{report['dynamics_training_gflops']:.0f} GFLOP/s: {report['training_matrix_fraction']:.0%} of the rate of "
        f"its own products ({own / 1e9:.0f}), {report['training_square_fraction']:.0%} of a large square one"
    )
    return report


def tokenizer_training_rate(
    tokenizer: VitTokenizer, frame_shape: tuple[int, int, int], dtype: torch.dtype, seconds: float
) -> float:
    """Frames a second of forward and backward passes on noise; the optimizer's part is small."""
    frames = torch.randint(256, (tokenizer.config.batch_frames, *frame_shape), dtype=torch.uint8)
    inputs = to_model_range(frames.to(next(tokenizer.parameters()).device))
    learner = VitTokenizer(tokenizer.config, frame_shape).to(inputs.device)
    mask = learner.draw_mask(len(inputs), torch.Generator(inputs.device).manual_seed(0))

    def step() -> None:
        with autocast(inputs.device, dtype):
            rebuilt = learner.decode_range(learner.encode_range(inputs, mask))
        torch.autograd.backward(reconstruction_loss(rebuilt, inputs, learner.config.contrast_weight).loss)

    return len(inputs) / seconds_per_call(step, inputs.device, seconds)


def agent_rate(model: WorldModel) -> dict[str, float]:
    """Updates a second of the actor-critic with its default settings in this dream."""
    rows = DreamVectorEnv(model, AGENT_ROWS, observation="features", max_episode_steps=32, array="torch")
    learner = ActorCriticLearner(ActorCriticConfig(), rows, device=model.device)
    learner.update()
    metrics = [learner.update() for _ in range(2)]
    rate = statistics.mean(part["steps_per_second"] for part in metrics) / (AGENT_ROWS * learner.config.horizon)
    print(f"agent: {rate:.2f} updates/s of {AGENT_ROWS} rows, {learner.config.horizon} steps each")
    return {"agent_updates_per_second": rate}


def stage_shares(run: Path) -> dict[str, float]:
    """Share of each kind of stage in the time of a run, rounds added up."""
    seconds: dict[str, float] = json.loads((run / "seconds.json").read_text(encoding="utf-8"))
    kinds: dict[str, float] = {}
    for name, value in seconds.items():
        kind = name.split(": ")[-1]
        kinds[kind] = kinds.get(kind, 0.0) + value
    return {name: value / sum(kinds.values()) for name, value in kinds.items()}


def machine(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Where and with what this was measured."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": describe(device, dtype),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip() or "unknown",
    }


def peak_memory() -> float:
    """Of this process so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="take_cover", help="a released model's name, a model folder, or a run folder"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default: 1, one core)")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), help="rows dreamt at once")
    parser.add_argument("--seconds", type=float, default=3.0, help="of measuring each figure (default: 3)")
    parser.add_argument("--last-step", type=int, default=5000, help="of the long rollout (default: 5000)")
    parser.add_argument("--json", type=Path, help="file for the report")
    return parser.parse_args()


if __name__ == "__main__":
    main()
