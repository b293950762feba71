"""A small network learns to sample in few steps what the dynamics samples in many.

Most of a dream's cost is the denoising passes, and all that they must know is the way from noise to a frame: what
happened is in the memory already, and what it means in the belief. So after the training a network of its own, without
the blocks that do not look back in time, learns the sampler's way by heart (progressive distillation, Salimans & Ho
2022, arXiv 2202.00512): one of its steps is to end where several of the trained network's end. Sampling is
deterministic once the noise is drawn, so a frame is still chosen, not averaged. Memory, belief, reward and endings
stay those of the trained network, bit for bit; a policy and a calibration that rest on them stay valid.

It learns in dreams: no real frame is needed. Rows of dreams go on from start contexts along random actions, at
temperatures from cold to hot, and each dreamt frame is a lesson.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.data.actions import action_features
from worldsim.descent import Descent
from worldsim.device import autocast
from worldsim.diffusion import euler_step, sample
from worldsim.dynamics.config import DynamicsConfig
from worldsim.dynamics.dit import DiT
from worldsim.dynamics.dit_dynamics import DiTDynamics, DiTState, at_temperature
from worldsim.dynamics.protocol import Dynamics
from worldsim.errors import UserError
from worldsim.optimization import build_optimizers, warmup_cosine
from worldsim.scripted_policies import draw, drawable
from worldsim.world_model import WorldModel, row_generator

ROWS = 64
RESTARTS = 1 / 32  # chance of a row at each step, so that dreams of all ages are met
STICKINESS = (0.5, 0.98)  # a dream's actions repeat with a probability in this range
TEMPERATURES = (0.25, 3.0)
LEARNING_RATE = 0.003
WARMUP_STEPS = 50
EMA_DECAY = 0.998
GRADIENT_CLIP = 1.0


class DistillationLearner:
    """A `worldsim.training.Learner`. `average`, the running average (EMA) of the network that learns, is the result."""

    def __init__(
        self,
        model: WorldModel,
        *,
        steps: int,
        sampling_steps: int,
        seed: int = 0,
    ) -> None:
        """model: gives the dynamics to learn from, which stay as they are, and the contexts where dreams start.

        steps: of the whole distillation. sampling_steps: of the network that learns, below `finest_steps`. Raises
        UserError for dynamics that do not denoise or a number of steps that does not divide the finest.
        """
        teacher = model.dynamics
        if not isinstance(teacher, DiTDynamics):
            raise UserError(f"dynamics.kind={teacher.config.kind}: only dit denoises, so only that can be distilled")
        finest = teacher.config.finest_steps
        if not 0 < sampling_steps < finest or finest % sampling_steps:
            raise UserError(
                f"sampling_steps={sampling_steps}: expected a power of two below finest_steps, which is {finest}"
            )
        self._spec, self._device, self._dtype = model.spec, model.device, model.dtype
        self._steps, self._jump = steps, finest // sampling_steps
        self._model = model
        self._teacher = teacher.undistilled().requires_grad_(False).eval()
        self._config = replace(teacher.config, sampling_steps=sampling_steps, distillation_steps=steps)
        self.network = _with_sampler(self._teacher, self._config).to(self._device)
        self.network.take_time_blocks(self._teacher.dit)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self._optimizers = build_optimizers(
            teacher.config.optimizer, self.network, LEARNING_RATE, teacher.config.weight_decay, self._dtype
        )
        self._descent = Descent(
            self._loss,
            self.network,
            self.average,
            self._optimizers,
            gradient_clip=GRADIENT_CLIP,
            ema_decay=EMA_DECAY,
            generator=torch.Generator(),  # the loss draws nothing
            recordable=False,
        )
        self._space = drawable(self._spec.gym_action_space())
        self._random = np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self.step = 0
        self._stickiness = np.zeros(ROWS)
        self._actions = np.zeros((ROWS, *self._spec.action_shape), self._spec.action_dtype)
        self._temperature = torch.ones(ROWS)
        self._state = self._fresh(np.arange(ROWS))

    def update(self) -> dict[str, float]:
        """Dream one frame in every row, and learn its way from noise.

        Returns loss, the mean squared distance between where its steps and the teacher's end, tokens that change
        weighing more; error_0, error_1, ... of each step, all tokens alike; learning_rate, grad_norm. Distances are in
        mean squared innovations.
        """
        learning_rate = LEARNING_RATE * warmup_cosine(self.step, WARMUP_STEPS, self._steps)
        self._act(np.flatnonzero(self._random.random(ROWS) >= self._stickiness))
        actions = action_features(self._spec, torch.from_numpy(self._actions.copy()).to(self._device))
        noise = torch.randn(ROWS, 2, *self._teacher.latent_shape, generator=self._generator).to(self._device)
        finest = self._teacher.config.finest_steps
        with torch.no_grad():
            teacher = self._teacher.denoiser(self._state, actions)
            path = sample(teacher, at_temperature(noise[:, :1], self._temperature), finest).path
            dreamt = teacher.latents(path[-1])
            change = (dreamt - self._state.previous[:, None]).square().mean(-1)  # (B, 1, N)
        weight = self._teacher.token_weight(change)
        weight = weight / weight.mean()
        self.step += 1
        told = self._descent.step([actions, weight, *path], learning_rate, self.step)
        self._go_on(dreamt, actions, noise[:, 1:])
        return {name: float(value) for name, value in told.items()} | {"learning_rate": learning_rate}

    def _loss(self, actions: Tensor, weight: Tensor, *path: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Along the teacher's path after `actions`, and the error of each step. weight: of the tokens, (B, 1, N)."""
        finest = self._teacher.config.finest_steps
        learner = self._teacher.denoiser(self._state, actions, self.network)
        losses, errors = [], []
        for index in range(0, finest, self._jump):
            tau = torch.full((ROWS, 1), index / finest, device=self._device)
            step_size = torch.full_like(tau, self._jump / finest)
            with autocast(self._device, self._dtype):
                clean = learner(path[index], tau, step_size)
            end = euler_step(path[index], clean, tau, step_size)
            error = (end - path[index + self._jump]).square().mean(-1) * self._teacher.config.noise_scale**2
            losses.append((error * weight).mean())
            errors.append(error.mean().detach())
        return torch.stack(losses).mean(), {f"error_{index}": error for index, error in enumerate(errors)}

    def result(self, dynamics: Dynamics) -> DiTDynamics:
        """A copy of `dynamics`, those that were learnt from, with the network that samples."""
        assert isinstance(dynamics, DiTDynamics)
        made = DiTDynamics(self._config, *dynamics.latent_shape, dynamics.grid, dynamics.action_features)
        sampler = {f"sampler.{name}": tensor for name, tensor in self.average.state_dict().items()}
        made.load_state_dict(dynamics.undistilled().state_dict() | sampler)
        return made.to(self._device).requires_grad_(False).eval()

    @torch.no_grad()
    def _go_on(self, dreamt: Tensor, actions: Tensor, noise: Tensor) -> None:
        """Write the frame into the memory, and begin some rows anew."""
        self._state, _ = self._teacher.advance(self._state, dreamt, actions, noise, torch.zeros(ROWS))
        rows = np.flatnonzero(self._random.random(ROWS) < RESTARTS)
        if len(rows):
            self._state = self._teacher.restart_rows(self._state, torch.from_numpy(rows), self._fresh(rows))

    def _act(self, rows: NDArray[np.int64]) -> None:
        """Draw new actions for some rows."""
        for row in rows:
            self._actions[row] = draw(self._space, self._random)

    def _fresh(self, rows: NDArray[np.int64]) -> DiTState:
        """Dreams from random contexts for some rows, each with actions and a temperature of its own."""
        self._stickiness[rows] = self._random.uniform(*STICKINESS, size=len(rows))
        self._act(rows)
        self._temperature[rows] = torch.from_numpy(self._random.uniform(*TEMPERATURES, size=len(rows))).float()
        contexts = self._model.start_contexts
        index = torch.from_numpy(self._random.integers(len(contexts), size=len(rows)))
        generators = [row_generator(int(seed)) for seed in self._random.integers(2**31, size=len(rows))]
        begun = self._model.start_from(contexts.rows(index), generators).dynamics
        assert isinstance(begun, DiTState)
        return begun.clone()  # ordinary tensors, which a backward pass may keep

    def state_dict(self) -> dict[str, Any]:
        """Everything a bitwise resume needs."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "random": self._random.bit_generator.state,
            "generator": self._generator.get_state(),
            "stickiness": torch.from_numpy(self._stickiness.copy()),
            "actions": torch.from_numpy(self._actions.copy()),
            "temperature": self._temperature,
            "dreams": {field.name: getattr(self._state, field.name) for field in fields(self._state)},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self._random.bit_generator.state = state["random"]
        self._generator.set_state(state["generator"].cpu())
        self.step = int(state["step"])
        self._stickiness[:], self._actions[:] = state["stickiness"].numpy(), state["actions"].numpy()
        self._temperature = state["temperature"]
        dreams = state["dreams"]
        memory, filled, previous, belief = (
            dreams[name].to(self._device) for name in ("memory", "filled", "previous", "belief")
        )
        self._state = DiTState(memory, filled, previous, belief, int(dreams["clock"]))


def _with_sampler(dynamics: DiTDynamics, config: DynamicsConfig) -> DiT:
    """A network that samples, for dynamics like these with `config`, its weights drawn anew."""
    sampler = DiTDynamics(config, *dynamics.latent_shape, dynamics.grid, dynamics.action_features).sampler
    assert sampler is not None
    return sampler
