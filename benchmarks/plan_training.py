r"""Readers of plans, trained with other settings on the same episodes: what do they know after so many steps?

    python -m benchmarks.plan_training runs/take_cover --play take_cover --out O
    python -m benchmarks.plan_training runs/take_cover plans.group_norm=false --play take_cover --out O

RUN is a run folder of Take Cover with episodes and a world model, whose tokenizer draws what the readers see. The
policy of PLAY, a model with the same tokenizer, plays some real episodes first; the moments at which plans are judged
lie in OUT/moments.npz then, and later calls take them from there. One reader (`plans.members=1`) learns, and every
`--every` steps it is asked about held-out moments of the run and about these (see benchmarks.plan_order):

    held out    cross-entropy of an ending at a step, beside that of a constant
    order, pick as in benchmarks.plan_order

OUT gets a JSON file for each list of settings, with all figures. Ten minutes and more on one core.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from benchmarks.plan_order import Judged, check_steps, moments, open_scene, order, pick, running
from worldsim.config import from_dict
from worldsim.data.actions import action_features
from worldsim.data.episode import EnvSpec
from worldsim.data.files import write_json
from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError
from worldsim.lookahead import plan_risks, simple_plans
from worldsim.memory import keep_freed_memory
from worldsim.model_folder import find_model, load_model
from worldsim.plan_learner import PlanLearner
from worldsim.plan_reader import PlanConfig, PlanReader
from worldsim.workflow.config import RunConfig
from worldsim.workflow.machine import choose_machine
from worldsim.workflow.report import read_json
from worldsim.workflow.stages import encode_episodes

FIRST_SEED = 2_000_000
ASKED_TOGETHER = 128  # moments


@dataclass(frozen=True)
class Moments:
    """M moments of real play and P plans (P, H) of actions.

    pictures: uint8 (M, K, H, W, C), frames of `ages` steps as a reader sees them. taken: (M, before, A), features of
    the actions that led there. gaps: (M, P), how near fireballs come on each plan, in map units. running: (P,).
    """

    pictures: NDArray[np.uint8]
    taken: NDArray[np.float32]
    gaps: NDArray[np.float64]
    plans: NDArray[np.int64]
    running: NDArray[np.bool_]
    ages: NDArray[np.int64]

    def of(self, config: PlanConfig) -> tuple[Tensor, Tensor]:
        """Pictures and actions for a reader of these settings. Raises UserError for what was not kept."""
        missing = set(config.ages) - set(self.ages.tolist())
        if missing or config.actions_before > self.taken.shape[1]:
            raise UserError(
                f"plans.ages={config.ages} plans.actions_before={config.actions_before}: these moments hold frames of "
                f"ages {self.ages.tolist()} and {self.taken.shape[1]} actions, as the reader of --play sees them"
            )
        places = [self.ages.tolist().index(age) for age in config.ages]
        taken = self.taken[:, self.taken.shape[1] - config.actions_before :]
        return torch.from_numpy(self.pictures[:, places]), torch.from_numpy(taken)


def play_moments(name: Path, steps: int, seeds: range) -> Moments:
    """Moments of real episodes of a model's own policy."""
    model, policy, env, meanings = open_scene(name)
    check_steps(steps, model)
    assert model.plans is not None
    config = model.plans.config
    plans = simple_plans(len(meanings), steps, config.changes)
    kept = [
        (torch.cat([state.decoded[-1 - age] for age in config.ages]), state.actions(config.actions_before)[0], near)
        for seed in tqdm(seeds, unit="episode", desc="play")
        for state, near in moments(model, policy, env, seed, plans, meanings)
    ]
    env.close()
    pictures, taken, gaps = (np.stack([np.asarray(part) for part in parts]) for parts in zip(*kept, strict=True))
    return Moments(pictures, taken, gaps, plans.numpy(), running(plans, meanings), np.array(config.ages))


def save(found: Moments, path: Path) -> None:
    """As npz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **vars(found))


def load(path: Path) -> Moments:
    """The inverse of `save`."""
    with np.load(path) as parts:
        return Moments(**{name: parts[name] for name in parts.files})


@torch.inference_mode()
def ask(reader: PlanReader, found: Moments, spec: EnvSpec) -> dict[str, float]:
    """order, order_running, pick, and pick_random of a reader."""
    config = reader.config
    features = action_features(spec, torch.from_numpy(found.plans))
    parts = (part.split(ASKED_TOGETHER) for part in found.of(config))
    risks = [
        plan_risks(
            reader(pictures, taken, features.expand(len(pictures), -1, -1, -1)),
            config.discount,
            horizon=config.horizon,
            afterwards_weight=0.0,
        )
        for pictures, taken in zip(*parts, strict=True)
    ]
    judged = Judged(torch.cat(risks).double().numpy(), found.gaps)
    deadly, at_random = pick(judged)
    return {
        "order": order(judged),
        "order_running": order(judged.of_plans(found.running)),
        "pick": deadly,
        "pick_random": at_random,
    }


def main() -> None:
    """Play, train, print, write."""
    arguments = _arguments()
    keep_freed_memory()
    settings = read_json(arguments.run / "config.json")
    overrides = [*arguments.overrides, "plans.members=1", "threads=1"]
    config = from_dict(RunConfig, settings, str(arguments.run), overrides)
    machine = choose_machine(config)
    file = arguments.out / "moments.npz"
    if not file.exists():
        seeds = range(arguments.seed, arguments.seed + arguments.episodes)
        save(play_moments(arguments.play, arguments.steps, seeds), file)
    found = load(file)
    tokenizer = load_model(find_model(arguments.run)).tokenizer
    store = EpisodeStore.open(arguments.run / "episodes")
    if arguments.rounds is not None:
        store = store.through_round(arguments.rounds - 1)
    latents = encode_episodes(store, tokenizer, machine)
    learner = PlanLearner(config.plans, store, latents, tokenizer, machine.device, machine.dtype, config.seed)
    told: list[dict[str, Any]] = []
    begun = time.process_time()
    for step in tqdm(range(1, config.plans.steps + 1), unit="step"):
        learner.update()
        if step % arguments.every and step != config.plans.steps:
            continue
        figures = {"step": step, **learner.evaluate(), **ask(learner.reader, found, store.spec)}
        told.append({**figures, "cpu_seconds": round(time.process_time() - begun)})
        tqdm.write("  ".join(f"{name} {value:.4g}" for name, value in told[-1].items()))
    name = "_".join(arguments.overrides).replace("plans.", "").replace("/", "-") or "as it is"
    write_json(arguments.out / f"{name}.json", {"settings": arguments.overrides, "figures": told})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder with episodes and a world model")
    parser.add_argument("--play", type=Path, required=True, help="whose policy plays the moments: a model or a run")
    parser.add_argument("--out", type=Path, required=True, help="folder for moments and figures")
    parser.add_argument("--rounds", type=int, help="learn from the first rounds alone (default: all)")
    parser.add_argument("--every", type=int, default=500, help="steps between two judgements (default: 500)")
    parser.add_argument("--steps", type=int, default=12, help="of the judged plans (default: 12)")
    parser.add_argument("--episodes", type=int, default=40, help="to be played (default: 40)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help=f"of the first one (default: {FIRST_SEED})")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the run to change")
    return parser.parse_args()


if __name__ == "__main__":
    main()
