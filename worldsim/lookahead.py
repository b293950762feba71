"""What plans risk, by the reader of endings alone: no frame is dreamt.

The reader judges each frame that it remembers together with the actions since. So it can be asked of actions that are
not taken yet: would what is in these frames end the episode, k steps on, if I act like this? Frames that do not exist
yet tell nothing, as in its training, where frames are left out. That is a thousand times cheaper than a dream, and what
the dynamics lose cannot be lost. It foresees what is on its way already, and nothing that begins after now.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldsim.endings import ACTIONS_BEFORE, EndingReader, ReaderMember

DISCOUNT = 0.97  # of what plans risk, a step: what comes sooner is surer


def simple_plans(choices: int, steps: int, changes: tuple[int, ...] = (1, 4)) -> Tensor:
    """Plans int64 (P, steps) of discrete actions: all that keep one, and all that change it once, after so many steps.

    The first action of every one of them is of the first `choices`, in ascending order.
    """
    plans = [[first] * steps for first in range(choices)]
    plans += [
        [first] * after + [then] * (steps - after)
        for first in range(choices)
        for then in range(choices)
        for after in changes
        if first != then and after < steps
    ]
    return torch.tensor(sorted(plans))


def action_risks(reader: EndingReader, shown: Tensor, plans: Tensor, features: Tensor) -> Tensor:
    """Of each first action the risk of the best plan that begins with it, (B, actions); see `plan_risks`.

    plans: int64 (P, H), of which each action begins at least one. features: of its actions, (P, H, A).
    """
    of_plans = plan_risks(reader, shown, features, DISCOUNT)
    choices = int(plans[:, 0].max()) + 1
    return torch.stack([of_plans[:, plans[:, 0] == choice].amin(1) for choice in range(choices)], dim=1)


@torch.inference_mode()
def plan_risks(reader: EndingReader, shown: Tensor, plans: Tensor, discount: float = 1.0) -> Tensor:
    """Probability of an ending within the steps of each plan, (B, P).

    shown: (B, frames, 2 N D + A), what the reader reads now, see `EndingReader.forward`. plans: (P, H, A), features of
    the actions. Steps beyond the oldest age that the reader knows risk nothing. discount: factor on the probability of
    each step, for each step before it: below 1, what comes later counts less.
    """
    members = [_Prepared(cast(ReaderMember, member), shown, plans) for member in reader.members]
    alive = shown.new_ones(len(shown), len(plans))
    for step in range(plans.shape[1]):
        ages = [age for age in reader.ages if age >= step]
        if not ages:
            break
        ending = reader.joined(torch.stack([member.logits(step, ages) for member in members])).sigmoid()
        alive = alive * (1 - ending * discount**step)
    return 1 - alive


class _Prepared:
    """What a member's first layer makes of what is known, once for all plans and steps: it adds up what it reads."""

    def __init__(self, member: ReaderMember, shown: Tensor, plans: Tensor) -> None:
        self.member, self.plans = member, plans
        first, *self.others = member.read_frame
        assert isinstance(first, nn.Linear)
        frames, size = member.frames, member.action_size
        actions = (ACTIONS_BEFORE + frames) * size
        parts = [first.in_features - actions - frames, actions, frames]
        tokens, self.since, self.age = first.weight.split(parts, dim=1)
        every_age = torch.arange(frames, device=shown.device)
        read, self.inside = member.read_frames(shown, every_age)  # by the age that a frame has now, as all below
        led_and_nothing = F.pad(shown[..., -size:], (0, 0, 0, 1))
        self.past = member.actions_since(led_and_nothing, every_age)
        self.known = read @ tokens.T + F.linear(self.past, self.since, first.bias)  # (B, frames, width)

    def logits(self, step: int, ages: list[int]) -> Tensor:
        """Of an ending at a step of each plan, (B, P), from the frames that will have these ages then."""
        then = torch.tensor(ages, device=self.known.device)
        now = then - step
        planned = torch.stack([self._planned(step, age) for age in now.tolist()], dim=1)  # (P, K, width)
        hidden = (self.known[:, now] - self._forgotten(then, now))[:, None] + planned + self.age[:, then].T
        for layer in self.others:
            hidden = layer(hidden)  # (B, P, K, evidence)
        evidence = (hidden * self.inside[:, now][:, None]).sum(2)
        logits: Tensor = self.member.logit(self.member.judge(evidence))[..., 0]
        return logits

    def _planned(self, step: int, age: int) -> Tensor:
        """What the plans' actions up to a step add for the frame of an age, (P, width)."""
        size = self.member.action_size
        begin = (ACTIONS_BEFORE + age) * size
        taken = self.plans[:, : step + 1].flatten(1)
        return F.linear(taken, self.since[:, begin : begin + taken.shape[1]])

    def _forgotten(self, then: Tensor, now: Tensor) -> Tensor:
        """What actions before the frames add, (B, K, width), that will not be shown when the frames are older."""
        lost = (ACTIONS_BEFORE - (self.member.frames - then)).clamp(min=0) * self.member.action_size  # (K,) numbers
        gone = torch.arange(self.past.shape[-1], device=then.device) < lost[:, None]
        return F.linear(self.past[:, now] * gone, self.since)
