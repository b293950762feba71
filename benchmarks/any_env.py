"""Does a dream of an env that nobody described obey actions after a few minutes?

    python -m benchmarks.any_env --out O --folder F
    python -m benchmarks.any_env Pendulum-v1 ALE/Pong-v5 --minutes 8 --out O --folder F

What `worldsim train --env ID --until dynamics` does, for each id, with one thread and within about so many minutes: a
look from which settings are inferred, collection, tokenizer, dynamics (with `--agent` everything, the verdict too).
Then dreams from held-out moments: `action_shuffle_ratio`, the error of dreams along other episodes' actions over that
along the true ones, over 32 steps in latents. Above 1 the dream obeys actions. Beside it PSNR of the dream, of the last
frame copied and of the tokenizer, 4 steps ahead.

Written: O/any_env.json, O/NAME.png (real frames above dreamt ones), and the run of each env in F, which a second call
goes on with. Needs the extras of the envs it is asked for.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from worldsim.config import from_dict
from worldsim.data.files import write_json
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.pictures import write_grid
from worldsim.evaluation.stretches import draw_stretches, dream_along
from worldsim.evaluation.world import controllability, error_over_horizon
from worldsim.model_folder import load_model
from worldsim.workflow.config import RunConfig
from worldsim.workflow.folders import round_folders
from worldsim.workflow.infer import infer
from worldsim.workflow.inferred_run import INFERRED, notes, run_folder, table
from worldsim.workflow.look import look_at
from worldsim.workflow.run import CONFIG, begun_settings, run

ENVS = (
    "CarRacing-v3",
    "ALE/Breakout-v5",
    "MiniGrid-Empty-8x8-v0",
    "MinAtar/Breakout-v1",
    "HalfCheetah-v5",
    "Pendulum-v1",
    "VizdoomBasic-v1",
)
STARTS = 96
HORIZON = 32
SHOWN_STEP = 4


def main() -> None:
    """Train, dream, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("envs", nargs="*", default=ENVS, metavar="ID")
    parser.add_argument("--minutes", type=float, default=4.0, help="for each env, on one core (default: 4)")
    parser.add_argument("--agent", action="store_true", help="train an agent too and write its verdict")
    parser.add_argument("--folder", type=Path, required=True, help="for the runs")
    parser.add_argument("--out", type=Path, required=True, help="for any_env.json and the pictures")
    options = parser.parse_args()
    results = {}
    for env_id in options.envs:
        name = run_folder(env_id).name
        results[env_id] = measure(env_id, options.folder / name, options.minutes, options.agent, options.out)
        write_json(options.out / "any_env.json", results)
    print_results(results)


def measure(env_id: str, folder: Path, minutes: float, agent: bool, out: Path) -> dict[str, Any]:
    """Train on one env and dream of it; one thread, one round without an agent."""
    began = time.perf_counter()
    config = begun_config(folder) or inferred_config(env_id, folder, minutes, agent)
    run(config, folder, print, until="evaluate" if agent else "dynamics")
    seconds = time.perf_counter() - began

    torch.set_num_threads(1)
    model = load_model(round_folders(folder, config.rounds - 1).world_model, dtype=torch.bfloat16)
    store = EpisodeStore.open(folder / "episodes")
    stretches = draw_stretches(
        store, STARTS, horizon=HORIZON, context_frames=min(8, model.dynamics.config.window), seed=0
    )
    latents = dream_along(model, stretches, seed=0)
    quality = error_over_horizon(model, stretches, latents, [SHOWN_STEP])
    picture = write_grid(model, store, out / f"{folder.name}.png", starts=2, steps=(1, 2, 4, 8, 12, 16))
    return {
        "seconds": round(seconds),
        "frame_shape": list(store.spec.frame_shape),
        "frame_skip": config.env.frame_skip,
        "real_steps": int(store.lengths.sum()),
        "episodes": len(store),
        "tokenizer_steps": config.tokenizer.steps,
        "dynamics_steps": config.dynamics.steps,
        **controllability(model, stretches, latents, seed=0),
        **quality,
        "picture": picture.name,
    }


def begun_config(folder: Path) -> RunConfig | None:
    """That of the run in `folder`, if there is one."""
    begun = begun_settings(folder)
    return None if begun is None else from_dict(RunConfig, begun, str(folder / CONFIG))


def inferred_config(env_id: str, folder: Path, minutes: float, agent: bool) -> RunConfig:
    """What `worldsim run --env` would infer, for one core and so many minutes."""
    asked = RunConfig(threads=1)
    asked.env.id = env_id
    fixed = {"threads"}
    if not agent:
        asked.rounds = 1
        asked.agent_updates = [1]
        fixed |= {"rounds", "agent_updates"}
    look = look_at(asked.env)
    # Without an agent its share and that of the verdict are free for the world model.
    config, reasons = infer(look, asked, fixed, minutes=minutes if agent else minutes / 0.75, cores=1)
    print(f"\n{env_id}", *table(reasons), sep="\n", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / INFERRED, notes(look, reasons))
    return config


def print_results(results: dict[str, dict[str, Any]]) -> None:
    """One line for each env."""
    printed = Table(title="a few minutes of training, dreams from held-out moments")
    columns = ("env", "frame", "skip", "real steps", "minutes", "action-shuffle ratio", "PSNR dream / copy / tokenizer")
    for column in columns:
        printed.add_column(column, justify="left" if column == "env" else "right")
    for env_id, found in results.items():
        quality = (found.get(f"psnr_{kind}_{SHOWN_STEP}") for kind in ("dream", "copy", "tokenizer"))
        printed.add_row(
            env_id,
            "x".join(str(size) for size in found["frame_shape"]),
            str(found["frame_skip"]),
            f"{found['real_steps']:,}",
            f"{found['seconds'] / 60:.1f}",
            f"{found['action_shuffle_ratio']:.2f}",
            " / ".join("-" if value is None else f"{value:.1f}" for value in quality),
        )
    Console().print(printed)


if __name__ == "__main__":
    main()
