"""PPO in one file, against `gymnasium.vector` and nothing else: for real envs and for dreams alike.

    python examples/ppo.py CartPole-v1
    python examples/ppo.py worldsim:worldsim/Dream-v0 --vectorization vector_entry_point \
        --kwargs '{"model": "quickstart", "observation": "features", "max_episode_steps": 100}'

Proximal policy optimisation (Schulman et al., 2017) with generalised advantages, for Box observations, which are
flattened, and Discrete actions. The env must reset within the step that ends an episode (AutoresetMode.SAME_STEP).
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor, nn
from torch.distributions import Categorical


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env", help="a Gymnasium id")
    parser.add_argument("--kwargs", type=json.loads, default={}, help="for gymnasium.make_vec, as JSON")
    parser.add_argument("--vectorization", default="sync", choices=["sync", "vector_entry_point"])
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--time-steps", type=int, default=100_000, help="of all envs together")
    parser.add_argument("--horizon", type=int, default=64, help="steps of each env between two updates")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--minibatches", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--gamma", type=float, default=0.99)
    parser.add_argument("--gae-lambda", type=float, default=0.95)
    parser.add_argument("--clip", type=float, default=0.2)
    parser.add_argument("--entropy", type=float, default=0.005)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def make(args: argparse.Namespace) -> gym.vector.VectorEnv[Any, Any, Any]:
    """`gymnasium.make_vec`, which takes the autoreset mode of its own vector envs in another place."""
    ours: dict[str, Any] = {}
    if args.vectorization == "sync":
        ours["vector_kwargs"] = {"autoreset_mode": AutoresetMode.SAME_STEP}
    envs = gym.make_vec(args.env, args.num_envs, args.vectorization, **ours, **args.kwargs)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP, envs.metadata
    assert isinstance(envs.single_action_space, gym.spaces.Discrete), envs.single_action_space
    return envs


def layer(inputs: int, outputs: int, gain: float) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear


class Agent(nn.Module):
    """A policy and a value, two small networks on the flat observation."""

    def __init__(self, envs: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        super().__init__()
        size = int(np.prod(envs.single_observation_space.shape or ()))
        space = envs.single_action_space
        assert isinstance(space, gym.spaces.Discrete)

        def network(outputs: int, gain: float) -> nn.Sequential:
            hidden = [layer(size, 64, 2**0.5), nn.Tanh(), layer(64, 64, 2**0.5), nn.Tanh()]
            return nn.Sequential(*hidden, layer(64, outputs, gain))

        self.policy, self.value = network(int(space.n), 0.01), network(1, 1.0)

    def forward(self, observations: Tensor) -> tuple[Categorical, Tensor]:
        """Observations (B, F) to the distribution of actions and the values (B,)."""
        return Categorical(logits=self.policy(observations)), self.value(observations)[:, 0]


def flat(observations: Any) -> Tensor:
    """(B, ...) to float32 (B, F)."""
    return torch.as_tensor(np.asarray(observations), dtype=torch.float32).flatten(1)


def main(arguments: Sequence[str] | None = None) -> list[float]:
    """Train and print; returns the mean return of the last 100 episodes at each update."""
    args = parse(arguments)
    torch.manual_seed(args.seed)
    envs = make(args)
    agent = Agent(envs)
    optimizer = torch.optim.Adam(agent.parameters(), args.learning_rate, eps=1e-5)
    begin, batch = time.monotonic(), args.horizon * args.num_envs
    running, finished, history = np.zeros(args.num_envs), deque[float](maxlen=100), []
    observations = flat(envs.reset(seed=args.seed)[0])
    for update in range(max(1, args.time_steps // batch)):
        seen, chosen, log_probs, values = [], [], [], []
        rewards, ends = np.zeros((2, args.horizon, args.num_envs), np.float32)
        for t in range(args.horizon):
            with torch.no_grad():
                policy, value = agent(observations)
                actions = policy.sample()
            shown, reward, terminated, truncated, infos = envs.step(actions.numpy())
            seen.append(observations)
            chosen.append(actions)
            log_probs.append(policy.log_prob(actions))
            values.append(value)
            rewards[t], ends[t] = reward, terminated | truncated
            running += reward
            for row in np.flatnonzero(terminated | truncated):
                finished.append(float(running[row]))
                running[row] = 0.0
                if not terminated[row]:  # only cut: what was still to come counts
                    with torch.no_grad():
                        rewards[t, row] += args.gamma * agent(flat(infos["final_obs"][row][None]))[1].item()
            observations = flat(shown)

        with torch.no_grad():
            following = agent(observations)[1]
        advantages = torch.zeros(args.horizon, args.num_envs)
        advantage = torch.zeros(args.num_envs)
        for t in reversed(range(args.horizon)):
            goes_on = 1.0 - torch.from_numpy(ends[t])
            error = torch.from_numpy(rewards[t]) + args.gamma * goes_on * following - values[t]
            advantage = error + args.gamma * args.gae_lambda * goes_on * advantage
            advantages[t], following = advantage, values[t]

        flat_seen, flat_chosen, old_log_probs = torch.cat(seen), torch.cat(chosen), torch.cat(log_probs)
        flat_advantages, returns = advantages.flatten(), advantages.flatten() + torch.cat(values)
        for _ in range(args.epochs):
            for rows in torch.randperm(batch).chunk(args.minibatches):
                policy, value = agent(flat_seen[rows])
                scaled = flat_advantages[rows]
                scaled = (scaled - scaled.mean()) / (scaled.std() + 1e-8)
                ratio = (policy.log_prob(flat_chosen[rows]) - old_log_probs[rows]).exp()
                gain = torch.min(ratio * scaled, ratio.clamp(1 - args.clip, 1 + args.clip) * scaled).mean()
                loss = 0.5 * (value - returns[rows]).square().mean() - gain - args.entropy * policy.entropy().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()

        history.append(float(np.mean(finished)) if finished else float("nan"))
        rate = batch * (update + 1) / (time.monotonic() - begin)
        print(f"step {batch * (update + 1):>8}   return {history[-1]:8.2f}   {rate:,.0f} steps/s", flush=True)
    envs.close()
    return history


if __name__ == "__main__":
    main()
