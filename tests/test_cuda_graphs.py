"""What is recorded as a CUDA graph does what the plain calls do. On a CPU: the very functions that a GPU records."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.worlds import tiny_world
from worldsim.cuda_graphs import EAGER_CALLS, LARGEST_COUNT, Recorder
from worldsim.descent import Descent
from worldsim.dream import DreamVectorEnv
from worldsim.dynamics.dit_dynamics import DiTDynamics, DiTState
from worldsim.dynamics.recorded import RecordedSteps
from worldsim.optimization import build_optimizers
from worldsim.world_model import WorldModel, row_generator

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Network(nn.Module):
    """A stack with what the optimizers treat differently: matrices of blocks, others and biases."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.output = nn.Linear(6, 1)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        for block in self.blocks:
            inputs = torch.tanh(block(inputs))
        return cast(Tensor, self.output(inputs))


def descent(optimizer: str, device: str = "cpu", recordable: bool = False) -> tuple[Descent, Network, Network]:
    torch.manual_seed(0)
    network = Network().to(device)
    average = copy.deepcopy(network).requires_grad_(False)

    def loss(inputs: Tensor, wanted: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        error = (network(inputs) - wanted).square().mean()
        cast(Tensor, network.seen).add_(1)
        return error, {"error": error.detach()}

    optimizers = build_optimizers(optimizer, network, 0.1, 0.1, torch.bfloat16)
    steps = Descent(
        loss,
        network,
        average,
        optimizers,
        gradient_clip=1.0,
        ema_decay=0.9,
        generator=torch.Generator(),
        recordable=recordable,
    )
    return steps, network, average


def batches(device: str = "cpu") -> list[tuple[Tensor, Tensor, float]]:
    """Inputs, answers and learning rates of eight steps."""
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(5, 6, generator=generator) for _ in range(8)]
    return [
        (each.to(device), each.sum(1, keepdim=True).to(device), 0.05 / (1 + step)) for step, each in enumerate(inputs)
    ]


def same_networks(first: nn.Module, second: nn.Module, tolerance: float = 1e-6) -> None:
    for name, value in first.state_dict().items():
        torch.testing.assert_close(value.cpu(), second.state_dict()[name].cpu(), rtol=1e-4, atol=tolerance, msg=name)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_step_of_rate_one_goes_the_share_that_is_due(optimizer: str) -> None:
    plain, network, average = descent(optimizer)
    recorded, same, same_average = descent(optimizer)
    for step, (inputs, wanted, rate) in enumerate(batches(), start=1):
        expected = plain.step((inputs, wanted), rate, step)
        rates = torch.tensor([rate, 1 - min(0.9, step / (step + 9.0))])
        loss, norm, error = recorded._recorded(inputs, wanted, rates)
        torch.testing.assert_close([loss, norm, error], [expected[key] for key in ("loss", "grad_norm", "error")])
        same_networks(network, same)
        same_networks(average, same_average)


@needs_gpu
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_recorded_steps_are_those_of_a_cpu(optimizer: str) -> None:
    plain, network, average = descent(optimizer)
    recorded, same, same_average = descent(optimizer, "cuda", recordable=True)
    for step, ((inputs, wanted, rate), (inputs_there, wanted_there, _)) in enumerate(
        zip(batches(), batches("cuda"), strict=True), start=1
    ):
        expected = plain.step((inputs, wanted), rate, step)
        got = recorded.step((inputs_there, wanted_there), rate, step)
        torch.testing.assert_close(float(got["loss"]), float(expected["loss"]), rtol=1e-3, atol=1e-4)
    same_networks(network, same, tolerance=2e-3)  # Muon multiplies matrices in bfloat16
    same_networks(average, same_average, tolerance=2e-3)


