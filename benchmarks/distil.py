"""Make a world model faster: a small network learns in its dreams to sample in few steps.

    python -m benchmarks.distil take_cover --out runs/fast
    python -m benchmarks.distil runs/decoder/world_model --out runs/fast --episodes runs/t1/episodes

What `dynamics.distillation_steps` does at the end of a run, for a model that exists (see worldsim.distillation).
Memory, belief, reward and endings stay those of the model, bit for bit, so its policy goes on serving. With a store of
real episodes the temperature is calibrated anew, and the quantiles of the uncertainty are measured. It goes on where it
was stopped; OUT/world_model is the result. About half an hour on one core.
"""

from __future__ import annotations

import argparse
import copy
import shutil
from pathlib import Path

import torch

from worldsim.data.store import EpisodeStore
from worldsim.distillation import DistillationLearner
from worldsim.evaluation.temperature import calibrate_temperature
from worldsim.evaluation.uncertainty import measure_uncertainty
from worldsim.memory import keep_freed_memory
from worldsim.model_folder import find_model, load_model, save_model
from worldsim.training import fit
from worldsim.workflow.showing import load_here


def main() -> None:
    """Distil, calibrate, save."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    folder = find_model(arguments.model)
    learner = DistillationLearner(
        load_here(folder), steps=arguments.steps, sampling_steps=arguments.sampling_steps, seed=arguments.seed
    )
    fit(learner, steps=arguments.steps, folder=arguments.out / "training", name="distillation", seed=arguments.seed)
    model = load_model(folder)  # in whole precision
    model.dynamics = learner.result(model.dynamics)
    if arguments.episodes is not None:
        store = EpisodeStore.open(arguments.episodes)
        dreaming = copy.deepcopy(model)
        found = calibrate_temperature(dreaming, store)
        model.temperature = dreaming.temperature = found.temperature
        model.uncertainty_quantiles = dict(measure_uncertainty(dreaming, store).quantiles)
        model.training["endings per step, real"] = round(found.hazard_observed, 5)
        model.training["endings per step, dreamt"] = round(found.hazard_dreamt, 5)
        endings = f"{found.hazard_dreamt:.4f} endings a step in dreams, {found.hazard_observed:.4f} in reality"
        print(f"temperature {found.temperature}: {endings}")
    target = arguments.out / "world_model"
    save_model(model, target)
    if (folder / "policy").is_dir():
        shutil.copytree(folder / "policy", target / "policy", dirs_exist_ok=True)
    print(target)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a released model's name, a model folder, or a run folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for the training and the world model")
    parser.add_argument("--episodes", type=Path, help="a store of real episodes to calibrate the temperature on")
    parser.add_argument("--sampling-steps", type=int, default=2, help="denoising steps of the result (default: 2)")
    parser.add_argument("--steps", type=int, default=1400, help="of the distillation (default: 1400)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default: 1)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
