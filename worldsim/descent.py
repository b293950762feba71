"""Gradient steps of a network and the running average that follows it: what a learner's `update` does with a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from worldsim import distributed
from worldsim.cuda_graphs import Recorder
from worldsim.optimization import average_decay, average_weights, set_learning_rate


class Descent:
    """Steps down the gradient of `loss`; on a single GPU recorded as a CUDA graph where `recordable`."""

    def __init__(
        self,
        loss: distributed.Loss,
        model: nn.Module,
        average: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        gradient_clip: float,
        ema_decay: float,
        generator: torch.Generator,
        recordable: bool,
    ) -> None:
        """loss: of the tensors of a batch, and its parts. average: what `worldsim.optimization.average_weights` moves.

        generator: on the CPU; `noise` follows from it, the generator on the model's device from which `loss` must draw.
        recordable: whether `loss` is as `worldsim.cuda_graphs.Recorder` wants it.
        """
        self._loss, self._model, self._average, self._optimizers = loss, model, average, optimizers
        self._gradient_clip, self._ema_decay, self._generator = gradient_clip, ema_decay, generator
        self._device = next(model.parameters()).device
        self.noise = generator if self._device.type == "cpu" else torch.Generator(self._device)
        self._names: list[str] = []
        self._recorder: Recorder | None = None
        if recordable and self._device.type == "cuda" and distributed.size() == 1:
            self._recorder = Recorder(self._recorded, generators=[self.noise], optimizers=optimizers)

    def step(self, batch: Sequence[Tensor], learning_rate: float, steps: int) -> dict[str, Tensor]:
        """One step on a batch, the `steps`-th of the training; gives "loss", "grad_norm" and the parts of the loss."""
        decay = average_decay(self._ema_decay, steps)
        if self.noise is not self._generator:  # seeded anew: what is saved is the one on the CPU, whatever the device
            self.noise.manual_seed(int(torch.randint(2**62, (), generator=self._generator)))
        if self._recorder is not None:
            rates = torch.tensor([learning_rate, 1.0 - decay], device=self._device)
            told = self._recorder(*batch, rates)
            return dict(zip(self._names, told, strict=True))
        set_learning_rate(self._optimizers, learning_rate)
        loss, norm, parts = self._descended(batch)
        average_weights(self._average, self._model, decay)
        return {"loss": loss, "grad_norm": distributed.whole(norm), **parts}

    def _descended(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss, parts = self._loss(*batch)
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), self._gradient_clip)
        for optimizer in self._optimizers:
            optimizer.step()
        return loss.detach(), norm, parts

    def _recorded(self, *batch_and_rates: Tensor) -> tuple[Tensor, ...]:
        """The step with its rates (learning rate, share of the average that is replaced) as a tensor (2,).

        Optimizers take the learning rate as a number, which a recording would keep. But their steps are proportional
        to it, weight decay included: so they take one of rate 1, of which the weights go the share that is due.
        """
        *batch, rates = batch_and_rates
        parameters: list[Tensor] = list(self._model.parameters())
        before = [parameter.detach().clone() for parameter in parameters]
        set_learning_rate(self._optimizers, 1.0)
        loss, norm, parts = self._descended(batch)
        with torch.no_grad():
            torch._foreach_sub_(parameters, before)
            torch._foreach_mul_(parameters, rates[0])
            torch._foreach_add_(parameters, before)
            means: list[Tensor] = list(self._average.parameters())
            moves = torch._foreach_sub(parameters, means)
            torch._foreach_mul_(moves, rates[1])
            torch._foreach_add_(means, moves)
            for kept, newest in zip(self._average.buffers(), self._model.buffers(), strict=True):
                kept.copy_(newest)
        named = {"loss": loss, "grad_norm": norm, **parts}
        self._names = list(named)
        return tuple(named.values())
