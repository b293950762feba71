"""A network that foresees what plans lead to: from the last pictures, whether actions to come would end the episode.

Where things are and whither they move is easier to see in decoded frames than to read out of latents: taught by the
engine of Take Cover itself, a network on tokens orders plans no better after thousands of steps than convolutions on
frames after a few hundred (benchmarks/LOG.md). So convolutions read a stack of frames once, and a small network is then
asked of each step of each plan whether it would end the episode. A plan costs a hundredth of a dreamt frame, and what
the dynamics lose cannot be lost: the frames lie before the plan. It foresees what is on its way, not what begins later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from worldsim.dropout import Dropout
from worldsim.errors import UserError
from worldsim.reader_members import joined

WIDTHS = (16, 64)  # channels after the first convolution and after each other
CHANNELS_OF_A_GROUP = 8
HIDDEN = 256


@dataclass
class PlanConfig:
    """The network that foresees what plans lead to, and how it is trained."""

    steps: int = 0
    """Of training on all the tics of a run; rounds that have fewer of them take as much smaller a share of the steps.
    0: there is no reader.
    """
    horizon: int = 12  # steps of a plan
    afterwards: int = 0
    """Steps after a whole plan whose endings it foresees as well, whatever is done there: who judges plans by their own
    steps goes where nothing is on its way to him yet, into a corner, say.
    """
    afterwards_weight: float = 0.3  # what a risk there counts beside one within the plan, from 0 to 1
    changes: list[int] = field(default_factory=lambda: [1, 4])
    """After so many steps the plans that agents learn from change their action once, or never."""
    discount: float = 0.97  # of what plans risk, for each step before it
    ages: list[int] = field(default_factory=lambda: [0, 1, 2, 4, 8, 12])
    """Of the frames that it sees, in steps; 0 is the current one."""
    actions_before: int = 12  # how many of the actions that led here it knows
    strides: list[list[int]] = field(default_factory=lambda: [[4, 2], [4, 2], [4, 1]])
    """Of its convolutions, down and across: what lies above one another may be joined early, what lies side by side
    must not.
    """
    group_norm: bool = True  # behind each convolution; without, it takes twice the steps to see as much
    members: int = 1
    """Networks that learn apart and whose mean counts: plans chosen by one alone are those that it errs about."""
    batch_size: int = 256  # moments in each training step
    near_fraction: float = 0.5
    """How many of them have an ending within the plan, and half of the others one afterwards, where that is foreseen;
    the loss takes their true share.
    """
    learning_rate: float = 1e-3  # peak; cosine decay to a tenth
    weight_decay: float = 0.02  # of matrices only
    warmup_steps: int = 100  # of the learning rate
    dropout: float = 0.3  # of the hidden units, in training
    frame_dropout: float = 0.2  # of the frames, which it is not shown in training


def check_strides(config: PlanConfig, frame_shape: Sequence[int]) -> tuple[int, int]:
    """Height and width that the convolutions leave of frames (H, W, C). UserError where they leave nothing."""
    height, width = frame_shape[:2]
    for down, across in config.strides:
        height, width = height // down, width // across
    if not height * width:
        raise UserError(
            f"plans.strides={config.strides}: nothing is left of frames of {frame_shape[0]} x {frame_shape[1]} pixels, "
            "use fewer or smaller strides"
        )
    return height, width


class PlanHead(nn.Module):
    """What is known at a moment, and what is planned, to the logit of an ending at each of some steps."""

    def __init__(self, config: PlanConfig, known: int, action_size: int, steps: int) -> None:
        """known: numbers that tell of the moment."""
        super().__init__()
        self.know = nn.Sequential(Dropout(config.dropout), nn.Linear(known, HIDDEN))
        scale = (3 * config.horizon * (action_size + 1)) ** -0.5  # as of the weights of a linear layer
        self.planned = nn.Parameter(torch.randn(config.horizon, action_size, HIDDEN) * scale)
        self.step = nn.Parameter(torch.randn(steps, HIDDEN) * scale)
        self.judge = nn.Sequential(
            nn.LayerNorm(HIDDEN),
            nn.SiLU(),
            Dropout(config.dropout),
            nn.Linear(HIDDEN, HIDDEN),
            nn.LayerNorm(HIDDEN),
            nn.SiLU(),
            Dropout(config.dropout),
        )
        self.logit = nn.Linear(HIDDEN, 1)
        nn.init.zeros_(self.logit.weight)

    def added(self, planned: Tensor) -> Tensor:
        """What plans (B, P, H, A) add up to until each of their steps, (B, P, H, HIDDEN)."""
        return torch.einsum("bpha,had->bphd", planned, self.planned[: planned.shape[2]]).cumsum(2)

    def forward(self, known: Tensor, asked: Tensor) -> Tensor:
        """Logits (B, P, S). known: (B, K). asked: (B or 1, P, S, HIDDEN), the steps' `step` on what was `added`."""
        logits: Tensor = self.logit(self.judge(self.know(known)[:, None, None] + asked))[..., 0]
        return logits


