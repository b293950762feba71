"""A transformer over a row of tokens that never look ahead: what was computed once is kept as keys and values.

Frames tell each other apart by how long ago they are (a learnt number per head and distance that is added to the
scores; Raffel et al. 2020, arXiv 1910.10683, section 2.1), never by a count from some beginning. So kept keys hold for
ever, rows need no common clock, and a dream of any length computes what a short one does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MLP_RATIO = 4
HIDDEN = -1e4  # score of what must not be seen


class CausalBlock(nn.Module):
    """Attention and MLP, each behind a LayerNorm and added to the stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, MLP_RATIO * width)
        self.mlp_out = nn.Linear(MLP_RATIO * width, width)

    def forward(self, x: Tensor, past: Sequence[Tensor], bias: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, M) that follow those of `past`, to the same shape and their own keys and values.

        past: keys and values (2, B, heads, S, M / heads) of earlier tokens, in pieces. bias: (B or 1, heads, L, S + L),
        added to the scores, where S counts all pieces. The own keys and values are (2, B, heads, L, M / heads).
        """
        batch, length, width = x.shape
        mixed = self.query_key_value(self.attention_norm(x)).view(batch, length, 3, self.heads, width // self.heads)
        query, *own_parts = mixed.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, L, M / heads)
        own = torch.stack(own_parts)  # (2, B, heads, L, M / heads)
        pieces = [*past, own]
        query = query * query.shape[-1] ** -0.5
        # Pieces are read where they lie: to join the keys would copy the whole memory for every token of a dream.
        scores = torch.cat([query @ key.transpose(-1, -2) for key, _ in pieces], dim=-1) + bias
        shares = scores.softmax(-1).to(own.dtype).split([piece.shape[-2] for piece in pieces], dim=-1)
        read = sum(share @ value for share, (_, value) in zip(shares, pieces, strict=True))
        assert isinstance(read, Tensor)
        x = x + self.output(read.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x)))), own


class CausalTransformer(nn.Module):
    """`layers` blocks, and the scores' bias. window: frames that a token sees, its own included."""

    def __init__(self, width: int, heads: int, layers: int, window: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(CausalBlock(width, heads) for _ in range(layers))
        self.distance_bias = nn.Parameter(torch.zeros(heads, window))  # of keys that many frames ago
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Linear weights ~ N(0, 1 / fan_in), those that add to the stream divided by sqrt(2 layers); biases 0."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                branch = (2 * len(self.blocks)) ** -0.5 if name.endswith((".output", ".mlp_out")) else 1.0
                module.weight.normal_(0.0, branch * module.in_features**-0.5)
                module.bias.zero_()

    def forward(self, x: Tensor, past: Sequence[Tensor], bias: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, M) after those of `past`, in pieces (layers, 2, B, heads, S, M / heads).

        bias: see `bias_of_clip` and `bias_of_frame`. Returns the stream (B, L, M) and the tokens' keys and values
        (layers, 2, B, heads, L, M / heads).
        """
        owns = []
        for number, block in enumerate(self.blocks):
            x, own = block(x, [piece[number] for piece in past], bias)
            owns.append(own)
        return x, torch.stack(owns)

    def bias_of_clip(self, present: Tensor, places: int) -> Tensor:
        """Of frames with `places` tokens each that see themselves and each other, (B or 1, heads, T places, T places).

        present: bool (B or 1, T), which frames may be seen.
        """
        frames, window = present.shape[1], self.distance_bias.shape[1]
        order = torch.arange(frames * places, device=present.device)
        frame = order // places
        distance = frame[:, None] - frame[None]
        seen = (order[:, None] >= order[None]) & (distance < window)
        seen = seen & (present.repeat_interleave(places, 1)[:, None] | (distance == 0))  # (B, L, L)
        return self._bias(distance, seen)

    def bias_of_frame(self, filled: Tensor, places: int) -> Tensor:
        """Of one frame that sees itself and a memory of window - 1 frames, (B, heads, places, window places).

        filled: bool (B, window - 1), which frames of the memory, oldest first, are there.
        """
        window = self.distance_bias.shape[1]
        order = torch.arange(places, device=filled.device)
        distance = (window - 1 - torch.arange(window, device=filled.device)).repeat_interleave(places)
        own = (order[:, None] >= order[None]).expand(len(filled), -1, -1)
        memory = filled.repeat_interleave(places, 1)[:, None].expand(-1, places, -1)
        return self._bias(distance.expand(places, -1), torch.cat([memory, own], dim=-1))

    def _bias(self, distance: Tensor, seen: Tensor) -> Tensor:
        """distance: (L, S) in frames. seen: bool (B, L, S). (B, heads, L, S)."""
        window = self.distance_bias.shape[1]
        bias = self.distance_bias[:, distance.clamp(0, window - 1)]  # (heads, L, S)
        return bias.masked_fill(~seen[:, None], HIDDEN)
