"""Pictures as a policy and its value read them: by convolutions that both share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from worldsim.agents.errors import UnusableSpaceError

WIDTHS = (16, 64)  # channels after the first convolution and after each other
CHANNELS_OF_A_GROUP = 8
SMALL = 7  # sides up to which pictures are made smaller where nothing else was asked for


class Pictures(nn.Module):
    """Pictures uint8 (B, H, W, C) to network inputs (B, size).

    Convolutions of given strides, each reading one pixel more on every side than it steps over, and what they see,
    flattened and normalised. planes: how many of the last channels tell a number each, the same in all pixels; they
    pass the convolutions by and stand at the end of the inputs, in [-1, 1]. group_norm: behind each convolution.
    """

    def __init__(
        self, shape: Sequence[int], strides: Sequence[Sequence[int]], planes: int, group_norm: bool = True
    ) -> None:
        super().__init__()
        self.shape, self.planes = tuple(shape), planes
        # Convolutions take most of an agent's time and stand this precision, three times as fast on many machines.
        self.precision = torch.float32
        seen = seen_size(shape, strides)
        layers: list[nn.Module] = []
        before = shape[2] - planes
        for index, (down, across) in enumerate(strides or usual_strides(*shape[:2])):
            after = _width(index)
            layers.append(nn.Conv2d(before, after, (down + 2, across + 2), (down, across), 1))
            if group_norm:
                layers.append(nn.GroupNorm(after // CHANNELS_OF_A_GROUP, after))
            layers.append(nn.SiLU())
            before = after
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        self.norm = nn.LayerNorm(seen)
        self.size = seen + planes

    def observe(self, _observations: Tensor) -> None:
        """Pictures have a range that is known: there is nothing to measure."""

    def forward(self, observations: Tensor) -> Tensor:
        if tuple(observations.shape[1:]) != self.shape:
            raise ValueError(f"Expected pictures of shape (B, {self.shape}), got {tuple(observations.shape)}.")
        pictures, told = observations.tensor_split([self.shape[2] - self.planes], dim=3)
        half = self.precision is torch.bfloat16
        with torch.autocast(observations.device.type, torch.bfloat16, enabled=half):
            # In place: these are the largest tensors of an update, and two of them are enough.
            seen = self.convolutions(pictures.permute(0, 3, 1, 2).to(self.precision).div_(127.5).sub_(1.0))
        return torch.cat([self.norm(seen.float()), told[:, 0, 0].float() / 127.5 - 1.0], dim=1)


def seen_size(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> int:
    """How many numbers the convolutions make of pictures (H, W, C). UnusableSpaceError where nothing would be left."""
    height, width = shape[:2]
    steps = strides or usual_strides(height, width)
    for index, (down, across) in enumerate(steps):
        if down > height or across > width:
            raise UnusableSpaceError(
                f"strides={[list(pair) for pair in strides]} leave nothing of pictures of {shape[0]} x {shape[1]}: "
                f"number {index} steps over {down} x {across} of {height} x {width} pixels."
            )
        height, width = height // down, width // across
    return _width(len(steps) - 1) * height * width


def _width(index: int) -> int:
    """Channels after a convolution, counted from 0."""
    return WIDTHS[min(index, len(WIDTHS) - 1)]


def usual_strides(height: int, width: int) -> list[tuple[int, int]]:
    """For pictures of this size: a long stride where there is room for it, then halves down to SMALL pixels."""
    side = min(height, width)
    strides = [4 if side >= 32 else 1]
    side //= strides[0]
    while side > SMALL:
        strides.append(2)
        side //= 2
    return [(stride, stride) for stride in strides]
