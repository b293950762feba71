"""Eight bits a weight: small error, everything else untouched."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.worlds import tiny_world
from worldsim.model_folder import load_model, save_model
from worldsim.quantization import dequantize, quantize
from worldsim.world_model import row_generator


def test_the_error_is_at_most_half_a_step_of_the_row() -> None:
    matrix = torch.randn(7, 40) * torch.logspace(-3, 3, 7)[:, None]
    tensors = {"matrix": matrix, "vector": torch.randn(5), "mask": torch.ones(2, 2, dtype=torch.bool)}
    packed = quantize(tensors)
    assert packed["matrix"].dtype == torch.int8
    back = dequantize(packed)
    assert set(back) == set(tensors)
    step = matrix.abs().amax(1, keepdim=True) / 127
    assert ((back["matrix"] - matrix).abs() <= step / 2 * 1.001).all()
    assert torch.equal(back["vector"], tensors["vector"])
    assert torch.equal(back["mask"], tensors["mask"])


def test_a_zero_row_stays_zero() -> None:
    assert torch.equal(dequantize(quantize({"m": torch.zeros(2, 3)}))["m"], torch.zeros(2, 3))


def test_a_small_model_dreams_nearly_the_same(tmp_path: Path) -> None:
    model = tiny_world()
    save_model(model, tmp_path, small=True)
    dreams = []
    for world in (model, load_model(tmp_path)):
        contexts = world.start_contexts.rows(torch.arange(3))
        state = world.start_from(contexts, [row_generator(i) for i in range(3)])
        _, step = world.step(state, torch.tensor([0, 1, 2]))
        dreams.append(step.latents)
    assert not torch.equal(dreams[0], dreams[1])
    assert (dreams[0] - dreams[1]).abs().mean() < 0.05


def test_what_must_stay_exact_does() -> None:
    table = torch.randn(3, 4)
    packed = quantize({"table": table, "weight": table}, exact={"table"})
    assert torch.equal(packed["table"], table)
    assert packed["weight"].dtype == torch.int8
