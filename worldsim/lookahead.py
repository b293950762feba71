"""What plans risk, by the reader of endings alone: no frame is dreamt.

The reader judges each frame that it remembers together with the actions since. So it can be asked of actions that are
not taken yet: would what is in these frames end the episode, k steps on, if I act like this? Frames that do not exist
yet tell nothing, as in its training, where frames are left out. That is a thousand times cheaper than a dream, and what
the dynamics lose cannot be lost. It foresees what is on its way already, and nothing that begins after now.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldsim.endings import ACTIONS_BEFORE, EndingReader


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


@torch.inference_mode()
def plan_risks(reader: EndingReader, shown: Tensor, plans: Tensor, discount: float = 1.0) -> Tensor:
    """Probability of an ending within the steps of each plan, (B, P).

    shown: (B, frames, 2 N D + A), what the reader reads now, see `EndingReader.forward`. plans: (P, H, A), features of
    the actions. Steps beyond the oldest age that the reader knows risk nothing. discount: factor on the probability of
    each step, for each step before it: below 1, what comes later counts less.
    """
    first, *others = reader.read_frame
    assert isinstance(first, nn.Linear)
    tokens, since, age_part = _split(first.weight, reader)
    rows, frames, size = len(shown), reader.frames, reader.action_size
    every_age = torch.arange(frames, device=shown.device)
    read, inside = reader.read_frames(shown, every_age)  # by age
    no_action = shown.new_zeros(rows, 1, size)
    past = reader.actions_since(torch.cat([shown[..., -size:], no_action], dim=1), every_age)
    fixed = read @ tokens.T + past @ since.T + first.bias  # (B, frames, width), by the age that a frame has now
    slots = since.unflatten(1, (ACTIONS_BEFORE + frames, size))  # (width, slots, A)
    alive = shown.new_ones(rows, len(plans))
    for step in range(plans.shape[1]):
        then = torch.tensor([age for age in reader.ages if age >= step], dtype=torch.int64, device=shown.device)
        if not len(then):
            break
        now = then - step
        planned = torch.stack([_planned(slots, plans[:, : step + 1], int(age)) for age in now], dim=1)  # (P, K, width)
        known = fixed[:, now] - _forgotten(past[:, now], since, then, frames, size)
        hidden = known[:, None] + planned + age_part[:, then].T
        for layer in others:
            hidden = layer(hidden)  # (B, P, K, evidence)
        evidence = (hidden * inside[:, now][:, None]).sum(2)
        ending = reader.logit(reader.judge(evidence))[..., 0].sigmoid()
        alive = alive * (1 - ending * discount**step)
    return 1 - alive


def _split(weight: Tensor, reader: EndingReader) -> tuple[Tensor, Tensor, Tensor]:
    """A first layer's weight by what it reads: tokens, actions and age."""
    actions = (ACTIONS_BEFORE + reader.frames) * reader.action_size
    return weight.split([weight.shape[1] - actions - reader.frames, actions, reader.frames], dim=1)


def _planned(slots: Tensor, plans: Tensor, age: int) -> Tensor:
    """What the steps of plans (P, T, A) add for a frame that is `age` steps old now, (P, width)."""
    begin = ACTIONS_BEFORE + age
    return torch.einsum("pta,wta->pw", plans, slots[:, begin : begin + plans.shape[1]])


def _forgotten(past: Tensor, since: Tensor, then: Tensor, frames: int, size: int) -> Tensor:
    """What actions before a frame add (B, K, width) that the reader will not be shown when the frame is `then` old."""
    lost = (ACTIONS_BEFORE - (frames - then)).clamp(min=0) * size  # (K,) numbers
    gone = torch.arange(past.shape[-1], device=past.device) < lost[:, None]
    return F.linear(past * gone, since)
