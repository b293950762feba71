"""A policy that learns from plans: DAgger (Ross et al. 2011, arXiv 1011.0686) in dreams that tell what plans risk.

At each moment of a dream the world model says of every action how likely the best plan that begins with it is to end
the episode (`DreamVectorEnv.action_risks`). The policy learns to take what risks least. It plays itself, so that it
learns what to do where it gets to; the first dreams, and always a share of them, are played by the plans. That answers
a question about each of the actions at once, where a policy gradient has to find out by dying.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any, Protocol, cast

import gymnasium as gym
import torch
from torch import Tensor
from torch.nn import functional as F

from worldsim.agents.config import AgentConfig, check_config, check_dagger
from worldsim.agents.errors import UnusableSpaceError, fitting_checkpoint
from worldsim.agents.networks import PolicyNetwork, network_spec
from worldsim.agents.rollout import Envs, check_autoreset, reset_seed
from worldsim.agents.values import ValueNetwork

TAUGHT_FIRST = 6  # updates until the policy plays all dreams but the teacher's share
PERSISTENCE = 0.002  # by so much less is what goes on as before held to risk
NOISE = 0.03  # share of random actions: how to get out of trouble is learned in trouble
CLEAR = 0.03  # from this difference between actions on a moment has its full weight, and never less than LEAST_WEIGHT
LEAST_WEIGHT = 0.1
RISK_WEIGHT = 10.0  # of the risk that the policy takes, beside the cross-entropy to what the plans want
AVERAGE_DECAY = 0.99


class TeachingEnvs(Protocol):
    """A vector env, as `DreamVectorEnv`, that says what actions risk."""

    def action_risks(self) -> Tensor:
        """(num_envs, actions), where each row stands, of each action the risk of the best plan that begins with it."""


class DaggerLearner:
    """Teaches `policy`, a running average of the network that learns, from the dreams of one rollout per `update()`.

    n updates equal m, a restored checkpoint, and n - m, bit for bit. Raises AgentConfigError for settings out of range,
    UnusableSpaceError for envs that tell no risks, or actions that are not discrete. Dreams of a model without a reader
    of plans raise UserError when they are first asked.
    """

    def __init__(
        self,
        config: AgentConfig,
        envs: Envs,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_config(config)
        check_dagger(config.dagger)
        check_autoreset(envs)
        if not hasattr(envs, "action_risks") or not isinstance(envs.single_action_space, gym.spaces.Discrete):
            raise UnusableSpaceError(
                f"kind dagger needs dreams that tell what actions risk, and discrete actions, got "
                f"{type(envs).__name__} with {envs.single_action_space}: use kind actor_critic."
            )
        self.config, self.envs, self.seed = config, envs, seed
        self.teacher = cast(TeachingEnvs, envs)
        self.value: ValueNetwork | None = None
        self.generator = torch.Generator().manual_seed(seed)
        self.network = PolicyNetwork(network_spec(envs, config.hidden, config.strides), self.generator)
        self.network.convolve_in(dtype)
        self.network.to(torch.device(device))
        self.policy = copy.deepcopy(self.network).requires_grad_(False)
        learned = config.dagger
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=learned.learning_rate, weight_decay=learned.weight_decay, fused=True
        )
        self.updates = 0

    def begin_with(self, state: Mapping[str, Any]) -> None:
        """Take the policy of an earlier learner's `state_dict()`, and nothing else."""
        for network in (self.network, self.policy):
            network.load_state_dict(state["policy"])

    def update(self) -> dict[str, float]:
        """Dreams of `horizon` steps in all rows, and the gradient steps on what the plans said there.

        Returns loss; excess_risk, what the likeliest action risks beyond the least, of the steps that the policy
        played, before it learned from them; excess_of_constant, that of the best constant action; decisive, the share
        of moments at which actions differ by CLEAR and more; terminations_per_step; and the speeds.
        """
        started = time.perf_counter()
        observations, risks, by_policy, terminations = self._play()
        played = time.perf_counter()
        metrics = self._judge(observations, risks, by_policy)
        if self.updates == 0:
            self.network.inputs.observe(observations)
            self.policy.inputs.load_state_dict(self.network.inputs.state_dict())
        metrics["loss"] = self._learn(observations, risks)
        self.updates += 1
        steps, ended = self.config.horizon * self.envs.num_envs, time.perf_counter()
        metrics["terminations_per_step"] = terminations / steps
        metrics["env_steps_per_second"] = steps / (played - started)
        metrics["steps_per_second"] = steps / (ended - started)
        return metrics

    def _play(self) -> tuple[Tensor, Tensor, Tensor, int]:
        """Of the moments that plans judged: observations (S, ...), risks (S, A), bool (S,) whether the policy played;
        and how many dreams ended.
        """
        rows, settings = self.envs.num_envs, self.config.dagger
        share = max(settings.teacher_share, 1.0 - self.updates / TAUGHT_FIRST)
        taught = self._draw(rows) < share
        shown, _ = self.envs.reset(seed=reset_seed(self.seed, self.updates))
        last = torch.full((rows,), -1)
        kept: list[tuple[Tensor, Tensor]] = []
        terminations = 0
        for step in range(self.config.horizon):
            observations = torch.as_tensor(shown).to(self.network.head.weight.device)
            with torch.no_grad():
                actions = self.network(observations).mode().cpu()
            if step % settings.label_every == 0:
                risks = self.teacher.action_risks().cpu()
                kept.append((observations, risks))
                choice = preferred(risks, last)
            actions = torch.where(taught, choice, actions)
            random = torch.randint(risks.shape[1], (rows,), generator=self.generator)
            actions = torch.where(self._draw(rows) < NOISE, random, actions)
            shown, _, terminated, truncated, _ = self.envs.step(self.network.actions.decode(actions))
            ended = torch.as_tensor(terminated).cpu() | torch.as_tensor(truncated).cpu()
            terminations += int(torch.as_tensor(terminated).sum())
            last = torch.where(ended, -1, actions)
        by_policy = (~taught).repeat(len(kept))
        return torch.cat([seen for seen, _ in kept]), torch.cat([said for _, said in kept]), by_policy, terminations

    @torch.no_grad()
    def _judge(self, observations: Tensor, risks: Tensor, by_policy: Tensor) -> dict[str, float]:
        excess = risks - risks.amin(1, keepdim=True)
        metrics = {
            "excess_of_constant": float(excess.mean(0).min()),
            "decisive": float((excess.amax(1) >= CLEAR).float().mean()),
        }
        if by_policy.any():
            parts = observations[by_policy].split(self.config.dagger.minibatch_size)
            likeliest = torch.cat([self.policy(part).mode().cpu() for part in parts])
            metrics["excess_risk"] = float(excess[by_policy].gather(1, likeliest[:, None]).mean())
        return metrics

    def _learn(self, observations: Tensor, risks: Tensor) -> float:
        """Gradient steps over shuffled minibatches; the mean loss."""
        config, device = self.config.dagger, observations.device
        losses = []
        parts = -(-len(risks) // config.minibatch_size)
        for _ in range(config.epochs):
            for part in torch.randperm(len(risks), generator=self.generator).tensor_split(parts):
                log_probs = self.network(observations[part.to(device)]).log_probs
                loss = teaching_loss(log_probs, risks[part].to(device), config.sharpness)
                self.optimizer.zero_grad()
                torch.autograd.backward(loss)
                torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.gradient_clip)
                self.optimizer.step()
                self._average()
                losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    @torch.no_grad()
    def _average(self) -> None:
        for average, newest in zip(self.policy.parameters(), self.network.parameters(), strict=True):
            average.lerp_(newest, 1 - AVERAGE_DECAY)

    def _draw(self, rows: int) -> Tensor:
        return torch.rand(rows, generator=self.generator)

    def state_dict(self) -> dict[str, Any]:
        """All of the learner's state: tensors and plain numbers, so that `torch.load(weights_only=True)` reads it."""
        return {
            "policy": self.policy.state_dict(),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`. Raises AgentConfigError if it comes from another network or agent."""
        with fitting_checkpoint():
            self.policy.load_state_dict(state["policy"])
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"].cpu())
            self.updates = int(state["updates"])


def preferred(risks: Tensor, last: Tensor) -> Tensor:
    """The least risky action of each row, (B,), for risks (B, A). last: (B,) int64, the one before, -1: none; where
    nothing flies, noise would decide, and who forgets what he just did stays where he is.
    """
    going_on = F.one_hot(last.clamp_min(0), risks.shape[1]) * (last >= 0)[:, None]
    return (risks - PERSISTENCE * going_on).argmin(1)


def teaching_loss(log_probs: Tensor, risks: Tensor, sharpness: float) -> Tensor:
    """Cross-entropy to a soft choice of what risks least, and the excess risk that the policy takes; (), of (B, A).

    sharpness: an action that risks so much more is wanted e times less. Moments at which actions differ weigh more.
    """
    gaps = risks.amax(1) - risks.amin(1)
    weight = (gaps / CLEAR).clamp(LEAST_WEIGHT, 1.0)
    return (weight * teaching_losses(log_probs, risks, sharpness, RISK_WEIGHT)).sum() / weight.sum()


def teaching_losses(log_probs: Tensor, risks: Tensor, sharpness: float, risk_weight: float) -> Tensor:
    """The same of each moment, (B,), all alike. risk_weight: of the excess risk beside the cross-entropy."""
    excess = risks - risks.amin(1, keepdim=True)
    wanted = (-excess / sharpness).softmax(1)
    return -(wanted * log_probs).sum(1) + risk_weight * (log_probs.exp() * excess).sum(1)
