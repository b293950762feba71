"""The plain pre-norm transformer that encoder and decoder of the ViT tokenizer share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MLP_RATIO = 4


class Attention(nn.Module):
    """Multi-head self-attention over all tokens of one frame."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, M) -> (B, P, M)."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).contiguous().unbind(0)  # each (B, heads, P, M / heads)
        mixed = attend(q, k, v).transpose(1, 2).reshape(batch, tokens, width)  # (B, P, M)
        out: Tensor = self.out(mixed)
        return out


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v; all (B, heads, P, d).

    On the CPU the fused kernel's bf16 backward is about ten times slower than the plain form for rows this short.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (B, heads, P, P)
    return torch.matmul(scores.softmax(-1), v)


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm and added to the stream.

    LayerNorm and not RMSNorm: torch has a fused CPU kernel for the one and not for the other (0.5 against 5.5 ms here).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, MLP_RATIO * width)
        self.mlp_out = nn.Linear(MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, M) -> (B, P, M)."""
        x = x + self.attention(self.attention_norm(x))
        added: Tensor = self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x))))
        return x + added


class Transformer(nn.Module):
    """`layers` blocks and a final LayerNorm."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, P, M) -> (B, P, M)."""
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.norm(x)
        return out

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Linear weights ~ N(0, 1 / fan_in), those that add to the stream divided by sqrt(2 layers); biases 0."""
        branch_scale = (2 * max(1, len(self.blocks))) ** -0.5
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                scale = branch_scale if name.endswith((".out", ".mlp_out")) else 1.0
                init_linear(module, scale, generator)


@torch.no_grad()
def init_linear(linear: nn.Linear, scale: float = 1.0, generator: torch.Generator | None = None) -> None:
    """Weights ~ N(0, scale^2 / fan_in), bias 0."""
    linear.weight.normal_(0.0, scale * linear.in_features**-0.5, generator=generator)
    linear.bias.zero_()
