"""The dynamics of a run trained anew with other settings, for as many CPU seconds: which setting gets furthest?

    python -m benchmarks.equal_time runs/take_cover dynamics.size=micro --out runs/micro --seconds 1200
    python -m benchmarks.foresight runs/micro --episodes other_episodes

The tokenizer, the episodes and the reader of endings are those of the run. A few steps are timed first; as many as fit
into the seconds are then trained, with a schedule of that length. CPU seconds of one thread are counted, so that what
else the machine does matters little. As in a run, training and dreams are in bf16 where the processor multiplies that.
OUT gets the world model, at temperature 1, and figures.json; the held-out figures are without contexts of the model's
own making, so that they compare.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from worldsim.config import from_dict
from worldsim.data.files import write_json
from worldsim.data.latents import LatentCache
from worldsim.data.store import EpisodeStore
from worldsim.device import choose_precision
from worldsim.dynamics.learner import DynamicsLearner
from worldsim.memory import keep_freed_memory
from worldsim.model_folder import find_model, load_model, save_model
from worldsim.tokenizers.build import code_vectors
from worldsim.training import fit
from worldsim.workflow.config import RunConfig
from worldsim.workflow.machine import Machine
from worldsim.workflow.report import read_json
from worldsim.workflow.stages import encode_episodes
from worldsim.world_model import WorldModel

TIMED_STEPS = 6


@dataclass(frozen=True)
class Ground:
    """What all trainings of a run share: its folder, episodes and their latents, the world model that it made in fp32,
    and the precision to train and dream in.
    """

    run: Path
    store: EpisodeStore
    latents: LatentCache
    made: WorldModel
    dtype: torch.dtype


def open_ground(run: Path) -> Ground:
    """Of a run folder with episodes and a world model; one thread from now on."""
    torch.set_num_threads(1)
    keep_freed_memory()
    cpu = torch.device("cpu")
    machine = Machine(cpu, choose_precision("auto", cpu))
    made = load_model(find_model(str(run)))
    store = EpisodeStore.open(run / "episodes")
    return Ground(run, store, encode_episodes(store, made.tokenizer, machine), made, machine.dtype)


def main() -> None:
    """Train, measure, save."""
    arguments = _arguments()
    ground = open_ground(arguments.run)
    model = train_dynamics(
        ground, arguments.overrides, seconds=arguments.seconds, seed=arguments.seed, folder=arguments.out
    )
    print(model.training)
    write_json(arguments.out / "figures.json", {"overrides": arguments.overrides, **model.training})


def train_dynamics(
    ground: Ground, overrides: Sequence[str], *, seed: int, folder: Path, seconds: float = 0, steps: int = 0
) -> WorldModel:
    """The run's world model with dynamics of other settings, trained in `folder` for some CPU seconds or steps.

    It is saved in folder/world_model, and returned as it dreams, in `ground.dtype`. Its `training` holds steps,
    cpu_seconds and the learner's held-out figures.
    """
    made = ground.made
    settings = read_json(ground.run / "config.json")
    config = from_dict(RunConfig, settings, str(ground.run), overrides).dynamics

    def learner(steps: int) -> DynamicsLearner:
        fresh = DynamicsLearner(
            replace(config, steps=steps),
            ground.store,
            ground.latents,
            made.tokenizer.grid,
            dtype=ground.dtype,
            seed=seed,
            codes=code_vectors(made.tokenizer),
        )
        fresh.model.scale.load_state_dict(made.dynamics.scale.state_dict())  # the reader of endings knows no other
        fresh.average.scale.load_state_dict(made.dynamics.scale.state_dict())
        return fresh

    if not steps:
        step = seconds_of_a_step(learner(10_000))
        steps = max(1, int(seconds / step))
        print(f"{step:.3f} CPU seconds a step, so {steps} steps")
    trained = learner(steps)
    begin = time.process_time()
    fit(trained, steps=steps, folder=folder, name="dynamics", seed=seed)
    spent = time.process_time() - begin
    for dynamics in (trained.model, trained.average):
        dynamics.config = replace(dynamics.config, self_context_fraction=0.0)
    model = WorldModel(
        ground.store.spec,
        made.tokenizer,
        trained.average,
        made.start_contexts,
        feature_frames=made.feature_frames,
        stack_ages=made.stack_ages,
        endings=made.endings,
        training={"steps": steps, "cpu_seconds": round(spent), **trained.evaluate()},
    )
    save_model(model, folder / "world_model")
    return load_model(folder / "world_model", dtype=ground.dtype)


def seconds_of_a_step(learner: DynamicsLearner) -> float:
    """CPU seconds of this process, the median of a few steps after one that allocates."""
    learner.update()
    taken = []
    for _ in range(TIMED_STEPS):
        begin = time.process_time()
        learner.update()
        taken.append(time.process_time() - begin)
    return statistics.median(taken)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder with episodes and a world model")
    parser.add_argument("--out", type=Path, required=True, help="folder for the training and the world model")
    parser.add_argument("--seconds", type=float, default=1200, help="CPU seconds of training (default: 1200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the run to change")
    return parser.parse_args()


if __name__ == "__main__":
    main()
