"""Where a dream becomes too kind: how likely endings are the longer a dream lasts, beside what reality does.

    python -m benchmarks.hazard_by_age take_cover
    python -m benchmarks.hazard_by_age runs/take_cover --steps 2000 --json hazard.json

A policy plays the real env through the world model. Every few steps the model dreams on from where reality stands, with
the same policy, and reality goes on too. For each age of those dreams three numbers are printed: how often reality
ended then, what the model said while it watched reality, and what it says in its dreams. The first two differ where the
model does not know what ends an episode; the last two where its dreams lose what it knows. An agent that learns in
dreams of a certain length learns from all ages up to it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray
from tqdm import tqdm

from worldsim import envs
from worldsim.agents.networks import PolicyNetwork
from worldsim.model_folder import find_model
from worldsim.observations import observe_state
from worldsim.observed import ObservedVectorEnv
from worldsim.workflow.policies import act_in_dream, is_greedy, load_fitting_policy
from worldsim.workflow.reality import env_config
from worldsim.workflow.showing import load_here
from worldsim.world_model import WorldModel, row_generator
from worldsim.world_state import WorldState

AGES = ((1, 1), (2, 4), (5, 8), (9, 16), (17, 32))


@dataclass(frozen=True)
class Hazard:
    """Endings a step of dreams `first` to `last` steps old, of those that have lasted so long.

    observed: in reality, as many steps after the moments where dreams began. watched: what the model said of these real
    steps before they were made. dreamt: what it says in its dreams. steps: real ones that were counted.
    """

    first: int
    last: int
    observed: float
    watched: float
    dreamt: float
    steps: int


def main() -> None:
    """Play, dream and print."""
    arguments = _arguments()
    folder = find_model(arguments.model)
    model = load_here(folder)
    policy_folder = arguments.policy or folder / "policy"
    network, greedy = load_fitting_policy(policy_folder, model), is_greedy(policy_folder)
    make_env = partial(envs.make, env_config(model.spec, folder))
    real = SyncVectorEnv([make_env] * arguments.rows, autoreset_mode=AutoresetMode.SAME_STEP)
    if arguments.temperature is not None:
        model.temperature = arguments.temperature
    played = play(ObservedVectorEnv(real, model), model, network, greedy, arguments)
    real.close()
    found = by_age(*played, AGES)
    print(f"{'age':>10}{'real':>10}{'watched':>10}{'dreamt':>10}   real steps")
    for one in found:
        numbers = f"{one.observed:10.4f}{one.watched:10.4f}{one.dreamt:10.4f}"
        print(f"{f'{one.first} to {one.last}':>10}{numbers}{one.steps:13,}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")


def play(
    rows: ObservedVectorEnv,
    model: WorldModel,
    network: PolicyNetwork,
    greedy: bool,
    arguments: argparse.Namespace,
) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Real endings and what the model said of these steps, (T, rows) each; the steps at which dreams began, (M,); and
    what it said in them, (M, rows, oldest age).
    """
    oldest = AGES[-1][1]
    act = act_in_dream(network, arguments.seed, greedy)
    observations, _ = rows.reset(seed=arguments.seed)
    ended: list[NDArray[np.bool_]] = []
    said: list[NDArray[Any]] = []
    began: list[int] = []
    dreamt: list[NDArray[np.float32]] = []
    for t in tqdm(range(arguments.steps), desc="real steps", unit="step"):
        if t % arguments.every == 0 and t + oldest <= arguments.steps:
            began.append(t)
            dreamt.append(dream_on(model, rows.state(), act, oldest, seed=arguments.seed + 1000 * t))
        observations, _, terminated, truncated, infos = rows.step(act(observations))
        ended.append(terminated | truncated)
        said.append(infos["foreseen_termination"])
    return np.array(ended), np.array(said), np.array(began), np.array(dreamt)


def dream_on(model: WorldModel, state: WorldState, act: Any, steps: int, seed: int) -> NDArray[np.float32]:
    """What the model says of each step of dreams from `state`, (rows, steps); nobody ends before."""
    rows = len(state.generators)
    state = state.with_generators([row_generator(seed + row) for row in range(rows)])
    said = []
    for _ in range(steps):
        actions = torch.from_numpy(np.asarray(act(observe_state(model, state, model.agent_observation))))
        state, step = model.step(state, actions)
        said.append(step.termination_probability.float().cpu().numpy())
    return np.stack(said, axis=1)


def by_age(
    ended: NDArray[np.bool_],
    said: NDArray[np.float32],
    began: NDArray[np.int64],
    dreamt: NDArray[np.float32],
    ages: Sequence[tuple[int, int]],
) -> list[Hazard]:
    """Hazards of each range of ages, both ends included; see `play` for what is given.

    Reality is counted while the episode that a dream began in lasts; a dreamt step counts as much as it is likely that
    its dream has lasted so long.
    """
    oldest = dreamt.shape[2]
    future = began[:, None] + np.arange(oldest)  # (M, K)
    over = ended[future].transpose(0, 2, 1)  # (M, rows, K)
    lasts = np.cumsum(over, axis=2) - over == 0  # no ending before this step
    watched = said[future].transpose(0, 2, 1)
    survival = np.cumprod(1 - dreamt.astype(np.float64), axis=2) / (1 - dreamt)  # up to before the step
    found = []
    for first, last in ages:
        part = slice(first - 1, last)
        here, weight = lasts[:, :, part], survival[:, :, part]
        steps = int(here.sum())
        found.append(
            Hazard(
                first,
                last,
                observed=float(over[:, :, part][here].mean()) if steps else 0.0,
                watched=float(watched[:, :, part][here].mean()) if steps else 0.0,
                dreamt=float((dreamt[:, :, part] * weight).sum() / weight.sum()),
                steps=steps,
            )
        )
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a world model folder, a run folder, or a released model's name")
    parser.add_argument("--policy", type=Path, help="another policy on its features (default: the model's own)")
    parser.add_argument("--steps", type=int, default=1000, help="real ones of each row (default: 1000)")
    parser.add_argument("--rows", type=int, default=16, help="real envs side by side (default: 16)")
    parser.add_argument("--every", type=int, default=16, help="real steps from dream to dream (default: 16)")
    parser.add_argument("--temperature", type=float, help="of the dreams (default: the model's own)")
    parser.add_argument("--seed", type=int, default=500_000, help="first one (default: 500000)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
