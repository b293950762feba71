"""Which operators a dreamt step and a training step of the dynamics are made of, in CPU time.

    python -m benchmarks.operator_times --model take_cover --rows 64

The CPU time of every single call is read, in its place between the others: what a profiler counts by the clock is
partly what other processes took, and an operator that is timed by itself finds its numbers in the cache. Reading the
clock takes time of its own, a microsecond or two for each call, so the operators together come to about as much as a
whole step, which is measured without it, Python included; shares are those of the operators' sum.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.training_step import untrained
from worldsim.device import autocast, choose_precision, describe
from worldsim.dream import DreamVectorEnv
from worldsim.errors import UserError
from worldsim.memory import keep_freed_memory
from worldsim.model_folder import find_model, load_model
from worldsim.world_model import WorldModel

WARM_UP, TIMED = 5, 20  # steps
LARGEST = 12  # calls that are listed by themselves
REST = "views and everything else"
KINDS = {
    "products with weights": ("linear", "mm", "addmm"),
    "products of attention and of Muon": ("matmul", "bmm", "baddbmm"),
    "norms and softmax": ("linalg_vector_norm", "layer_norm", "norm", "softmax", "exp", "threshold"),
    "sums and factors": ("add", "sub", "mul", "div", "addcmul", "sum", "mean", "square", "pow", "rsqrt", "lerp"),
    "activations": ("silu", "silu_backward", "gelu", "gelu_backward", "sigmoid", "tanh", "native_dropout"),
    "copies": (
        "copy_",
        "clone",
        "cat",
        "stack",
        "roll",
        "to",
        "_to_copy",
        "contiguous",
        "reshape",
        "index",
        "index_put",
    ),
    "random numbers": ("randn", "rand", "randint", "normal_", "bernoulli_", "random_"),
}


@dataclass(frozen=True)
class Call:
    """An operator on tensors of certain shapes."""

    operator: str
    shapes: tuple[tuple[int, ...], ...]

    @property
    def kind(self) -> str:
        """A key of KINDS, or REST."""
        names = {self.operator, self.operator.rstrip("_")}  # mul_ is mul
        return next((kind for kind, operators in KINDS.items() if names & set(operators)), REST)


@dataclass(frozen=True)
class Times:
    """A step: CPU seconds of all of it, and of each of its calls the seconds and how often it is made."""

    whole: float
    calls: dict[Call, tuple[float, float]]

    def by_kind(self) -> dict[str, tuple[float, float]]:
        """Seconds and calls of each kind, the longest first."""
        kinds: dict[str, tuple[float, float]] = {}
        for call, (seconds, count) in self.calls.items():
            before = kinds.get(call.kind, (0.0, 0.0))
            kinds[call.kind] = before[0] + seconds, before[1] + count
        return dict(sorted(kinds.items(), key=lambda item: -item[1][0]))


class _Clock(TorchDispatchMode):
    """Notes the CPU time of each operator while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds: dict[Call, float] = defaultdict(float)
        self.counts: dict[Call, int] = defaultdict(int)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        begin = time.process_time()
        answer = function(*args, **(kwargs or {}))
        spent = time.process_time() - begin
        call = Call(function.overloadpacket.__name__, tuple(_shapes(args)))
        self.seconds[call] += spent
        self.counts[call] += 1
        return answer


def operator_times(step: Callable[[], Any], warm_up: int = WARM_UP, timed: int = TIMED) -> Times:
    """Of a step that is made again and again."""
    for _ in range(warm_up):
        step()
    whole = []
    for _ in range(timed):
        begin = time.process_time()
        step()
        whole.append(time.process_time() - begin)
    with _Clock() as clock:
        for _ in range(timed):
            step()
    calls = {call: (seconds / timed, clock.counts[call] / timed) for call, seconds in clock.seconds.items()}
    return Times(statistics.mean(whole), calls)


def dream_step(model: WorldModel, rows: int) -> Callable[[], Any]:
    """Dreams and decodes a frame in each row, and begins ended rows anew."""
    env = DreamVectorEnv(model, rows, observation="pixels", max_episode_steps=10_000)
    env.reset(seed=0)
    actions = env.action_space.sample()
    return lambda: env.step(actions)


def training_step(model: WorldModel) -> Callable[[], Any]:
    """A step of untrained dynamics of the model's settings, the optimizer included. UserError for others than a DiT."""
    config = model.dynamics.config
    if config.kind != "dit":
        raise UserError(f"dynamics of kind {config.kind!r}: the training step of a DiT alone is measured")
    grid, device = model.tokenizer.grid, model.device
    dynamics, clip, optimizers = untrained(config, *model.latent_shape, grid, model.spec, device, model.dtype)
    generator = torch.Generator(device).manual_seed(0)

    def step() -> None:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        with autocast(device, model.dtype):
            loss, _ = dynamics.loss(clip, generator=generator)
        torch.autograd.backward(loss)
        for optimizer in optimizers:
            optimizer.step()

    return step


def table(name: str, times: Times) -> str:
    """Markdown: milliseconds, share and calls of each kind, then of the calls that take longest."""
    lines = [f"| {name}: {1e3 * times.whole:.1f} ms | ms | share | calls |", "| --- | --- | --- | --- |"]
    total = sum(seconds for seconds, _ in times.calls.values())

    def rows(named: Iterable[tuple[str, tuple[float, float]]]) -> list[str]:
        return [f"| {n} | {1e3 * seconds:.1f} | {seconds / total:.0%} | {calls:.0f} |" for n, (seconds, calls) in named]

    longest = sorted(times.calls.items(), key=lambda item: -item[1][0])[:LARGEST]
    lines += [*rows(times.by_kind().items()), "| *the longest calls* | | | |"]
    return "\n".join([*lines, *rows((_shown(call), spent) for call, spent in longest)])


def _shown(call: Call) -> str:
    return f"{call.operator} {', '.join('x'.join(map(str, shape)) for shape in call.shapes)}"


def _shapes(arguments: Iterable[Any]) -> Iterable[tuple[int, ...]]:
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield tuple(argument.shape)
        elif isinstance(argument, (list, tuple)):
            yield from _shapes(argument)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="take_cover", help="a released model's name, a model folder, or a run folder"
    )
    parser.add_argument("--rows", type=int, default=64, help="dreamt at once (default: 64)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    cpu = torch.device("cpu")
    model = load_model(find_model(arguments.model), dtype=choose_precision("auto", cpu))
    print(f"{describe(cpu, model.dtype)}, one thread\n")
    print(table(f"a dreamt step of {arguments.rows} rows", operator_times(dream_step(model, arguments.rows), timed=60)))
    print()
    print(table("a training step of its dynamics", operator_times(training_step(model))))


if __name__ == "__main__":
    main()
