"""The agent of a run, trained in the real env instead of its dream.

    python -m benchmarks.real_env_agent runs/take_cover --out runs/real --tics 300000
    python -m benchmarks.real_env_agent runs/take_cover --out runs/real_1200k --tics 1200000
    python -m benchmarks.real_env_agent runs/every_tic agent.gamma=0.9975 evaluate.greedy=false --out runs/real

The same actor-critic with the same settings sees real frames through the run's world model (`worldsim.observed`), so
only where it plays differs; and it gets the eyes for nothing, which were trained on the run's own frames. With as many
real tics as the run was given, its score says what the dream was worth; with many more, what this agent could learn
in a perfect dream. Writes OUT/policy, OUT/metrics.jsonl, checkpoints from which the same command goes on, and
OUT/verdict.json, for which the most likely actions count where the run's config says so. Of a policy that mostly goes
on with its last action the likeliest one is always that: `evaluate.greedy=false` draws its actions.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from functools import partial
from pathlib import Path

from gymnasium.vector import AutoresetMode, SyncVectorEnv

from worldsim import envs
from worldsim.agents.actor_critic import ActorCriticLearner
from worldsim.agents.policy_io import save_policy
from worldsim.config import from_dict
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.verdict import print_verdict
from worldsim.model_folder import find_model, load_model
from worldsim.observed import ObservedVectorEnv
from worldsim.training import fit
from worldsim.workflow.config import RunConfig
from worldsim.workflow.machine import choose_machine
from worldsim.workflow.policies import act_in_dream, load_dream_trained
from worldsim.workflow.verdict import judge


def main() -> None:
    """Read the command line, train and judge."""
    arguments = _arguments()
    path = arguments.run / "config.json"
    config = from_dict(
        RunConfig, json.loads(path.read_text()), str(path), [*arguments.overrides, f"threads={arguments.threads}"]
    )
    machine = choose_machine(config)
    folder = find_model(arguments.run)
    agent = config.agent
    agent.horizon, agent.reset_each_update = arguments.horizon, False
    updates = math.ceil(arguments.tics / (config.env.frame_skip * arguments.envs * arguments.horizon))

    real = SyncVectorEnv([partial(envs.make, config.env)] * arguments.envs, autoreset_mode=AutoresetMode.SAME_STEP)
    model = load_model(folder, device=machine.device, dtype=machine.dtype)
    rows = ObservedVectorEnv(real, model, model.agent_observation)
    learner = ActorCriticLearner(agent, rows, config.seed, machine.device, machine.dtype)
    trained = fit(learner, steps=updates, folder=arguments.out, name="agent, real env", log_every=1)
    real.close()
    save_policy(
        learner.policy, arguments.out / "policy", notes={"env": config.env.id, "greedy": config.evaluate.greedy}
    )

    begin = time.monotonic()
    steps = updates * arguments.envs * arguments.horizon
    greedy = config.evaluate.greedy
    verdict = judge(
        folder,
        partial(load_dream_trained, folder, arguments.out / "policy", greedy=greedy, dtype=machine.dtype),
        act_in_dream(learner.policy, seed=config.evaluate.seed, greedy=greedy),
        config.evaluate,
        machine,
        EpisodeStore.open(arguments.run / "episodes"),
        lambda: {"agent": trained.seconds, "evaluate": time.monotonic() - begin},
        {
            "agent_kind": "actor-critic in the real env",
            "real_steps": steps,  # of the agent: the world model's own frames are the run's
            "real_tics": steps * config.env.frame_skip,
        },
    )
    verdict.write(arguments.out)
    print_verdict(verdict)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run with a world model")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the run's config to change")
    parser.add_argument("--out", type=Path, required=True, help="folder for policy and verdict")
    parser.add_argument("--tics", type=int, default=300_000, help="of the real env, to learn from (default: 300000)")
    parser.add_argument("--envs", type=int, default=16, help="real envs side by side (default: 16)")
    parser.add_argument("--horizon", type=int, default=128, help="steps of a rollout (default: 128)")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: all cores (default: 0)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
