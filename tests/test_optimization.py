"""The learning-rate schedule, the optimizers' groups and the averaged weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from worldsim.muon import Muon, orthogonal
from worldsim.optimization import (
    OPTIMIZERS,
    adamw,
    average_decay,
    average_weights,
    build_optimizers,
    muon_and_adamw,
    warmup_cosine,
)


def test_schedule_warms_up_and_decays_to_a_tenth() -> None:
    values = [warmup_cosine(step, 10, 110) for step in range(111)]
    assert values[0] == pytest.approx(0.1)
    assert values[9] == values[10] == pytest.approx(1.0)
    assert values[60] == pytest.approx(0.55)
    assert values[110] == pytest.approx(0.1)
    assert warmup_cosine(1000, 10, 110) == pytest.approx(0.1)
    assert warmup_cosine(0, 0, 0) == pytest.approx(1.0)


def test_only_matrices_of_layers_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    model.register_parameter("positions", nn.Parameter(torch.zeros(5, 4)))
    (optimizer,) = adamw(model, 0.1, 0.5)
    decays, rests = optimizer.param_groups
    assert [tuple(parameter.shape) for parameter in decays["params"]] == [(4, 3)]
    assert decays["weight_decay"] == 0.5
    assert rests["weight_decay"] == 0.0
    assert len(rests["params"]) == 4


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_parameter_has_exactly_one_optimizer(name: str) -> None:
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(4, 4)]), "output": nn.Linear(4, 2)})
    optimizers = build_optimizers(name, model, 0.1, 0.0, torch.float32)
    held = [id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())


def test_muon_takes_the_matrices_of_the_modules_that_are_named() -> None:
    model = nn.ModuleDict({"read": nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), "reader": nn.Linear(4, 2)})
    muon, others = muon_and_adamw(model, 0.1, 0.0, torch.float32, hidden=["read"])
    shapes = [tuple(p.shape) for group in muon.param_groups for p in group["params"]]
    assert shapes == [(3, 4), (2, 3)]
    assert sum(len(group["params"]) for group in others.param_groups) == 4


def test_the_average_begins_as_a_mean_and_ends_as_a_moving_average() -> None:
    average, model = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.zeros_(average.weight)
    nn.init.ones_(model.weight)
    average_weights(average, model, average_decay(0.999, step=1))
    assert average.weight.item() == pytest.approx(0.9)
    average_weights(average, model, average_decay(0.5, step=10_000))
    assert average.weight.item() == pytest.approx(0.95)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8)])
def test_orthogonal_keeps_directions_and_makes_all_equally_long(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    left, lengths, right = torch.linalg.svd(orthogonal(matrices, torch.float32), full_matrices=False)
    assert lengths.min() > 0.6
    assert lengths.max() < 1.25
    true_left, _, true_right = torch.linalg.svd(matrices, full_matrices=False)
    turned = (left @ right - true_left @ true_right).norm(dim=(-2, -1))
    assert turned.max() < 1e-3


def test_muon_steps_as_torch_does_matrix_by_matrix() -> None:
    """The same matrices, wide, tall and two of one shape, three steps each; torch computes its products in bf16."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(6, 10), (6, 10), (10, 6), (8, 8)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    ours, theirs = ([nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2))
    optimizers = (
        Muon(ours, 0.1, weight_decay=0.5, dtype=torch.bfloat16),
        torch.optim.Muon(theirs, lr=0.1, weight_decay=0.5, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other, first in zip(ours, theirs, start, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=3e-3)
        assert (one - first).abs().max() > 0.1
    assert optimizers[0].state_dict()["state"].keys() == optimizers[1].state_dict()["state"].keys()
