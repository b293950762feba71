"""What each setting of the dynamics is worth: one changed at a time, several seeds, equal CPU seconds.

    python -m benchmarks.ablations runs/quickstart --out runs/ablations
    python -m benchmarks.ablations runs/quickstart --out O --seed 3 --change "dynamics.size=nano dynamics.window=4"

RUN needs episodes and a world model (`worldsim train CONFIG --until dynamics`); tokenizer and episodes are shared by
all. A change is one or more settings, in quotes; without any, all of CHANGES are tried, and the run's own settings
always. Judged are dreams of held-out episodes along their recorded actions at temperature 1, always the same starts
with the same noise:

    error      grey levels off on the pixels that move, 1, 8 and 32 steps ahead, mean of the draws
    sharpness  of dreamt frames 32 steps ahead, as a share of reality's: a blurred dream errs less, and is worth less
    shuffle    error along another episode's actions over that along the recorded ones; 1: actions mean nothing
    ms         of one thread for a dreamt frame of each of 128 rows, latents alone

OUT gets a file for each change and seed, and table.md. Run again, it goes on with what has no file yet. Two calls
may share OUT if their seeds differ.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.equal_time import Ground, open_ground, train_dynamics
from worldsim.data.files import write_json
from worldsim.errors import UserError
from worldsim.evaluation.drift import sharpness
from worldsim.evaluation.horizons import action_shuffle_ratio, draw_dreams, quality_over_horizon
from worldsim.evaluation.stretches import decode, draw_stretches, pictured_frames
from worldsim.workflow.report import read_json
from worldsim.world_model import WorldModel, row_generator

UNCHANGED = "as it is"
CHANGES = (
    "dynamics.context_noise=0",
    "dynamics.context_noise=0.1",
    "dynamics.context_noise=0.3",
    "dynamics.finest_steps=1 dynamics.sampling_steps=1",
    "dynamics.finest_steps=4 dynamics.sampling_steps=4",
    "dynamics.finest_steps=8 dynamics.sampling_steps=8",
    "dynamics.finest_steps=16 dynamics.sampling_steps=16",
    "dynamics.finest_steps=16 dynamics.sampling_steps=4 dynamics.shortcut_fraction=0.25",
    "dynamics.time_every=1",
    "dynamics.time_every=4",
    "dynamics.registers=4",
    "dynamics.noise_scale=4",
    "dynamics.self_context_fraction=0.25",
    "dynamics.change_weight=0",
)
HORIZONS = (1, 8, 32)
COLUMNS = ("error 1", "error 8", "error 32", "sharpness", "shuffle", "ms", "steps")
STARTS, DRAWS, CONTEXT_FRAMES = 128, 4, 8
TIMED_ROWS, TIMED_STEPS = 128, 10


def main() -> None:
    """Train and judge what is not there yet, then print the table."""
    arguments = _arguments()
    changes = [UNCHANGED, *(arguments.change or CHANGES)]
    ground: Ground | None = None
    for seed in arguments.seed or (0, 1, 2):
        for change in changes:
            file = result_file(arguments.out, change, seed)
            if file.exists():
                continue
            if ground is None:
                ground = open_ground(arguments.run)
                check_long_enough(ground)
            overrides = [] if change == UNCHANGED else change.split()
            print(f"{change}, seed {seed}", flush=True)
            training = file.with_suffix("")
            shutil.rmtree(training, ignore_errors=True)  # of a call that was cut short: its seconds are not counted
            model = train_dynamics(ground, overrides, seconds=arguments.seconds, seed=seed, folder=training)
            write_json(file, {"change": change, "seed": seed, **judge(model, ground), **model.training})
    text = table(read(arguments.out))
    print(text)
    (arguments.out / "table.md").write_text(text + "\n")


def check_long_enough(ground: Ground) -> None:
    """Raise UserError if no held-out episode goes on for the longest horizon after some moment, so that there is
    nothing to judge by.
    """
    store = ground.store
    if max((pictured_frames(store, int(i)) for i in store.indices("held_out")), default=0) < max(HORIZONS) + 1:
        raise UserError(
            f"{store.folder}: no held-out episode goes on for {max(HORIZONS)} steps after a moment; give the folder of "
            "a run with longer episodes, such as those of a run's later rounds"
        )


def result_file(out: Path, change: str, seed: int) -> Path:
    """Where the figures of a change and a seed lie."""
    name = change.replace("dynamics.", "").replace(" ", "_").replace("/", "-")
    return out / name / f"seed-{seed}.json"


def judge(model: WorldModel, ground: Ground, starts: int = STARTS) -> dict[str, float]:
    """The COLUMNS but "steps" of a world model, on the held-out episodes of its run.

    Beside them, for each horizon: "copied error", of the last frame seen, and "tokenizer", of the real frame encoded
    and decoded.
    """
    stretches = draw_stretches(
        ground.store,
        starts,
        horizon=max(HORIZONS),
        context_frames=min(CONTEXT_FRAMES, model.dynamics.config.window),
        whole=True,
    )
    draws = draw_dreams(model, stretches, DRAWS, temperature=1.0)
    errors = quality_over_horizon(model, stretches, draws, HORIZONS)
    last = torch.from_numpy(decode(model, draws.dreams[0][:, -1:])[:, 0])
    known = stretches.future_present[:, -1]
    reality = sharpness(stretches.future[known, -1])
    moving = errors["moving_error"]
    return {
        **{f"error {k}": error for k, error in zip(errors["horizons"], moving["dream_mean"], strict=True)},
        **{f"copied error {k}": error for k, error in zip(errors["horizons"], moving["copy_last"], strict=True)},
        **{f"tokenizer {k}": error for k, error in zip(errors["horizons"], moving["tokenizer"], strict=True)},
        "sharpness": sharpness(last[known]) / reality,
        "shuffle": action_shuffle_ratio(model, stretches, draws),
        "ms": 1000 * seconds_of_a_frame(model),
    }


def seconds_of_a_frame(model: WorldModel) -> float:
    """CPU seconds for a dreamt frame of each of TIMED_ROWS rows, the least of some: noise only adds."""
    rows = torch.arange(TIMED_ROWS) % len(model.start_contexts)
    state = model.start_from(model.start_contexts.rows(rows), [row_generator(row) for row in range(TIMED_ROWS)])
    actions = torch.from_numpy(np.zeros((TIMED_ROWS, *model.spec.action_shape), model.spec.action_dtype))
    taken = []
    for _ in range(TIMED_STEPS):
        begin = time.process_time()
        state, _ = model.step(state, actions)
        taken.append(time.process_time() - begin)
    return min(taken)


def read(out: Path) -> dict[str, list[Mapping[str, float]]]:
    """The figures of all seeds, by change; the unchanged settings first."""
    found: dict[str, list[Mapping[str, float]]] = {UNCHANGED: []}
    for file in sorted(out.glob("*/seed-*.json")):
        figures = read_json(file)
        found.setdefault(figures["change"], []).append(figures)
    return found


def table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Markdown, a row for each change: means over seeds, and behind them from the lowest to the highest seed's."""
    lines = ["| change | seeds | " + " | ".join(COLUMNS) + " |", "| --- " * (len(COLUMNS) + 2) + "|"]
    for change, seeds in found.items():
        cells = [_cell([one[column] for one in seeds if column in one]) for column in COLUMNS]
        lines.append(f"| {change.replace('dynamics.', '')} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    return mean_and_range(values, 0 if min(values, default=0) >= 100 else 2)


def mean_and_range(values: Sequence[float], digits: int) -> str:
    """The mean, and behind it from the lowest to the highest of several."""
    if not values:
        return "-"
    mean, low, high = (f"{value:.{digits}f}" for value in (np.mean(values), min(values), max(values)))
    return mean if len(values) == 1 else f"{mean} ({low} to {high})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder with episodes and a world model")
    parser.add_argument("--out", type=Path, required=True, help="folder for figures and table")
    parser.add_argument("--change", action="append", metavar="'key=value ...'", help="repeatable (default: CHANGES)")
    parser.add_argument("--seed", type=int, action="append", help="repeatable (default: 0, 1 and 2)")
    parser.add_argument("--seconds", type=float, default=60, help="CPU seconds of each training (default: 60)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
