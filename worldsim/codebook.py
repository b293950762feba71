"""A codebook: vectors that stand for all others, each for those that it is nearest to.

Learnt as by van den Oord et al. (2017, "Neural discrete representation learning", arXiv 1711.00937, appendix A.1): a
code is the mean, over the last batches, of the vectors that chose it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldsim import distributed

FEWEST_CHOICES = 0.1  # vectors of a batch, on average, below which a code is dead


@torch.no_grad()
def nearest_code(vectors: Tensor, codes: Tensor) -> Tensor:
    """Which of the codes (K, D) is nearest to each of the vectors (..., D), int64 (...).

    In float32 whatever the caller computes in: bf16 would mistake neighbouring codes.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        middle = codes.float().mean(0)  # from there, squares are small and hardly rounded
        codes = codes.float() - middle
        # |v - c|^2 without |v|^2, which is the same for all codes
        distances = codes.square().sum(-1) - 2 * (vectors.float() - middle) @ codes.T  # (..., K)
        return distances.argmin(-1)


class Codebook(nn.Module):
    """codes: float32 (K, D). chosen: (K,), running mean of how many vectors of a batch choose a code; sums: (K, D), of
    the sum of these vectors. All are buffers: no gradient reaches them and no cast of weights rounds them.
    """

    codes: Tensor
    chosen: Tensor
    sums: Tensor

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.empty(size, channels))
        self.register_buffer("chosen", torch.empty(size))
        self.register_buffer("sums", torch.empty(size, channels))

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Codes ~ N(0, 1) that nobody chose yet, so that the first batch replaces them by vectors of its own."""
        self.codes.normal_(generator=generator)
        self.chosen.zero_()
        self.sums.zero_()

    def nearest(self, vectors: Tensor) -> Tensor:
        """Indices int64 (...) of the codes nearest to vectors (..., D)."""
        return nearest_code(vectors, self.codes)

    @torch.no_grad()
    def update(self, vectors: Tensor, indices: Tensor, decay: float, heirs: Tensor) -> Tensor:
        """Follow a batch, to be called within a shared loss; returns how many vectors chose each code, (K,).

        vectors: (B, N, D), those of this process. indices: (B, N), the codes that they chose. heirs: int64 (K,), which
        vector of the whole batch, from 0 to B N - 1 row by row, a code becomes if it is dead.
        """
        size = len(self.codes)
        flat, choices = vectors.reshape(-1, vectors.shape[-1]).float(), indices.reshape(-1)
        counts = distributed.shared_sum(torch.bincount(choices, minlength=size).to(flat.dtype))
        sums = distributed.shared_sum(torch.zeros_like(self.sums).index_add_(0, choices, flat))
        self.chosen.lerp_(counts, 1 - decay)
        self.sums.lerp_(sums, 1 - decay)
        dead = (self.chosen < FEWEST_CHOICES)[:, None]
        reborn = _of_whole_batch(vectors.float(), heirs.to(flat.device))
        self.sums.copy_(torch.where(dead, reborn, self.sums))
        self.chosen.masked_fill_(dead[:, 0], 1.0)
        self.codes.copy_(self.sums / self.chosen[:, None])
        return counts


def _of_whole_batch(vectors: Tensor, positions: Tensor) -> Tensor:
    """The vectors (K, D) at positions (K,) of the whole batch, of which vectors (B, N, D) are this process's rows."""
    row, token = positions // vectors.shape[1], positions % vectors.shape[1]
    processes = distributed.size()
    mine = row % processes == distributed.rank()
    return distributed.shared_sum(vectors[torch.where(mine, row // processes, 0), token] * mine[:, None])


def perplexity(counts: Tensor) -> Tensor:
    """How many codes, all chosen alike, would be as hard to guess as those chosen `counts` (K,) times; scalar."""
    shares = counts / counts.sum()
    return (-torch.xlogy(shares, shares).sum()).exp()
