"""Does the reader of plans know which of several ones a fireball would hit? The engine of Take Cover does.

    python -m benchmarks.plan_order runs/take_cover
    python -m benchmarks.plan_order MODEL --episodes 100 --steps 6

The model's own policy plays reality. At every fourth step each of some simple plans is judged twice: by the reader,
from the last frames, and by the engine's list of fireballs, as near as one of them would come. Minutes of
this tell two readers apart that hours of episodes do not (a mean of 64 returns has a standard error of 50).

    order   how often the reader holds the deadly one of two plans for the riskier; 0.5 is a guess. In brackets among
            plans that never stand still: the engine's list knows nothing of what is thrown at who stands still
    pick    how often the plan that the reader likes best is deadly, and how often a random one is

Both of moments at which some plan is deadly and some is safe.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.take_cover_ceiling import TICS, Fireball, fireballs_of, passes, paths
from worldsim import envs
from worldsim.agents.policies import NetworkPolicy
from worldsim.errors import UserError
from worldsim.lookahead import simple_plans
from worldsim.memory import keep_freed_memory
from worldsim.model_folder import find_model, load_model
from worldsim.observations import observe_state
from worldsim.rollouts import Env
from worldsim.workflow.policies import load_fitting_policy
from worldsim.workflow.reality import env_config
from worldsim.workflow.watching import Watcher
from worldsim.world_model import WorldModel, row_generator
from worldsim.world_state import WorldState

DEADLY, SAFE = 20.0, 32.0  # map units that a fireball comes near at most, or at least; its radius and the player's: 22
EVERY, FIRST = 4, 16  # steps; earlier there is little to remember

Floats = NDArray[np.float64]


class Judged(NamedTuple):
    """Of M moments and P plans: risks (M, P) by the reader, and how near fireballs come in map units, gaps (M, P)."""

    risks: Floats
    gaps: Floats

    def mixed(self) -> Judged:
        """The moments at which some plan is deadly and some is safe."""
        which = (self.gaps < DEADLY).any(1) & (self.gaps > SAFE).any(1)
        return Judged(self.risks[which], self.gaps[which])

    def of_plans(self, chosen: NDArray[np.bool_]) -> Judged:
        """The same of some plans alone, (P,) bool."""
        return Judged(self.risks[:, chosen], self.gaps[:, chosen])


def order(judged: Judged) -> float:
    """How often a deadly plan is held for riskier than a safe one, ties counting half: the mean over mixed moments."""
    shares = []
    for risks, gaps in zip(*judged.mixed(), strict=True):
        deadly, safe = risks[gaps < DEADLY][:, None], risks[gaps > SAFE]
        shares.append(np.mean((deadly > safe) + 0.5 * (deadly == safe)))
    return float(np.mean(shares))


def pick(judged: Judged) -> tuple[float, float]:
    """How often the least risky plan is deadly, and how often a random one is, at mixed moments."""
    risks, gaps = judged.mixed()
    deadly = gaps < DEADLY
    return float(deadly[np.arange(len(risks)), risks.argmin(1)].mean()), float(deadly.mean())


def nearest(places: Floats, position: float, fireballs: list[Fireball]) -> Floats:
    """How near a fireball comes on each path (P, T) of a player who is at `position`, (P,); inf where none passes."""
    gaps = [gap for _, gap in passes(places, position, fireballs)]
    return np.min(gaps, axis=0) if gaps else np.full(len(places), np.inf)


def moments(
    model: WorldModel, policy: NetworkPolicy, env: Env, seed: int, plans: torch.Tensor, meanings: list[str]
) -> Iterator[tuple[WorldState, Floats]]:
    """One real episode of the policy: at every fourth step its state, one row, and how near fireballs come on each of
    the plans (P, H), (P,).
    """
    game, met, watcher, generator = env.get_wrapper_attr("game"), set[int](), Watcher(model), row_generator(seed)
    directions = np.array([{"left": 1, "right": -1}.get(name, 0) for name in meanings])[plans.numpy()]
    row = np.zeros(1, np.int64)
    frame, _ = env.reset(seed=seed)
    policy.reset(seed)
    watcher.reset()
    action, over, step = 0, False, 0
    while not over:
        state = watcher.watch(frame[None], row, [generator], np.array([action]))
        player, fireballs = fireballs_of(game, met)
        if step >= FIRST and step % EVERY == 0:
            places = paths(directions, player.position_y, player.velocity_y)
            yield state, nearest(places, player.position_y, fireballs["all"])
        action = policy.act(observe_state(model, state, model.agent_observation)[0])
        frame, _, terminated, truncated, _ = env.step(action)
        over, step = terminated or truncated, step + 1


def play(
    model: WorldModel, policy: NetworkPolicy, env: Env, seed: int, plans: torch.Tensor, meanings: list[str]
) -> Judged:
    """One real episode of the policy, and what reader and engine say of the plans (P, H) on its way."""
    risks, gaps = [], []
    for state, near in moments(model, policy, env, seed, plans, meanings):
        risks.append(model.plan_risks(state, plans, afterwards=False)[0].numpy())
        gaps.append(near)
    shape = (len(risks), len(plans))
    return Judged(np.reshape(np.array(risks, np.float64), shape), np.reshape(np.array(gaps, np.float64), shape))


class Scene(NamedTuple):
    """What is needed to have a model's policy play Take Cover and to ask of plans: all from one folder."""

    model: WorldModel
    policy: NetworkPolicy
    env: Env
    meanings: list[str]


