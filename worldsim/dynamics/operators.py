"""The transformer's operators that are no matrix products, with hand-written backward passes.

PyTorch composes each of small operators that read and write everything, and its automatic backward pass fills and adds
whole tensors for every slice. In a network this narrow they took about half of a training step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

EPSILON = 1e-6
LARGEST_SCORE = 80.0  # of which a few hundred exponentials still have a sum in float32
NOTHING = 1e-34  # a little more than the exponential of -80


def rms_norm(tokens: Tensor) -> Tensor:
    """Tokens (..., M) at root mean square 1 over the last axis; no gain (Zhang & Sennrich 2019, arXiv 1910.07467)."""
    if not torch.is_grad_enabled():  # a dream of one row is made of overhead, and an autograd function is some
        return tokens * _inverse_length(tokens)
    normal: Tensor = _RMSNorm.apply(tokens)  # type: ignore[no-untyped-call]
    return normal


def swiglu(gate_and_value: Tensor) -> Tensor:
    """(..., 2 H) -> silu(first half) * second half, (..., H) (Shazeer 2020, arXiv 2002.05202)."""
    if not torch.is_grad_enabled():
        return _gated(gate_and_value)
    product: Tensor = _SwiGLU.apply(gate_and_value)  # type: ignore[no-untyped-call]
    return product


def softmax(scores: Tensor) -> Tensor:
    """Over the last axis of scores that are no larger than 80, as those of normalised queries and keys.

    PyTorch's takes eight times as long on rows of nine, and first looks for the largest score of each, which none of
    these needs. Larger ones count as 80; those below -79, such as masked ones, get nothing.
    """
    if not torch.is_grad_enabled():
        return _shares(scores)
    shares: Tensor = _Softmax.apply(scores)  # type: ignore[no-untyped-call]
    return shares


def rotate(vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + W / 2]) of vectors (..., W) by its angle; not differentiable.

    cosine, sine: broadcastable to (..., W / 2), in the dtype of the vectors.
    """
    return _turned(vectors, *_whole_rows(cosine, sine))


def query_key_value(
    mixed: Tensor, gains: Tensor, cosine: Tensor, sine: Tensor, order: tuple[int, int, int, int, int, int]
) -> Tensor:
    """Queries and keys of normalised length (QK-norm, arXiv 2302.05442), with gains and rotary positions; and values.

    mixed: (B, T, N, 3, heads, W). gains: (2, W), of queries and of keys. cosine, sine: (T or 1, N or 1, 1, 1, W / 2).
    order: the axes of `mixed` in the order of the answer, the axis of 3 first.
    """
    arguments = (mixed, gains.to(mixed.dtype), cosine.to(mixed.dtype), sine.to(mixed.dtype), order)
    if not torch.is_grad_enabled():
        return _normalised_and_turned(*arguments)[0]
    answer: Tensor = _QueryKeyValue.apply(*arguments)  # type: ignore[no-untyped-call]
    return answer


def _inverse_length(tokens: Tensor) -> Tensor:
    precise = torch.promote_types(tokens.dtype, torch.float32)
    length = torch.linalg.vector_norm(tokens, dim=-1, keepdim=True, dtype=precise)
    return (length.square() / tokens.shape[-1] + EPSILON).rsqrt().to(tokens.dtype)


def _whole_rows(cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """(..., W / 2) -> what `_turned` takes, (..., W)."""
    return torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)


