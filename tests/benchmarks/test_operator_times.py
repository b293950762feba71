"""CPU time by operator."""

from __future__ import annotations

import pytest
import torch

from benchmarks.operator_times import REST, Call, dream_step, operator_times, table, training_step
from tests.worlds import tiny_world
from worldsim.errors import UserError


def test_each_call_is_counted_with_its_shapes_and_kind() -> None:
    left, right = torch.randn(64, 32), torch.randn(32, 16)

    def step() -> torch.Tensor:
        product = left @ right
        return product * product + 1

    times = operator_times(step, warm_up=1, timed=4)
    counts = {(call.operator, call.shapes): count for call, (_, count) in times.calls.items()}
    assert counts == {
        ("mm", ((64, 32), (32, 16))): 1,
        ("mul", ((64, 16), (64, 16))): 1,
        ("add", ((64, 16),)): 1,
    }
    kinds = times.by_kind()
    assert {name: count for name, (_, count) in kinds.items()} == {"products with weights": 1, "sums and factors": 2}
    assert times.whole > 0
    assert all(seconds > 0 for seconds, _ in kinds.values())


def test_in_place_operators_are_of_the_same_kind() -> None:
    assert Call("mul_", ()).kind == Call("mul", ()).kind != REST
    assert Call("permute", ()).kind == REST


def test_the_longest_kind_is_the_share_of_what_was_counted() -> None:
    large = torch.randn(512, 512)
    text = table("a product", operator_times(lambda: (large @ large).view(-1), warm_up=1, timed=3))
    assert text.splitlines()[2].startswith("| products with weights |")
    assert "| mm 512x512, 512x512 |" in text


def test_steps_of_a_world_model_can_be_taken_apart() -> None:
    model = tiny_world()
    dream = operator_times(dream_step(model, 3), warm_up=1, timed=2).by_kind()
    training = operator_times(training_step(model), warm_up=1, timed=2)
    assert {"products with weights", "products of attention and of Muon", "random numbers"} <= set(dream)
    operators = {call.operator for call in training.calls}
    assert "silu_backward" in operators, "the backward pass counts"
    assert {"baddbmm", "_fused_adamw_"} & operators, "the optimizers count"


def test_other_dynamics_than_a_dit_are_refused() -> None:
    with pytest.raises(UserError, match="mdn_rnn"):
        training_step(tiny_world(kind="mdn_rnn"))
