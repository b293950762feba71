"""The hand-written operators against PyTorch's automatic ones, values and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from worldsim.dynamics.operators import EPSILON, query_key_value, rms_norm, rotate, softmax, swiglu

ORDERS = [(3, 0, 1, 4, 2, 5), (3, 0, 2, 4, 1, 5)]  # of attention in space and in time
ANGLES = {ORDERS[0]: (1, 5, 1, 1, 4), ORDERS[1]: (3, 1, 1, 1, 4)}


def plain_swiglu(gate_and_value: Tensor) -> Tensor:
    gate, value = gate_and_value.chunk(2, dim=-1)
    return F.silu(gate) * value


def plain_rotation(vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    left, right = vectors.chunk(2, dim=-1)
    return torch.cat([left * cosine - right * sine, left * sine + right * cosine], dim=-1)


def plain_query_key_value(mixed: Tensor, gains: Tensor, cosine: Tensor, sine: Tensor, order: tuple[int, ...]) -> Tensor:
    pair = F.rms_norm(mixed[..., :2, :, :], (mixed.shape[-1],), eps=EPSILON) * gains[:, None]
    return torch.cat([plain_rotation(pair, cosine, sine), mixed[..., 2:, :, :]], dim=3).permute(order)


def assert_alike(mine: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Same values and same gradients for a random gradient, in double."""
    given = [tensor.double().requires_grad_() for tensor in inputs]
    answers = [function(*given) for function in (mine, plain)]
    torch.testing.assert_close(*answers)
    gradient = torch.randn_like(answers[0])
    gradients = [torch.autograd.grad(answer, given, gradient) for answer in answers]
    torch.testing.assert_close(*gradients)


def random_projection() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 3, 5, 3, 2, 8), torch.rand(2, 8) + 0.5  # (B, T, N, 3, heads, W), gains


def test_rms_norm() -> None:
    assert_alike(rms_norm, lambda tokens: F.rms_norm(tokens, (16,), eps=EPSILON), torch.randn(3, 4, 16))


def test_swiglu() -> None:
    assert_alike(swiglu, plain_swiglu, torch.randn(3, 4, 16))


def test_softmax() -> None:
    scores = torch.randn(3, 4, 9) * 10
    assert_alike(softmax, lambda given: given.softmax(-1), scores)
    with torch.no_grad():
        torch.testing.assert_close(softmax(scores), scores.softmax(-1))


def test_softmax_of_what_is_hidden_is_zero_and_of_huge_scores_finite() -> None:
    shares = softmax(torch.tensor([[-1e4, 3.0, 3.0], [500.0, 500.0, -500.0]]))
    assert torch.equal(shares, torch.tensor([[0.0, 0.5, 0.5], [0.5, 0.5, 0.0]]))


def test_softmax_of_bf16_is_as_exact_as_pytorch_s() -> None:
    scores = (torch.randn(64, 9) * 5).bfloat16()
    exact = scores.double().softmax(-1)
    assert (softmax(scores) - exact).abs().max() <= (scores.softmax(-1) - exact).abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rotation_in_every_precision(dtype: torch.dtype) -> None:
    vectors, angles = torch.randn(3, 5, 8).to(dtype), torch.rand(5, 4)
    cosine, sine = angles.cos().to(dtype), angles.sin().to(dtype)
    exact = plain_rotation(vectors.double(), cosine.double(), sine.double())
    largest = 2 * float(vectors.abs().max())
    torch.testing.assert_close(
        rotate(vectors, cosine, sine).double(), exact, rtol=0, atol=torch.finfo(dtype).eps * largest
    )


@pytest.mark.parametrize("order", ORDERS)
def test_query_key_value(order: tuple[int, int, int, int, int, int]) -> None:
    cosine, sine = torch.rand(2, *ANGLES[order], dtype=torch.double)
    assert_alike(
        lambda mixed, gains: query_key_value(mixed, gains, cosine, sine, order),
        lambda mixed, gains: plain_query_key_value(mixed, gains, cosine, sine, order),
        *random_projection(),
    )


def test_rotation_keeps_lengths() -> None:
    vectors, angles = torch.randn(7, 5, 8), torch.randn(5, 4)
    turned = rotate(vectors, angles.cos(), angles.sin())
    torch.testing.assert_close(turned, plain_rotation(vectors, angles.cos(), angles.sin()))
    torch.testing.assert_close(turned.norm(dim=-1), vectors.norm(dim=-1))


def test_bfloat16_stays_bfloat16_and_close() -> None:
    tokens = torch.randn(5, 64)
    for mine in (rms_norm, swiglu):
        assert mine(tokens.bfloat16()).dtype == torch.bfloat16
        assert torch.allclose(mine(tokens.bfloat16()).float(), mine(tokens), atol=0.04)
    mixed, gains = random_projection()
    cosine, sine = torch.rand(2, *ANGLES[ORDERS[0]])
    half = query_key_value(mixed.bfloat16(), gains, cosine, sine, ORDERS[0])
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), query_key_value(mixed, gains, cosine, sine, ORDERS[0]), atol=0.06)


def test_without_gradients_they_are_the_same_bit_for_bit() -> None:
    tokens = torch.randn(5, 64, requires_grad=True)
    mixed, gains = random_projection()
    mixed.requires_grad_()
    cosine, sine = torch.rand(2, *ANGLES[ORDERS[0]])
    for given in (tokens, tokens.bfloat16()):
        for operator in (rms_norm, swiglu):
            with torch.no_grad():
                alone = operator(given)
            assert torch.equal(alone, operator(given))
    with torch.no_grad():
        alone = query_key_value(mixed, gains, cosine, sine, ORDERS[0])
    assert torch.equal(alone, query_key_value(mixed, gains, cosine, sine, ORDERS[0]))
