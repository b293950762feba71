"""Nothing but plans: reality played by what the world model's reader of plans says of some simple ones.

    python -m benchmarks.plans_in_reality runs/take_cover
    python -m benchmarks.plans_in_reality MODEL --episodes 100 --seed 1000000 --out O

No policy and no dream. At each step the reader says how likely each plan is to end the episode, from the last frames
as the tokenizer draws them (`worldsim.plan_reader`): all plans that keep one action, or change it once. The first
action of the least risky one is taken, and one that goes on as before is preferred by a little. What this scores is
what the reader knows about the way out of danger. Discrete actions, and a model with a reader (`plans.steps`). OUT gets
plans.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from worldsim import envs
from worldsim.agents.dagger import preferred
from worldsim.data.files import write_json
from worldsim.evaluation.statistics import bootstrap_interval
from worldsim.memory import keep_freed_memory
from worldsim.model_folder import find_model
from worldsim.rollouts import Action, play_many
from worldsim.workflow.policies import SIDE_BY_SIDE
from worldsim.workflow.reality import env_config
from worldsim.workflow.showing import load_here
from worldsim.workflow.watching import Watcher
from worldsim.world_model import WorldModel, row_generator


class PlanningPolicy:
    """A `BatchPolicy` that takes the first action of the least risky plan."""

    name = "plans"

    def __init__(self, model: WorldModel) -> None:
        self._model = model
        self._watcher = Watcher(model)

    def reset(self, seeds: Sequence[int]) -> None:
        """Begin a new episode in each row."""
        self._generators = [row_generator(seed) for seed in seeds]
        self._last = torch.full((len(seeds),), -1)  # actions: none yet
        self._watcher.reset()

    def __call__(self, frames: NDArray[np.uint8], rows: NDArray[np.int64]) -> Sequence[Action]:
        """The actions of the rows (P,) that still play, after their real frames (P, H, W, C)."""
        last = self._last[rows]
        state = self._watcher.watch(frames, rows, [self._generators[row] for row in rows], last.numpy())
        chosen = preferred(self._model.action_risks(state).cpu(), last)
        self._last[rows] = chosen
        return [int(action) for action in chosen]


def main() -> None:
    """Play and print."""
    arguments = _arguments()
    torch.set_num_threads(1)
    keep_freed_memory()
    folder = find_model(arguments.model)
    model = load_here(folder)
    seeds = list(range(arguments.seed, arguments.seed + arguments.episodes))
    with tqdm(total=len(seeds), desc="plans", unit="episode") as bar:
        results = play_many(
            partial(envs.make, env_config(model.spec, folder)),
            partial(PlanningPolicy, model),
            seeds,
            side_by_side=SIDE_BY_SIDE,
            on_episode=lambda _: bar.update(),
        )
    returns = [result.total_reward for result in results]
    low, high = bootstrap_interval(returns)
    print(
        f"plans: {np.mean(returns):.0f} (95 % {low:.0f} to {high:.0f}, {len(seeds)} episodes from {arguments.seed} on)"
    )
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out / "plans.json", {"seed": arguments.seed, "returns": returns})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder or a run folder")
    parser.add_argument("--episodes", type=int, default=64, help="to be played (default: 64)")
    parser.add_argument("--seed", type=int, default=2_000_000, help="of the first one (default: 2000000)")
    parser.add_argument("--out", type=Path, help="folder for plans.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
