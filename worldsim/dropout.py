"""Dropout that a CPU draws a byte for."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 256


class Dropout(nn.Module):
    """`torch.nn.Dropout`, in a third of its time on a CPU, where PyTorch draws a number for each element.

    There a byte is drawn, so the share that is left out is a multiple of 1 / 256, the nearest one to `share`; what is
    kept makes up for exactly that. From PyTorch's global generator, as theirs. Not for losses whose rows several
    processes share: they cannot tell which bytes are whose (`worldsim.distributed`).
    """

    def __init__(self, share: float) -> None:
        """share: in [0, 1), of the elements that are left out in training."""
        super().__init__()
        if not 0 <= share < 1:
            raise ValueError(f"share={share}: expected at least 0 and less than 1")
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        """Any shape; the same values in evaluation."""
        if values.device.type != "cpu":
            return F.dropout(values, self.share, self.training)
        left_out = min(round(LEVELS * self.share), LEVELS - 1)
        if not self.training or not left_out:
            return values
        words = torch.empty(-(-values.numel() // 8), dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
        drawn = words.view(torch.uint8)[: values.numel()].view(values.shape)
        return values * (drawn >= left_out).to(values.dtype).mul_(LEVELS / (LEVELS - left_out))

    def extra_repr(self) -> str:
        """For `print(module)`."""
        return f"share={self.share}"