def open_scene(name: Path) -> Scene:
    """Of a model folder or a run folder. Raises UserError for what is no model of Take Cover with a reader of plans."""
    folder = find_model(name)
    model = load_model(folder)
    config = env_config(model.spec, folder)
    if config.id != "VizdoomTakeCover-v1" or model.plans is None or config.frame_skip != TICS:
        raise UserError(f"{name}: expected a model of Take Cover at frame skip {TICS} with a reader of plans")
    policy = NetworkPolicy(load_fitting_policy(folder / "policy", model), greedy=True)
    env = envs.make(config)
    env.get_wrapper_attr("game").set_objects_info_enabled(True)
    return Scene(model, policy, env, envs.describe(env, config)["action_meanings"])


def check_steps(steps: int, model: WorldModel) -> None:
    """Raises UserError for plans of more steps than the model's reader looks ahead."""
    assert model.plans is not None
    horizon = model.plans.config.horizon
    if not 1 <= steps <= horizon:
        raise UserError(f"--steps {steps}: expected 1 to {horizon}, as far as this reader of plans looks")


def running(plans: torch.Tensor, meanings: list[str]) -> NDArray[np.bool_]:
    """Which of the plans (P, H) never stand still, (P,)."""
    standing = {action for action, name in enumerate(meanings) if name not in ("left", "right")}
    return np.array([not standing & set(plan) for plan in plans.tolist()])


def main() -> None:
    """Play and print."""
    arguments = _arguments()
    torch.set_num_threads(1)
    keep_freed_memory()
    model, policy, env, meanings = open_scene(arguments.model)
    check_steps(arguments.steps, model)
    assert model.plans is not None
    plans = simple_plans(len(meanings), arguments.steps, model.plans.config.changes)
    seeds = range(arguments.seed, arguments.seed + arguments.episodes)
    episodes = [play(model, policy, env, seed, plans, meanings) for seed in tqdm(seeds, unit="episode")]
    env.close()
    judged = Judged(*(np.concatenate(parts) for parts in zip(*episodes, strict=True)))
    moving = judged.of_plans(running(plans, meanings))
    deadly, at_random = pick(judged)
    print(
        f"plans of {arguments.steps} steps, {len(judged.mixed().risks)} of {len(judged.risks)} moments: "
        f"order {order(judged):.3f} ({order(moving):.3f}), pick {deadly:.3f}, random {at_random:.3f}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model folder or a run folder, with its policy")
    parser.add_argument("--steps", type=int, default=12, help="of each plan (default: 12)")
    parser.add_argument("--episodes", type=int, default=40, help="to be played (default: 40)")
    parser.add_argument("--seed", type=int, default=2_000_000, help="of the first one (default: 2000000)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
