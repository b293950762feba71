"""Attention over the tokens of a frame and over the past frames of a token, with rotary positions.

Rows are short (9 to 64 keys), so the plain softmax form is used: on CPUs PyTorch's fused kernel is several times
slower in its bfloat16 backward pass for rows this short.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from worldsim.dynamics.operators import query_key_value, rotate, softmax


class Rotary(nn.Module):
    """Rotary position angles for a table of positions (Su et al. 2021, arXiv 2104.09864).

    cosine, sine: (positions, head_width / 2) float32 buffers, recomputed on construction and never saved.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, angles: Tensor) -> None:
        super().__init__()
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def at(self, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Cosine and sine (P, head_width / 2) at `positions` (P,), by default 0..P-1."""
        if positions is None:
            return self.cosine, self.sine
        return self.cosine[positions], self.sine[positions]

    def forward(self, vectors: Tensor, positions: Tensor | None = None) -> Tensor:
        """Rotate vectors (..., P, head_width) at `positions` (P,), by default 0..P-1; not differentiable."""
        cosine, sine = self.at(positions)
        return rotate(vectors, cosine.to(vectors.dtype), sine.to(vectors.dtype))


def time_angles(window: int, head_width: int) -> Tensor:
    """Angles (2 window, head_width / 2) whose frequencies are whole multiples of 2 pi / (2 window).

    Positions modulo 2 * window then give exactly the same rotation, so a rollout of any length never leaves the
    table and a cached key never needs to be rotated again; distances below the window stay unambiguous.
    """
    period = 2 * window
    pairs = head_width // 2
    multiples = torch.logspace(0, math.log2(max(period // 4, 1)), pairs, base=2.0).round()
    positions = torch.arange(period, dtype=torch.float32)
    return positions[:, None] * multiples[None, :] * (2 * math.pi / period)


def space_angles(rows: int, columns: int, registers: int, head_width: int) -> Tensor:
    """Angles (rows * columns + registers, head_width / 2): half of the pairs turn with the row, half with the column.

    Register tokens, which come last, have no place in the frame and are not turned.
    """
    pairs = head_width // 2
    frequencies = 1.0 / 100.0 ** (torch.arange((pairs + 1) // 2, dtype=torch.float32) / max((pairs + 1) // 2, 1))
    row = torch.arange(rows, dtype=torch.float32).repeat_interleave(columns)
    column = torch.arange(columns, dtype=torch.float32).repeat(rows)
    angles = torch.cat([row[:, None] * frequencies, column[:, None] * frequencies], dim=-1)[:, :pairs]
    return torch.cat([angles, torch.zeros(registers, pairs)])


class Projection(nn.Module):
    """The matrices and gains that queries, keys and values come from, and the output projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = width // heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.query_gain = nn.Parameter(torch.ones(self.head_width))
        self.key_gain = nn.Parameter(torch.ones(self.head_width))

    def project(
        self, tokens: Tensor, cosine: Tensor, sine: Tensor, order: tuple[int, int, int, int, int, int]
    ) -> Tensor:
        """(B, T, N, M) -> queries, keys and values, axes in `order`; see `operators.query_key_value`."""
        mixed = self.query_key_value(tokens).unflatten(-1, (3, self.heads, self.head_width))
        gains = torch.stack([self.query_gain, self.key_gain])
        return query_key_value(mixed, gains, cosine, sine, order)


class SpaceAttention(Projection):
    """Each token attends to all tokens of its own frame."""

    def forward(self, tokens: Tensor, rotary: Rotary) -> Tensor:
        """(B, T, N, M) -> (B, T, N, M)."""
        cosine, sine = (table[None, :, None, None] for table in rotary.at())  # (1, N, 1, 1, head_width / 2)
        projected = self.project(tokens, cosine, sine, (3, 0, 1, 4, 2, 5))  # (3, B, T, heads, N, head_width)
        query, key, value = projected.unbind(0)
        scores = query @ key.transpose(-1, -2) * self.head_width**-0.5  # (B, T, heads, N, N)
        mixed = softmax(scores) @ value
        return self.output(mixed.transpose(2, 3).flatten(-2))


class TimeAttention(Projection):
    """Each token attends to itself and to the tokens in its place in a memory of earlier frames."""

    def forward(
        self, tokens: Tensor, rotary: Rotary, positions: Tensor, memory: Tensor | None, visible: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attend to a memory of earlier frames and to oneself.

        tokens: (B, T, N, M). positions: (T,) rotary positions. memory: (2, B, N, heads, S, head_width), or None: the
        frames given are their own memory (S = T). visible: bool (B or 1, T, S), which memory frames each frame sees,
        itself excepted. Returns the mixed tokens and the frames' own keys and values, (2, B, N, heads, T, head_width).
        """
        cosine, sine = (table[:, None, None, None] for table in rotary.at(positions))  # (T, 1, 1, 1, head_width / 2)
        projected = self.project(tokens, cosine, sine, (3, 0, 2, 4, 1, 5))  # (3, B, N, heads, T, head_width)
        (query,), own = projected.split([1, 2])
        key, value = own.unbind(0)
        past_key, past_value = (key, value) if memory is None else memory.unbind(0)
        scale = self.head_width**-0.5
        past = query @ past_key.transpose(-1, -2) * scale  # (B, N, heads, T, S)
        past = past.masked_fill(~visible[:, None, None], -1e4)
        itself = (query * key).sum(-1, keepdim=True) * scale  # (B, N, heads, T, 1)
        shares = softmax(torch.cat([past, itself], dim=-1))
        mixed = shares[..., :-1] @ past_value + shares[..., -1:] * value
        return self.output(mixed.permute(0, 3, 1, 2, 4).flatten(-2)), own
