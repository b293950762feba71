"""What is an agent worth that learned in the dream of a model that learned nothing?

    python -m benchmarks.untrained_dream runs/take_cover --folder runs/untrained_dream

Takes a finished run, keeps its tokenizer, start contexts and agent settings, puts fresh weights in the place of its
dynamics, trains the agent in that dream, and plays it in the real env on the seeds of the run's verdict. The score goes
to FOLDER/untrained_dream.json.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import torch

from worldsim import envs
from worldsim.agents.actor_critic import ActorCriticLearner
from worldsim.agents.policy_io import save_policy
from worldsim.config import from_dict
from worldsim.data.actions import action_feature_count
from worldsim.data.files import write_json
from worldsim.data.store import EpisodeStore
from worldsim.dream import DreamVectorEnv
from worldsim.dynamics.dit_dynamics import DiTDynamics
from worldsim.evaluation.returns import score_policy
from worldsim.evaluation.seeds import fresh_seeds
from worldsim.model_folder import find_model, load_model, save_model
from worldsim.training import fit
from worldsim.workflow.config import RunConfig
from worldsim.workflow.policies import SIDE_BY_SIDE, load_dream_trained
from worldsim.workflow.showing import load_here
from worldsim.world_model import WorldModel


def main() -> None:
    """Read the command line, train and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--folder", type=Path, required=True, help="for the model, the policy and the score")
    parser.add_argument("--updates", type=int, help="of the agent (default: as many as in the run's last round)")
    arguments = parser.parse_args()
    path = arguments.run / "config.json"
    config = from_dict(RunConfig, json.loads(path.read_text()), str(path))
    torch.set_num_threads(config.threads or torch.get_num_threads())

    folder: Path = arguments.folder / "world_model"
    save_model(forgetful(load_model(find_model(arguments.run)), config.seed), folder)
    model = load_here(folder)
    rows = DreamVectorEnv(
        model,
        config.dream.num_envs,
        observation="features",
        max_episode_steps=config.dream.max_episode_steps,
    )
    learner = ActorCriticLearner(config.agent, rows, seed=config.seed, device=model.device)
    fit(
        learner,
        steps=arguments.updates or config.agent_updates[-1],
        folder=arguments.folder / "agent",
        name="agent, untrained dream",
    )
    save_policy(learner.policy, folder / "policy")

    used = [entry.seed for entry in EpisodeStore.open(arguments.run / "episodes").entries]
    score = score_policy(
        partial(envs.make, config.env),
        partial(load_dream_trained, folder, folder / "policy", greedy=config.evaluate.greedy, dtype=torch.bfloat16),
        fresh_seeds(config.evaluate.seed, config.evaluate.episodes, used),
        config.evaluate.workers,
        side_by_side=SIDE_BY_SIDE,
        progress="agent in the real env",
    )
    write_json(arguments.folder / "untrained_dream.json", score.to_dict())
    low, high = score.to_dict()["ci95"]
    print(f"trained in an untrained model's dream: {score.to_dict()['mean']:.0f} ({low:.0f} to {high:.0f})")


def forgetful(model: WorldModel, seed: int) -> WorldModel:
    """The same world model with dynamics that are new-born but for the scale of the latents."""
    old = model.dynamics
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = DiTDynamics(old.config, *old.latent_shape, model.tokenizer.grid, action_feature_count(model.spec))
    new.scale.load_state_dict(old.scale.state_dict())
    return WorldModel(model.spec, model.tokenizer, new, model.start_contexts, temperature=model.temperature)


if __name__ == "__main__":
    main()
