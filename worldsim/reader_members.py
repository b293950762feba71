"""What readers of endings and of plans share: networks that learn apart from real episodes what is to come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from worldsim.optimization import set_learning_rate, warmup_cosine

GRADIENT_CLIP = 1.0
HELD_OUT_EVERY = 250


class ReaderConfig(Protocol):
    """What the training of a reader is told."""

    steps: int
    learning_rate: float
    warmup_steps: int


def joined(logits: Tensor) -> Tensor:
    """The logit of the members' mean probability, (...), from theirs (M, ...)."""
    return F.logsigmoid(logits).logsumexp(0) - F.logsigmoid(-logits).logsumexp(0)


def logit_of_share(happened: NDArray[np.bool_]) -> float:
    """The logit at which a reader begins: how often it happened, or as good as never or always."""
    rate = float(happened.mean())
    return float(np.log(max(rate, 1e-6) / max(1 - rate, 1e-6)))


def draw_more_of(
    wanted: NDArray[np.int64], others: NDArray[np.int64], count: int, share: float, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Some of two kinds (count,), that share of them of the wanted kind, and the weights that undo the taste for them.

    All alike where one kind is missing.
    """
    both = len(wanted) + len(others)
    drawn_of_wanted = round(count * share) if len(wanted) and len(others) else 0
    if not drawn_of_wanted:
        return np.concatenate([wanted, others])[random.integers(both, size=count)], np.ones(count, np.float32)
    shares = ((wanted, drawn_of_wanted), (others, count - drawn_of_wanted))
    parts = [(of, drawn) for of, drawn in shares if drawn]
    chosen = np.concatenate([of[random.integers(len(of), size=drawn)] for of, drawn in parts])
    weights = [np.full(drawn, len(of) / both * count / drawn, np.float32) for of, drawn in parts]
    return chosen, np.concatenate(weights)


class MembersLearner(ABC):
    """A `worldsim.training.Learner` of a reader, a network with `members`, which learn apart."""

    def __init__(
        self,
        config: ReaderConfig,
        reader: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        random: np.random.Generator,
    ) -> None:
        """random: what the members' batches are drawn with."""
        self._schedule, self._trained = config, reader
        self._optimizers, self._random = optimizers, random
        self.step = 0

    @abstractmethod
    def loss(self, member: nn.Module) -> Tensor:
        """A member's loss, (), on a batch of its own."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """held_out_loss and that of a constant, held_out_constant; nothing without held-out episodes."""

    def finish(self) -> dict[str, float]:
        """What comes after the last step, before the last judgement, and figures of it."""
        return {}

    def update(self) -> dict[str, float]:
        """One optimizer step.

        Returns loss, learning_rate and grad_norm, means over the members; now and then, and after the last step, also
        what `evaluate` says, and after the last what `finish` does.
        """
        schedule = self._schedule
        learning_rate = schedule.learning_rate * warmup_cosine(self.step, schedule.warmup_steps, schedule.steps)
        set_learning_rate(self._optimizers, learning_rate)
        self._trained.zero_grad(set_to_none=True)
        self._trained.train()
        told = [self._backward(member) for member in self._trained.get_submodule("members").children()]
        for optimizer in self._optimizers:
            optimizer.step()
        self._trained.eval()
        self.step += 1
        loss, norm = np.mean(told, axis=0).tolist()
        metrics = {"loss": loss, "learning_rate": learning_rate, "grad_norm": norm}
        if self.step == schedule.steps:
            metrics |= self.finish()
        if self.step % HELD_OUT_EVERY == 0 or self.step == schedule.steps:
            metrics |= self.evaluate()
        return metrics

    def _backward(self, member: nn.Module) -> tuple[float, float]:
        """Gradients of a member; its loss and the gradients' norm."""
        loss = self.loss(member)
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(member.parameters(), GRADIENT_CLIP)
        return float(loss.detach()), float(norm)

    def state_dict(self) -> dict[str, Any]:
        """Everything a bitwise resume needs, but for torch's own generator, which dropout draws from."""
        return {
            "step": self.step,
            "reader": self._trained.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "random": self._random.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._trained.load_state_dict(state["reader"])
        self._trained.eval()
        for optimizer, kept in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self._random.bit_generator.state = state["random"]
        self.step = int(state["step"])
