"""The hand-written RMSNorm against PyTorch's, value and gradient."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from worldsim.dynamics.normalisation import EPSILON, rms_norm


def test_value_and_gradient_are_those_of_torch() -> None:
    mine = torch.randn(3, 4, 16, dtype=torch.double, requires_grad=True)
    theirs = mine.detach().clone().requires_grad_()
    gradient = torch.randn(3, 4, 16, dtype=torch.double)
    rms_norm(mine).backward(gradient)
    F.rms_norm(theirs, (16,), eps=EPSILON).backward(gradient)
    assert torch.allclose(rms_norm(mine), F.rms_norm(theirs, (16,), eps=EPSILON))
    assert mine.grad is not None
    assert theirs.grad is not None
    assert torch.allclose(mine.grad, theirs.grad)


def test_bfloat16_stays_bfloat16_and_close() -> None:
    tokens = torch.randn(5, 64).bfloat16()
    assert rms_norm(tokens).dtype == torch.bfloat16
    assert torch.allclose(rms_norm(tokens).float(), F.rms_norm(tokens.float(), (64,)), atol=0.03)


def test_without_gradients_it_is_the_same_bit_for_bit() -> None:
    tokens = torch.randn(5, 64, requires_grad=True)
    with torch.no_grad():
        alone = rms_norm(tokens)
    assert torch.equal(alone, rms_norm(tokens))