def test_a_clock_that_is_a_tensor_shows_the_same_time() -> None:
    world = tiny_world()
    dynamics = cast(DiTDynamics, world.dynamics)
    state = world.start_from(world.start_contexts.rows(torch.tensor([0, 7])), [row_generator(0), row_generator(1)])
    plain, recorded = (cast(DiTState, state.dynamics.clone()) for _ in range(2))
    steps = RecordedSteps(dynamics)
    for number in range(6):  # beyond the window of 4
        actions = torch.eye(3)[[number % 3, 1]]
        noise = torch.randn(2, 2, *world.latent_shape, generator=torch.Generator().manual_seed(number))
        plain, expected = dynamics.step(plain, actions, noise, 2, torch.ones(1))
        given = (recorded.memory, recorded.filled, recorded.previous, recorded.belief, torch.tensor([recorded.clock]))
        memory, filled, previous, belief, *outcome = steps._step(2, *given, actions, noise, torch.ones(1))
        recorded = DiTState(memory, filled, previous, belief, cast(int, recorded.clock) + 1)
        torch.testing.assert_close(outcome, list(vars(expected).values()))
        torch.testing.assert_close(recorded.memory, plain.memory)


def dreamt(world: WorldModel) -> np.ndarray[Any, Any]:
    rows = DreamVectorEnv(world, 3, max_episode_steps=5)
    frames = [rows.reset(seed=0)[0]]
    frames += [rows.step(np.array([t % 3, 1, 2]))[0] for t in range(12)]
    return np.stack(frames).astype(int)


@needs_gpu
def test_recorded_dreams_are_those_of_a_cpu() -> None:
    world = tiny_world()
    there = WorldModel(
        world.spec, copy.deepcopy(world.tokenizer), copy.deepcopy(world.dynamics), world.start_contexts, device="cuda"
    )
    np.testing.assert_allclose(dreamt(there), dreamt(world), atol=2)


@needs_gpu
def test_a_recording_draws_anew_each_time_and_keeps_what_it_was_given() -> None:
    generator = torch.Generator("cuda").manual_seed(0)

    def noisy(values: Tensor) -> tuple[Tensor, ...]:
        return (values + torch.rand(values.shape, generator=generator, device="cuda"),)

    recorder = Recorder(noisy, generators=[generator])
    given = torch.zeros(4, device="cuda")
    drawn = [recorder(given)[0] for _ in range(EAGER_CALLS + 3)]
    assert len({tuple(each.tolist()) for each in drawn}) == len(drawn)
    generator.manual_seed(5)
    first = recorder(given)[0]
    generator.manual_seed(5)
    torch.testing.assert_close(recorder(given + 1)[0], first + 1)
    assert not given.any()


class PlainGraph:
    """Stands for a CUDA graph where there is no GPU: it holds what was given when it was recorded."""

    def replay(self) -> None:
        pass


def test_it_records_shapes_that_it_meets_often_and_flags_optimizers_only_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "CUDAGraph", PlainGraph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: nullcontext())
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))])
    seen: list[bool] = []

    def function(values: Tensor) -> tuple[Tensor, ...]:
        seen.append(optimizer.param_groups[0]["capturable"])
        return (values + 1,)

    recorder = Recorder(function, optimizers=[optimizer])
    for size in range(1, LARGEST_COUNT + 2):
        seen.clear()
        for _ in range(EAGER_CALLS + 3):
            given = torch.zeros(size)
            torch.testing.assert_close(recorder(given)[0], torch.ones(size))
        recorded = size <= LARGEST_COUNT
        assert seen == [False] * EAGER_CALLS + ([True] if recorded else [False] * 3)
        assert not optimizer.param_groups[0]["capturable"]


def test_a_recording_that_fails_leaves_the_optimizer_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "CUDAGraph", PlainGraph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: nullcontext())
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))])

    def function(values: Tensor) -> tuple[Tensor, ...]:
        if optimizer.param_groups[0]["capturable"]:
            raise RuntimeError("not permitted while a stream is capturing")
        return (values,)

    recorder = Recorder(function, optimizers=[optimizer])
    for _ in range(EAGER_CALLS):
        recorder(torch.zeros(1))
    with pytest.raises(RuntimeError, match="capturing"):
        recorder(torch.zeros(1))
    assert not optimizer.param_groups[0]["capturable"]
