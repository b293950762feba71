"""Does a dream still know, some steps on, who is about to die?

    python -m benchmarks.foresight take_cover --episodes runs/take_cover/episodes
    python -m benchmarks.foresight runs/micro --episodes other_episodes --split all --json foresight.json

Dreams begin 0, 1, 2, 4, 8 and 16 steps before the last step of recorded episodes that ended by death, and as many
before other steps, and follow the recorded actions. What the model says of that step is compared: of deaths, of other
steps, and how often a death is given more than another step (AUROC). What kills is mostly in the picture some steps
before; where a dream loses it, the two become alike. With age 0 nothing is dreamt: what the model knows of endings at
all.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from worldsim.data.latents import LatentCache
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.statistics import area_under_roc
from worldsim.model_folder import find_model
from worldsim.start_contexts import read_contexts
from worldsim.workflow.machine import Machine
from worldsim.workflow.showing import load_here
from worldsim.workflow.stages import encode_episodes
from worldsim.world_model import WorldModel, row_generator

AGES = (0, 1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Foresight:
    """What dreams of an age say of steps that ended an episode and of others.

    auroc: of the mean over draws. excess_kept: how much more hazard deaths have than other steps, as a share of what
    they have at age 0.
    """

    age: int
    of_deaths: float
    of_others: float
    auroc: float | None
    excess_kept: float


def main() -> None:
    """Dream and print."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    model = load_here(find_model(arguments.model))
    store = EpisodeStore.open(arguments.episodes)
    latents = encode_episodes(store, model.tokenizer, Machine(model.device, model.dtype))
    temperature = model.temperature if arguments.temperature is None else arguments.temperature
    steps, deaths = draw_steps(store, arguments.split, arguments.deaths, max(AGES), arguments.seed)
    print(f"{deaths.sum()} deaths, {len(deaths) - deaths.sum()} other steps, temperature {temperature:g}")
    print(f"{'age':>5}{'of deaths':>12}{'of others':>12}{'AUROC':>8}{'excess kept':>13}")
    said: dict[int, NDArray[np.float64]] = {}
    for age in tqdm(AGES, desc="ages"):
        said[age] = hazard_after(model, store, latents, steps, age, temperature, arguments.draws, arguments.seed)
        found = compare(said, deaths)
        newest = found[-1]
        auroc = "-" if newest.auroc is None else f"{newest.auroc:.3f}"
        tqdm.write(f"{age:5}{newest.of_deaths:12.4f}{newest.of_others:12.4f}{auroc:>8}{newest.excess_kept:13.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")


def draw_steps(
    store: EpisodeStore, split: str, deaths: int, history: int, seed: int
) -> tuple[list[tuple[int, int]], NDArray[np.bool_]]:
    """Steps (episode, number of the step) that ended one, as many that did not, and which is which, bool (M,).

    All have `history` steps before them. Others are drawn uniformly. Copies in a mirror are left out.
    """
    random = np.random.default_rng(seed)
    played = set(store.played())
    chosen = [i for i in (range(len(store)) if split == "all" else store.indices(split).tolist()) if i in played]
    ended = [i for i in chosen if store.lengths[i] > history and store.terminated(i)]
    last = [(i, int(store.lengths[i]) - 1) for i in random.permutation(ended)[:deaths].tolist()]
    others = [(i, t) for i in chosen for t in range(history, int(store.lengths[i]) - 1)]
    kept = random.permutation(len(others))[: len(last)]
    steps = last + [others[k] for k in kept.tolist()]
    return steps, np.arange(len(steps)) < len(last)


def hazard_after(
    model: WorldModel,
    store: EpisodeStore,
    latents: LatentCache,
    steps: Sequence[tuple[int, int]],
    age: int,
    temperature: float,
    draws: int,
    seed: int,
    rows_at_once: int = 128,
) -> NDArray[np.float64]:
    """What dreams that began `age` steps before say of the steps, (M, draws)."""
    rows = [(i, t) for i, t in steps for _ in range(draws)]
    frames = max(model.dynamics.config.window, model.remembered_frames)
    said = []
    for first in range(0, len(rows), rows_at_once):
        part = rows[first : first + rows_at_once]
        moments = [(i, t - age) for i, t in part]
        contexts = read_contexts(store, latents, moments, frames)
        state = model.start_from(contexts, [row_generator(seed + first + row) for row in range(len(part))])
        actions = np.stack([store.steps(i)["action"][t - age : t + 1] for i, t in part])
        for k in range(age + 1):
            state, step = model.step(state, torch.from_numpy(actions[:, k]), temperature=temperature)
        said.append(step.termination_probability.double().cpu().numpy())
    return np.concatenate(said).reshape(len(steps), draws)


def compare(said: dict[int, NDArray[np.float64]], deaths: NDArray[np.bool_]) -> list[Foresight]:
    """What `hazard_after` found at each age, age 0 among them."""
    found = []
    excess_of_reality = float(said[0][deaths].mean() - said[0][~deaths].mean())
    for age, hazards in sorted(said.items()):
        of_deaths, of_others = float(hazards[deaths].mean()), float(hazards[~deaths].mean())
        auroc = area_under_roc(hazards.mean(axis=1), deaths)
        found.append(Foresight(age, of_deaths, of_others, auroc, (of_deaths - of_others) / excess_of_reality))
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a released model's name, a model folder, or a run folder")
    parser.add_argument("--episodes", type=Path, required=True, help="a store of real episodes")
    parser.add_argument("--split", choices=("held_out", "train", "all"), default="held_out")
    parser.add_argument("--deaths", type=int, default=300, help="at most, and as many other steps (default: 300)")
    parser.add_argument("--draws", type=int, default=4, help="dreams of each step (default: 4)")
    parser.add_argument("--temperature", type=float, help="of the dreams (default: the model's own)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
