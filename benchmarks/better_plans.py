"""Is the agent the limit, or its dream? A few simple plans against the policy, both judged by the dream itself.

    python -m benchmarks.better_plans runs/take_cover
    python -m benchmarks.better_plans runs/take_cover --policy runs/other/round-01/world_model/policy --uniform

From real moments shortly before real endings (--uniform: from any) the policy dreams on, and so do plans that keep one
action, or change once to another. Of the plans the least deadly one of each start is taken, by half of its draws, and
judged by the other half. A plan cannot answer what happens, so an agent that has learned all that its dream teaches is
safer than the best of them. Where it is not, a better dream will not help it: it does not use the one it has.
Discrete actions alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from worldsim import lookahead
from worldsim.agents.networks import PolicyNetwork
from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError
from worldsim.model_folder import find_model
from worldsim.observations import observe_state
from worldsim.start_contexts import StartContexts, draw_contexts
from worldsim.workflow.machine import Machine
from worldsim.workflow.policies import act_in_dream, load_fitting_policy
from worldsim.workflow.showing import load_here
from worldsim.workflow.stages import encode_episodes
from worldsim.world_model import WorldModel, row_generator
from worldsim.world_state import WorldState

Act = Callable[[WorldState, int], Tensor]  # a state and the number of the step to the actions of all rows


def main() -> None:
    """Dream and print."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    folder = find_model(str(arguments.run))
    model = load_here(folder)
    space = model.spec.gym_action_space()
    if not isinstance(space, gym.spaces.Discrete):
        raise UserError(f"{model.spec.id} has actions {space}: expected Discrete ones")
    store = EpisodeStore.open(arguments.run / "episodes")
    latents = encode_episodes(store, model.tokenizer, Machine(model.device, model.dtype))
    starts = draw_contexts(
        store,
        latents,
        arguments.starts,
        model.start_contexts.latents.shape[1],
        episode_starts=0,
        seed=arguments.seed,
        before_endings=0 if arguments.uniform else arguments.starts,
        reach=arguments.steps - 2,
    )

    def deaths(act: Act, draws: int, seed: int) -> NDArray[np.float64]:
        return deaths_within(model, starts, act, arguments.steps, draws, seed)

    policy = load_fitting_policy(arguments.policy or folder / "policy", model)
    by_policy = deaths(acting(policy, model, arguments.seed), 2 * arguments.draws, seed=0)
    tried = simple_plans(int(space.n), arguments.steps)
    first, second = (
        np.stack([deaths(following(plan), arguments.draws, seed) for plan in tqdm(tried, desc=f"plans, half {half}")])
        for half, seed in ((1, 1_000_000), (2, 2_000_000))
    )
    by_best = least(first, second)
    print(f"{len(starts)} starts, probability of an ending within {arguments.steps} dreamt steps (standard error)")
    rows = {"policy": by_policy, "best plan": by_best, "plans, mean": second.mean(0), "difference": by_policy - by_best}
    for name, values in rows.items():
        print(f"  {name:12}{values.mean():8.4f} ({values.std() / len(values) ** 0.5:.4f})")


def simple_plans(actions: int, steps: int) -> list[list[int]]:
    """All plans of so many steps that keep one of the actions, or change once, after a third or a half of them."""
    plans: list[list[int]] = lookahead.simple_plans(actions, steps, (steps // 3, steps // 2)).tolist()
    return plans


def deaths_within(
    model: WorldModel, starts: StartContexts, act: Act, steps: int, draws: int, seed: int
) -> NDArray[np.float64]:
    """Probability of an ending within so many dreamt steps of each start (S,), mean over `draws` dreams of each."""
    rows = torch.arange(len(starts)).repeat_interleave(draws)
    state = model.start_from(starts.rows(rows), [row_generator(seed + row) for row in range(len(rows))])
    alive = torch.ones(len(rows), dtype=torch.float64)
    for t in range(steps):
        state, step = model.step(state, act(state, t))
        alive *= 1 - step.termination_probability.double().cpu()
    deaths: NDArray[np.float64] = (1 - alive).reshape(len(starts), draws).mean(1).numpy()
    return deaths


def following(plan: list[int]) -> Act:
    """All rows act by the plan."""
    return lambda state, t: torch.full((len(state.generators),), plan[t])


def acting(policy: PolicyNetwork, model: WorldModel, seed: int) -> Act:
    """All rows act by the policy, which draws its actions."""
    act = act_in_dream(policy, seed)
    return lambda state, t: torch.from_numpy(act(observe_state(model, state, model.agent_observation)))


def least(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each start (plans, S) what the second half of draws says of the plan that the first half likes best, (S,)."""
    chosen: NDArray[np.float64] = np.take_along_axis(second, first.argmin(0)[None], axis=0)[0]
    return chosen


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's folder, with its episodes")
    parser.add_argument("--policy", type=Path, help="another policy of this world model (default: the run's newest)")
    parser.add_argument("--uniform", action="store_true", help="start at any moment, not shortly before endings")
    parser.add_argument("--starts", type=int, default=40, help="real moments (default: 40)")
    parser.add_argument("--steps", type=int, default=12, help="dreamt from each (default: 12)")
    parser.add_argument("--draws", type=int, default=6, help="dreams in each half, of each plan (default: 6)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