def _turned(vectors: Tensor, along: Tensor, across: Tensor) -> Tensor:
    """vectors * along + (vectors with their halves swapped) * across, all (..., W).

    In bfloat16 PyTorch adds products to halves of rows number by number: a swapped copy costs a quarter of that. In
    float32 the copy costs more.
    """
    turned = vectors * along
    if vectors.dtype != torch.float32:
        return turned.addcmul_(vectors.roll(vectors.shape[-1] // 2, dims=-1), across)
    left, right = vectors.chunk(2, dim=-1)
    for half, other, table in zip(turned.chunk(2, dim=-1), (right, left), across.chunk(2, dim=-1), strict=True):
        half.addcmul_(other, table)
    return turned


def _swapped(vectors: Tensor) -> Tensor:
    left, right = vectors.chunk(2, dim=-1)
    return torch.cat([right, left], dim=-1)


def _for_heads(table: Tensor, heads: int) -> Tensor:
    """(..., 1 or 2, 1, W) -> (..., 2, heads, W), laid out so that a row of it is as long as one of the pair."""
    return table.expand(-1, -1, 2, heads, -1).contiguous()


def _normalised_and_turned(
    mixed: Tensor, gains: Tensor, cosine: Tensor, sine: Tensor, order: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """The answer of `query_key_value`, and what its backward pass needs: the normalised pair and its scale."""
    pair = mixed[..., :2, :, :]
    scale = _inverse_length(pair)
    normal = pair * scale
    answer = mixed.new_empty([mixed.shape[axis] for axis in order])
    places = answer.permute([order.index(axis) for axis in range(6)])  # the answer with the axes of `mixed`
    heads, gains = mixed.shape[4], gains[:, None]  # gains (2, 1, W)
    along, across = _whole_rows(cosine, sine)
    along, across = along * gains, across * _swapped(gains)  # (T or 1, N or 1, 2, 1, W)
    places[..., :2, :, :] = _turned(normal, _for_heads(along, heads), _for_heads(across, heads))
    places[..., 2, :, :] = mixed[..., 2, :, :]
    return answer, normal, scale


class _RMSNorm(torch.autograd.Function):
    """y = x / sqrt(mean(x^2) + epsilon) over the last axis."""

    @staticmethod
    def forward(context: Any, tokens: Tensor) -> Tensor:
        scale = _inverse_length(tokens)
        normal = tokens * scale
        context.save_for_backward(normal, scale)
        return normal

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _norm_backward(gradient, *context.saved_tensors)


def _norm_backward(gradient: Tensor, normal: Tensor, scale: Tensor) -> Tensor:
    """dL/dx = (g - y mean(g y)) scale."""
    along = (gradient * normal).mean(dim=-1, keepdim=True)
    return torch.addcmul(gradient, normal, along, value=-1).mul_(scale)


def _shares(scores: Tensor) -> Tensor:
    precise = torch.promote_types(scores.dtype, torch.float32)
    # On a CPU exponentials that underflow, as those of masked scores would, take twenty times as long as others.
    weights = scores.to(precise).clamp(-LARGEST_SCORE, LARGEST_SCORE).exp()
    weights = torch.nn.functional.threshold(weights, NOTHING, 0.0, inplace=True)
    return (weights / weights.sum(dim=-1, keepdim=True)).to(scores.dtype)


class _Softmax(torch.autograd.Function):
    """p = exp(x) / sum(exp(x)) over the last axis."""

    @staticmethod
    def forward(context: Any, scores: Tensor) -> Tensor:
        shares = _shares(scores)
        context.save_for_backward(shares)
        return shares

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        """dL/dx = p (g - sum(g p))."""
        (shares,) = context.saved_tensors
        weighted = gradient * shares
        return torch.addcmul(weighted, shares, weighted.sum(dim=-1, keepdim=True), value=-1)


def _gated(gate_and_value: Tensor) -> Tensor:
    gate, value = gate_and_value.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate.contiguous()).mul_(value)  # of half rows it takes half as long again


class _SwiGLU(torch.autograd.Function):
    """y = s(x) v with s(x) = x sigmoid(x)."""

    @staticmethod
    def forward(context: Any, gate_and_value: Tensor) -> Tensor:
        gate, value = gate_and_value.chunk(2, dim=-1)
        gate = gate.contiguous()  # of half rows silu takes half as long again
        opened = torch.nn.functional.silu(gate)
        context.save_for_backward(gate, opened, value)
        return opened * value

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        """dL/dx = g v s'(x), dL/dv = g s(x)."""
        gate, opened, value = context.saved_tensors
        # Put side by side at once: written to halves of rows they take half as long again.
        return torch.cat([torch.ops.aten.silu_backward(gradient * value, gate), gradient * opened], dim=-1)


class _QueryKeyValue(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, mixed: Tensor, gains: Tensor, cosine: Tensor, sine: Tensor, order: tuple[int, ...]
    ) -> Tensor:
        answer, normal, scale = _normalised_and_turned(mixed, gains, cosine, sine, order)
        context.save_for_backward(normal, scale, gains, cosine, sine)
        context.order = order
        return answer

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        normal, scale, gains, cosine, sine = context.saved_tensors
        places = gradient.permute([context.order.index(axis) for axis in range(6)])
        heads, width = normal.shape[4:]
        along, across = (_for_heads(table, heads) for table in _whole_rows(cosine, -sine))
        turned_back = _turned(places[..., :2, :, :].contiguous(), along, across)
        products = (turned_back * normal).reshape(-1, 2 * heads * width)
        of_gains = (products.new_ones(1, len(products)) @ products).view(2, heads, width).sum(1)
        of_mixed = normal.new_empty(*normal.shape[:3], 3, heads, width)
        of_mixed[..., :2, :, :] = _norm_backward(turned_back.mul_(gains[:, None]), normal, scale)
        of_mixed[..., 2, :, :] = places[..., 2, :, :]
        return of_mixed, of_gains, None, None, None
