"""Stable-Baselines3's PPO in the dream of Take Cover, judged in the real one as our own agent is.

    python -m benchmarks.sb3_take_cover --out runs/sb3 --episodes runs/take_cover/episodes

PPO's defaults but for what its options say; the dreams start from real moments and are cut after `--horizon` steps.
Writes OUT/ppo.zip (Stable-Baselines3's own format, with pickles inside: load only your own) and OUT/verdict.json; a
rerun with an OUT that holds ppo.zip judges it without training. Of a model whose agent reads frames OUT/world_model is
a copy that shows features. With `--episodes`, a folder of real episodes, the verdict has the agent shown another
episode's frames, and the measures of the world model; evaluation seeds avoid those of the episodes. Any other world
model works as well: `--model`.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

from benchmarks.features_only import features_only
from worldsim.agents.sb3 import Sb3Policy, Sb3VecEnv
from worldsim.data.store import EpisodeStore
from worldsim.device import choose_device, choose_precision
from worldsim.dream import DreamVectorEnv
from worldsim.evaluation.verdict import print_verdict
from worldsim.model_folder import find_model, load_model
from worldsim.workflow.config import EvaluateConfig
from worldsim.workflow.machine import Machine
from worldsim.workflow.policies import DreamTrainedPolicy, EachRow
from worldsim.workflow.verdict import judge


def main() -> None:
    """Train, unless that is done, and judge."""
    arguments = _arguments()
    folder = features_only(find_model(arguments.model), arguments.out / "world_model")
    device = choose_device("auto")
    machine = Machine(device, choose_precision("auto", device))
    learned = arguments.out / "ppo.zip"
    seconds = {"agent": 0.0}
    if not learned.exists():
        begin = time.monotonic()
        train(folder, machine, learned, arguments)
        seconds["agent"] = time.monotonic() - begin
    begin = time.monotonic()
    settings = EvaluateConfig(
        episodes=arguments.real_episodes,
        dream_episodes=arguments.real_episodes,
        greedy=arguments.greedy,
        workers=arguments.workers,
    )
    verdict = judge(
        folder,
        partial(load_learned, folder, learned, greedy=arguments.greedy, dtype=machine.dtype),
        dream_actions(PPO.load(learned, device="cpu"), arguments.greedy),
        settings,
        machine,
        None if arguments.episodes is None else EpisodeStore.open(arguments.episodes),
        lambda: {**seconds, "evaluate": time.monotonic() - begin},
        {"agent_kind": "stable-baselines3 PPO", "time_steps": int(PPO.load(learned, device="cpu").num_timesteps)},
    )
    verdict.write(arguments.out)
    print_verdict(verdict)


def train(folder: Path, machine: Machine, learned: Path, arguments: argparse.Namespace) -> None:
    """PPO on features of short dreams; written to `learned`."""
    rows = DreamVectorEnv(
        load_model(folder, device=machine.device, dtype=machine.dtype),
        arguments.envs,
        observation="features",
        max_episode_steps=arguments.horizon,
    )
    learner = PPO(
        "MlpPolicy",
        VecMonitor(Sb3VecEnv(rows)),
        n_steps=arguments.horizon,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        gamma=arguments.gamma,
        ent_coef=arguments.entropy,
        policy_kwargs={"net_arch": [256, 256]},
        seed=arguments.seed,
        device="cpu",
        verbose=1,
    )
    learner.learn(arguments.time_steps, progress_bar=False)
    learned.parent.mkdir(parents=True, exist_ok=True)
    learner.save(learned)


def load_learned(folder: Path, learned: Path, *, greedy: bool, dtype: torch.dtype) -> DreamTrainedPolicy:
    """What PPO learned, on real frames that the world model in `folder` looks at; for worker processes."""
    policy = PPO.load(learned, device="cpu")
    return DreamTrainedPolicy(
        load_model(folder, dtype=dtype), EachRow(partial(Sb3Policy, policy, greedy=greedy)), name="sb3-ppo"
    )


def dream_actions(policy: PPO, greedy: bool) -> Any:
    """What PPO learned as a callable on the observations of all rows."""

    def act(observations: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(policy.predict(observations, deterministic=greedy)[0])

    return act


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for what was learned and the verdict")
    parser.add_argument("--model", default="take_cover", help="a world model folder or a released model's name")
    parser.add_argument("--episodes", type=Path, help="folder of real episodes, see above")
    parser.add_argument("--time-steps", type=int, default=400_000, help="dreamt steps of training (default: 400000)")
    parser.add_argument("--envs", type=int, default=64, help="dreams side by side (default: 64)")
    parser.add_argument("--horizon", type=int, default=32, help="steps of a dream and of a rollout (default: 32)")
    parser.add_argument("--batch-size", type=int, default=256, help="steps of a minibatch (default: 256)")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="(default: 0.0003)")
    parser.add_argument("--gamma", type=float, default=0.985, help="discount (default: 0.985)")
    parser.add_argument("--entropy", type=float, default=0.003, help="weight of the entropy (default: 0.003)")
    parser.add_argument("--greedy", action="store_true", help="judge its most likely actions, not sampled ones")
    parser.add_argument("--real-episodes", type=int, default=100, help="of each policy (default: 100)")
    parser.add_argument("--workers", type=int, default=2, help="processes that play the real env (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the training (default: 0)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