class PlanMember(nn.Module):
    """Pictures, past and planned actions to the logit of an ending at each step of each plan: one opinion of several.

    Raises UserError for strides that leave nothing of the pictures.
    """

    def __init__(self, config: PlanConfig, frame_shape: Sequence[int], action_size: int) -> None:
        super().__init__()
        height, width = check_strides(config, frame_shape)
        self.frame_dropout = config.frame_dropout
        layers: list[nn.Module] = []
        before = len(config.ages) * frame_shape[2]
        for index, (down, across) in enumerate(config.strides):
            after = WIDTHS[min(index, len(WIDTHS) - 1)]
            layers.append(nn.Conv2d(before, after, (down + 2, across + 2), (down, across), 1))
            if config.group_norm:
                layers.append(nn.GroupNorm(after // CHANNELS_OF_A_GROUP, after))
            layers.append(nn.SiLU())
            before = after
        self.look = nn.Sequential(*layers, nn.Flatten(), nn.LayerNorm(before * height * width))
        known = before * height * width + config.actions_before * action_size + len(config.ages)
        self.within = PlanHead(config, known, action_size, config.horizon)
        self.after = PlanHead(config, known, action_size, config.afterwards) if config.afterwards else None

    def forward(self, pictures: Tensor, taken: Tensor, planned: Tensor) -> Tensor:
        """Logits (B, P, H), of a whole plan (B, P, H + afterwards); see `PlanReader.forward`."""
        seen = torch.ones(pictures.shape[:2], dtype=torch.bool, device=pictures.device)
        if self.training:
            seen = torch.rand(seen.shape, device=seen.device) >= self.frame_dropout
            seen |= ~seen.any(1, keepdim=True)
        shown = _side_by_side(pictures)
        shown.mul_(seen.repeat_interleave(pictures.shape[-1], dim=1)[:, None, None])  # what is left out is grey
        known = torch.cat([self.look(shown.movedim(3, 1)), taken.flatten(1), seen.float()], dim=1)
        logits: Tensor = self.within(known, self.within.added(planned) + self.within.step[: planned.shape[2]])
        if self.after is None or planned.shape[2] < len(self.within.step):
            return logits
        # Convolutions that learned both dodged worse: what comes later is read from what serves dodging.
        later = self.after(known.detach(), self.after.added(planned)[:, :, -1:] + self.after.step)
        return torch.cat([logits, later], dim=2)


def _side_by_side(pictures: Tensor) -> Tensor:
    """uint8 (B, K, H, W, C) -> (B, H, W, K C) in [-1, 1], in the precision in which convolutions will multiply.

    These are the largest tensors of a training step. With the channels last convolutions take half of the time; bytes
    are put there picture by picture, in half of the time of a transpose; and numbers up to 255 and their distance to
    127.5 are exact in bf16.
    """
    batch, count, height, width, channels = pictures.shape
    shown = pictures.new_empty(batch, height, width, count, channels)
    for index in range(count):
        shown[:, :, :, index] = pictures[:, index]
    kind = pictures.device.type
    casts = not pictures.is_meta and torch.is_autocast_enabled(kind)  # meta tensors tell what a run will cost
    dtype = torch.get_autocast_dtype(kind) if casts else torch.float32
    return shown.flatten(3).to(dtype).sub_(127.5).div_(127.5)


class PlanReader(nn.Module):
    """Pictures, past and planned actions to the logit of an ending at each step of each plan.

    Its probability is the mean of its members'.
    """

    def __init__(self, config: PlanConfig, frame_shape: Sequence[int], action_size: int) -> None:
        super().__init__()
        self.config = config
        self.members = nn.ModuleList(PlanMember(config, frame_shape, action_size) for _ in range(config.members))

    def forward(self, pictures: Tensor, taken: Tensor, planned: Tensor) -> Tensor:
        """Logits (B, P, H), of a whole plan (B, P, H + afterwards), of an ending at each step if none came before.

        pictures: uint8 (B, K, H, W, C), decoded frames of the K ages of the config. taken: (B, actions_before, A),
        features of the actions that led here, oldest first and 0 where there was none. planned: (B, P, H, A), those of
        the plans, H up to the horizon only; (1, P, H, A) where all rows have the same.
        """
        logits = torch.stack([member(pictures, taken, planned).float() for member in self.members])
        return joined(logits)
