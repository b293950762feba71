"""On-policy actor-critic with lambda-returns and PPO's clipped objective, in any vector env."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldsim.agents.config import ActorCriticConfig, check_config, entropy_weight
from worldsim.agents.errors import AgentConfigError, fitting_checkpoint
from worldsim.agents.networks import PolicyNetwork, network_spec
from worldsim.agents.returns import lambda_returns
from worldsim.agents.rollout import (
    Envs,
    EpisodeStatistics,
    Given,
    Rollout,
    check_autoreset,
    play_rollout,
    reset_seed,
)
from worldsim.agents.values import ValueNetwork
from worldsim.cuda_graphs import Recorder

CHUNK = 1024  # rows per forward pass outside the gradient steps: bounds the memory that pixels take
RANGE_RATE = 0.1  # share of the newest update in the moving average of the returns' percentile range


@dataclass(frozen=True)
class Batch:
    """The transitions of an update, flattened: S = T * B rows.

    observations: (S, ...). raw_actions: (S,) or (S, A). log_probs: (S,) under the policy that acted.
    returns, advantages: (S,) float32; advantages are scaled.
    """

    observations: Tensor
    raw_actions: Tensor
    log_probs: Tensor
    returns: Tensor
    advantages: Tensor


class ActorCriticLearner:
    """Trains `policy` and `value` in `envs`, one rollout of all rows per `update()`.

    Everything random comes from the learner's own generator and from the seeds it gives to `envs.reset`. With
    `config.reset_each_update`, n updates equal m, a restored checkpoint, and n - m, bit for bit. Without, episodes are
    carried from update to update, and a restored learner begins new ones. dtype: in which pictures are convolved.
    Raises AgentConfigError for settings out of range, UnusableSpaceError for envs it cannot learn in.
    """

    def __init__(
        self,
        config: ActorCriticConfig,
        envs: Envs,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_config(config)
        check_autoreset(envs)
        self.config = config
        self.envs = envs
        self.seed = seed
        self.device = torch.device(device)
        self.generator = torch.Generator().manual_seed(seed)
        spec = network_spec(envs, config.hidden, config.strides)
        self.policy = PolicyNetwork(spec, self.generator)
        if config.initial_persistence and self.policy.persistence is None:
            raise AgentConfigError(
                f"initial_persistence={config.initial_persistence} needs discrete actions and observations that tell "
                f"the last one (a world model's features or frame stack), got {envs.single_action_space} and "
                f"{envs.single_observation_space}: set it to 0."
            )
        self.policy.persist(config.initial_persistence)
        self.policy.convolve_in(dtype)
        self.policy.to(self.device)
        self.value = ValueNetwork(spec, self.generator).to(self.device)
        self.optimizer = torch.optim.Adam(
            [*self.policy.parameters(), *self.value.parameters()],
            lr=config.learning_rate,
            eps=config.adam_epsilon,
            fused=True,
        )
        # By whether the policy takes part; on a GPU, where launching a step takes longer than the step, recorded.
        self._gradient_steps: dict[bool, Callable[..., tuple[Tensor, ...]]] = {
            with_policy: partial(self._gradient_step, with_policy) for with_policy in (True, False)
        }
        if self.device.type == "cuda":
            self._gradient_steps = {
                with_policy: Recorder(step, optimizers=[self.optimizer])
                for with_policy, step in self._gradient_steps.items()
            }
        self.updates = 0
        self.returns_range = torch.zeros(())
        self._statistics = EpisodeStatistics(envs.num_envs)
        self._observations: Given | None = None

    def begin_with(self, state: Mapping[str, Any]) -> None:
        """Take policy and value from an earlier learner's `state_dict()`, and nothing else."""
        self.policy.load_state_dict(state["policy"])
        self.value.load_state_dict(state["value"])

    def update(self) -> dict[str, float]:
        """One rollout and the gradient steps on it. Returns the metrics by name (all finite unless training broke)."""
        started = time.perf_counter()
        rollout = self._play()
        played = time.perf_counter()
        inputs = rollout.observations[:-1].flatten(0, 1)  # (S, ...)
        begins = self.updates == 0 and not self.policy.head.weight.any()
        if begins:
            # Both heads are still zero (not so after `begin_with`), so the statistics change neither the actions just
            # taken nor the values; those of the last action, which `persist` reads, never change.
            self.policy.inputs.observe(inputs)
        batch, metrics = self._prepare(rollout)
        metrics |= self._optimise(batch)
        if not begins:
            # After the gradient steps: within an update, one set of statistics acts and learns.
            self.policy.inputs.observe(inputs)
        self.updates += 1
        steps = rollout.rewards.numel()
        ended = time.perf_counter()
        metrics["env_steps_per_second"] = steps / (played - started)
        metrics["steps_per_second"] = steps / (ended - started)
        return metrics

    def _play(self) -> Rollout:
        if self.config.reset_each_update or self._observations is None:
            self._observations, _ = self.envs.reset(seed=reset_seed(self.seed, self.updates))
            self._statistics.restart()
        rollout, self._observations = play_rollout(
            self.envs, self.policy, self._observations, self.config.horizon, self.generator, self._statistics
        )
        return rollout

    @torch.no_grad()
    def _prepare(self, rollout: Rollout) -> tuple[Batch, dict[str, float]]:
        """Values, returns and scaled advantages of a rollout."""
        observations = rollout.observations.flatten(0, 1)  # ((T+1) * B, ...)
        rows = rollout.rewards.shape[1]
        inputs = self._in_chunks(self.policy.inputs, observations)
        values = self._in_chunks(self.value, inputs).unflatten(0, (-1, rows))  # (T+1, B)
        next_values = values[1:].clone()
        if len(rollout.final_at):
            steps, ended_rows = rollout.final_at.unbind(-1)
            next_values[steps, ended_rows] = self._in_chunks(self._values, rollout.final_observations)
        config = self.config
        returns = lambda_returns(
            rollout.rewards,
            next_values,
            rollout.continuation,
            rollout.terminated | rollout.truncated,
            config.gamma,
            config.return_lambda,
        )
        advantages = returns - values[:-1]
        raw_actions = rollout.raw_actions.flatten(0, 1)
        transitions = observations[: len(raw_actions)]
        pairs = (inputs[: len(raw_actions)], raw_actions)
        batch = Batch(
            transitions,
            raw_actions,
            self._in_chunks(lambda i, a: self.policy.distribution(i).log_prob(a), *pairs),
            returns.flatten(),
            self._scale(advantages, returns).flatten(),
        )
        unexplained = advantages.var(correction=0) / returns.var(correction=0).clamp_min(1e-8)
        metrics = {
            "reward_per_step": rollout.rewards.mean().item(),
            "terminations_per_step": rollout.terminated.float().mean().item(),
            "value_at_start": values[0].mean().item(),
            "return_at_start": returns[0].mean().item(),
            "explained_variance": 1.0 - unexplained.item(),
            "advantage_std": advantages.std(correction=0).item(),
        }
        if self._statistics.returns:
            metrics["episode_return"] = float(np.mean(self._statistics.returns))
            metrics["episode_length"] = float(np.mean(self._statistics.lengths))
        return batch, metrics

    def _values(self, observations: Tensor) -> Tensor:
        values: Tensor = self.value(self.policy.inputs(observations))
        return values

    def _in_chunks(self, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """`function` of row-wise slices of the tensors, joined."""
        return torch.cat([function(*parts) for parts in zip(*(x.split(CHUNK) for x in tensors), strict=True)])

    def _scale(self, advantages: Tensor, returns: Tensor) -> Tensor:
        centred = advantages - advantages.mean()
        if self.config.advantage_scale == "std":
            return centred / advantages.std(correction=0).clamp_min(self.config.advantage_floor)
        # Hafner et al. (2023), "Mastering diverse domains through world models", section on actor learning.
        low, high = torch.quantile(returns.flatten(), torch.tensor([0.05, 0.95], device=returns.device))
        rate = RANGE_RATE if self.updates else 1.0
        self.returns_range = self.returns_range.lerp((high - low).cpu(), rate)
        return centred / self.returns_range.clamp_min(1.0).to(centred.device)

    def _optimise(self, batch: Batch) -> dict[str, float]:
        """Gradient steps over shuffled minibatches."""
        config = self.config
        bonus = entropy_weight(config, self.updates)
        self.value.observe(batch.returns)
        size = len(batch.returns)
        parts = -(-size // config.minibatch_size)
        weight = torch.tensor(bonus, device=self.device)
        policy_active = True
        policy_parts: list[Tensor] = []
        value_losses: list[Tensor] = []
        epochs = 0
        for _ in range(config.epochs):
            newest: list[Tensor] = []
            for part in torch.randperm(size, generator=self.generator).tensor_split(parts):
                rows = part.to(self.device)
                transitions = (tensor[rows] for tensor in vars(batch).values())
                value_loss, *told = self._gradient_steps[policy_active](*transitions, weight)
                value_losses.append(value_loss)
                newest += told
            policy_parts += newest
            epochs += policy_active
            if config.max_kl and newest and float(torch.stack(newest)[:, 2].mean()) > config.max_kl:
                policy_active = False
        policy_loss, entropy, divergence, clipped = torch.stack(policy_parts).mean(0).tolist()
        value_loss_mean = float(torch.stack(value_losses).mean())
        return {
            "loss": policy_loss - bonus * entropy + value_loss_mean,
            "policy_loss": policy_loss,
            "value_loss": value_loss_mean,
            "entropy": entropy,
            "entropy_bonus": bonus,
            "approx_kl": divergence,
            "clip_fraction": clipped,
            "policy_epochs": float(epochs),
        }

    def _gradient_step(
        self,
        with_policy: bool,
        observations: Tensor,
        raw_actions: Tensor,
        log_probs: Tensor,
        returns: Tensor,
        advantages: Tensor,
        bonus: Tensor,
    ) -> tuple[Tensor, ...]:
        """One on some transitions, as in a `Batch`; bonus: () the weight of the entropy.

        Gives the value's loss, and of the policy its loss, entropy, KL(old || new) and clipped share, (4,).
        """
        with torch.set_grad_enabled(with_policy):  # what value and policy share must not move while the policy rests
            shared = self.policy.inputs(observations)
        inputs = shared.detach().requires_grad_(shared.requires_grad)
        self.optimizer.zero_grad()
        value_loss = self.value.loss(inputs, returns)
        torch.autograd.backward(value_loss)
        torch.nn.utils.clip_grad_norm_(self.value.parameters(), self.config.gradient_clip)
        told = [value_loss.detach()]
        if with_policy:
            told.append(self._policy_backward(inputs, raw_actions, log_probs, advantages, bonus))
            if shared.requires_grad:
                shared.backward(inputs.grad)
            torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        return tuple(told)

    def _policy_backward(
        self, inputs: Tensor, raw_actions: Tensor, log_probs: Tensor, advantages: Tensor, bonus: Tensor
    ) -> Tensor:
        """Gradients of the clipped objective. Returns loss, entropy, KL(old || new), clipped share: (4,)."""
        clip = self.config.clip_ratio
        policy = self.policy.distribution(inputs)
        log_ratio = policy.log_prob(raw_actions) - log_probs
        ratio = log_ratio.exp()
        # Schulman et al. (2017), "Proximal policy optimization algorithms", eq. 7.
        loss = -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages).mean()
        entropy = policy.entropy().mean()
        torch.autograd.backward(loss - bonus * entropy)
        with torch.no_grad():
            divergence = (ratio - 1 - log_ratio).mean()
            clipped = ((ratio - 1).abs() > clip).float().mean()
            return torch.stack([loss, entropy, divergence, clipped])

    def state_dict(self) -> dict[str, Any]:
        """All of the learner's state: tensors and plain numbers, so that `torch.load(weights_only=True)` reads it."""
        return {
            "policy": self.policy.state_dict(),
            "value": self.value.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "updates": self.updates,
            "returns_range": self.returns_range,
            "episode_returns": list(self._statistics.returns),
            "episode_lengths": list(self._statistics.lengths),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`. Raises AgentConfigError if it comes from another network or agent."""
        with fitting_checkpoint():
            self.policy.load_state_dict(state["policy"])
            self.value.load_state_dict(state["value"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"].cpu())
            self.updates = int(state["updates"])
            self.returns_range = state["returns_range"].cpu()
            returns, lengths = state["episode_returns"], state["episode_lengths"]
        self._statistics = EpisodeStatistics(self.envs.num_envs)
        self._statistics.returns.extend(returns)
        self._statistics.lengths.extend(lengths)
        self._observations = None
