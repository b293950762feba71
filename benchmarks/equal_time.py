"""The dynamics of a run trained anew with other settings, for as many CPU seconds: which setting gets furthest?

    python -m benchmarks.equal_time runs/take_cover dynamics.size=micro --out runs/micro --seconds 1200
    python -m benchmarks.foresight runs/micro --episodes other_episodes

The tokenizer, the episodes and the reader of endings are those of the run. A few steps are timed first; as many as fit
into the seconds are then trained, with a schedule of that length. CPU seconds of one thread are counted, so that what
else the machine does matters little. OUT gets the world model, at temperature 1, and figures.json; the held-out figures
are without contexts of the model's own making, so that they compare.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

from worldsim.config import from_dict
from worldsim.data.files import write_json
from worldsim.data.store import EpisodeStore
from worldsim.dynamics.learner import DynamicsLearner
from worldsim.memory import keep_freed_memory
from worldsim.model_folder import load_model, save_model
from worldsim.training import fit
from worldsim.workflow.config import RunConfig
from worldsim.workflow.report import read_json
from worldsim.workflow.showing import model_folder
from worldsim.workflow.stages import Machine, encode_episodes
from worldsim.world_model import WorldModel

TIMED_STEPS = 6
FP32 = Machine(torch.device("cpu"), torch.float32)


def main() -> None:
    """Train, measure, save."""
    arguments = _arguments()
    torch.set_num_threads(1)
    keep_freed_memory()
    settings = read_json(arguments.run / "config.json")
    config = from_dict(RunConfig, settings, str(arguments.run), arguments.overrides).dynamics
    before = load_model(model_folder(str(arguments.run)))
    store = EpisodeStore.open(arguments.run / "episodes")
    latents = encode_episodes(store, before.tokenizer, FP32)

    def learner(steps: int) -> DynamicsLearner:
        made = DynamicsLearner(replace(config, steps=steps), store, latents, before.tokenizer.grid, seed=arguments.seed)
        made.model.scale.load_state_dict(before.dynamics.scale.state_dict())  # the reader of endings knows no other
        made.average.scale.load_state_dict(before.dynamics.scale.state_dict())
        return made

    seconds = seconds_of_a_step(learner(10_000))
    steps = int(arguments.seconds / seconds)
    print(f"{seconds:.3f} CPU seconds a step, so {steps} steps")
    trained = learner(steps)
    begin = time.process_time()
    fit(trained, steps=steps, folder=arguments.out / "training", name="dynamics", seed=arguments.seed)
    spent = time.process_time() - begin
    for dynamics in (trained.model, trained.average):
        dynamics.config = replace(dynamics.config, self_context_fraction=0.0)
    figures = {"steps": steps, "cpu_seconds": round(spent), **trained.evaluate()}
    print(figures)
    write_json(arguments.out / "figures.json", {"overrides": arguments.overrides, **figures})
    model = WorldModel(
        store.spec,
        before.tokenizer,
        trained.average,
        before.start_contexts,
        feature_frames=before.feature_frames,
        endings=before.endings,
        training=figures,
    )
    save_model(model, arguments.out / "world_model")


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
