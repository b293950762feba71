r"""Quality against speed: dynamics of several kinds and sizes on the same episodes, at equal time and equal steps.

    worldsim train quickstart --until dynamics dynamics.steps=10 --folder runs/dit
    worldsim train quickstart --until dynamics dynamics.steps=10 tokenizer.kind=vq dynamics.kind=video_gpt \
        --folder runs/gpt
    python -m benchmarks.frontier --out runs/frontier --seconds 120 --steps 400 \
        --model "DiT nano = runs/dit dynamics.size=nano" --model "VideoGPT = runs/gpt"

A model is a name, a run folder with episodes and a world model, and settings that differ from the run's. Tokenizer and
latents are the folder's; the dynamics are trained anew, for so many CPU seconds of one thread and, once more, for so
many steps. The runs must hold the same episodes (the same seed and amounts do). Judged are dreams of held-out episodes
as `benchmarks.ablations` judges them, and beside them:

    tokenizer 8  the error of the real frame 8 steps ahead, encoded and decoded: no dream gets far below it
    frames/s     dreamt and decoded in 64 rows of a dream env, with reward, ending and uncertainty

With --detector (`benchmarks.small_objects`; Take Cover alone) also the share of the fireballs in view when the dream
begins that are still found 4 steps later, and how many are found in a frame 32 steps ahead. The first row is the last
frame seen, as the answer. OUT gets a file and a world model for each model, amount and seed, table.md,
frontier.png, and dreams.png, what models of equal time dream from the same frames. Run again, it goes on with what has
no file yet.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import object_detector
from benchmarks.ablations import STARTS, check_long_enough, judge, mean_and_range
from benchmarks.equal_time import Ground, open_ground, train_dynamics
from benchmarks.labelled_frames import collect
from benchmarks.small_objects import Contexts, draw_contexts, dream_with, score_dreams
from benchmarks.throughput import seconds_per_call
from worldsim.data.files import write_json
from worldsim.data.store import EpisodeStore
from worldsim.dream import DreamVectorEnv
from worldsim.envs import EnvConfig
from worldsim.errors import UserError
from worldsim.evaluation.stretches import decode, draw_stretches, dream_along
from worldsim.evaluation.world_plots import check_matplotlib
from worldsim.model_folder import load_model
from worldsim.rendering import picture_grid, write_picture
from worldsim.workflow.report import read_json
from worldsim.world_model import WorldModel

COPY = "the last frame seen"
AMOUNTS = ("seconds", "steps")
ROWS = 64
TIMED_SECONDS = 10.0
DRAWN = (1, 2, 4, 8, 16, 32)  # steps ahead in dreams.png
COLUMNS = {  # of the table, and in how many decimals
    "frames/s": 0,
    "error 1": 2,
    "error 8": 2,
    "error 32": 2,
    "tokenizer 8": 2,
    "sharpness": 2,
    "shuffle": 2,
    "fireballs kept": 2,
    "fireballs a frame": 2,
    "parameters": 0,
    "steps": 0,
    "cpu_seconds": 0,
}
LABELLED_FRAMES, LABELLED_CONTEXTS, LABELLED_SEED = 6000, 256, 2


@dataclass(frozen=True)
class Entry:
    """A model to be trained: its name, the run it is trained on, and settings of its own."""

    name: str
    run: Path
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Fireballs:
    """What sees fireballs, and labelled frames to begin dreams at."""

    detector: object_detector.Detector
    contexts: Contexts


def main() -> None:
    """Train and judge what is not there yet, then print and draw."""
    arguments = _arguments()
    entries = [read_entry(text) for text in arguments.model]
    check_same_episodes(entries)
    fireballs: Fireballs | None = None
    for seed in arguments.seed or (0,):
        for entry in entries:
            ground: Ground | None = None
            for amount in AMOUNTS:
                training = training_folder(arguments.out, entry.name, amount, seed)
                file = training.with_suffix(".json")
                if file.exists() or not getattr(arguments, amount):
                    continue
                if ground is None:
                    ground = open_ground(entry.run)
                    check_long_enough(ground)
                if arguments.detector and fireballs is None:
                    fireballs = _look_for_fireballs(arguments.detector, ground)
                print(f"{entry.name}, equal {amount}, seed {seed}", flush=True)
                shutil.rmtree(training, ignore_errors=True)  # of a call that was cut short: its seconds do not count
                model = train_dynamics(
                    ground,
                    entry.overrides,
                    seed=seed,
                    folder=training,
                    **{amount: getattr(arguments, amount)},
                )
                found = {
                    "model": entry.name,
                    "amount": amount,
                    "seed": seed,
                    **measure(model, ground, fireballs, arguments.starts),
                }
                write_json(file, found)
    show(arguments.out)
    write_picture(dreams(arguments.out, entries[0].run / "episodes"), arguments.out / "dreams.png")


def read_entry(text: str) -> Entry:
    """The Entry that "NAME = RUN key=value ..." stands for. Raises UserError for anything else."""
    name, equals, rest = text.partition(" = ")
    run, *overrides = rest.split() or [""]
    if not equals or not name.strip() or not run:
        raise UserError(f"--model {text!r}: expected 'NAME = RUN_FOLDER key=value ...', with spaces around the first =")
    return Entry(name.strip(), Path(run), tuple(overrides))


def training_folder(out: Path, name: str, amount: str, seed: int) -> Path:
    """Where a model is trained and kept; its figures lie beside it, with the ending ".json"."""
    return out / name.replace(" ", "_") / f"{amount}-{seed}"


def check_same_episodes(entries: Sequence[Entry]) -> None:
    """Raise UserError unless all runs hold the same episodes, by length, action and split."""

    def told(run: Path) -> list[Any]:
        store = EpisodeStore.open(run / "episodes")
        episodes = range(len(store))
        return [
            store.lengths.tolist(),
            [store.steps(i)["action"].tolist() for i in episodes],
            store.indices("held_out").tolist(),
        ]

    runs = list(dict.fromkeys(entry.run for entry in entries))
    first = told(runs[0])
    for run in runs[1:]:
        if told(run) != first:
            raise UserError(
                f"{run} holds other episodes than {runs[0]}: models compare on the same ones alone; "
                "collect both with the same seed and collect.tics"
            )


def measure(model: WorldModel, ground: Ground, fireballs: Fireballs | None, starts: int = STARTS) -> dict[str, float]:
    """The COLUMNS of a trained world model; those of fireballs where something sees them."""
    found = judge(model, ground, starts)
    found["parameters"] = sum(parameter.numel() for parameter in model.dynamics.parameters())
    found["frames/s"] = frames_per_second(model)
    if fireballs is not None:
        found |= _fireballs(score_dreams(fireballs.detector, fireballs.contexts, dream_with(model, 0, 1.0)))
    return {**found, **model.training}


def frames_per_second(model: WorldModel) -> float:
    """Dreamt and decoded, in ROWS rows."""
    rows = DreamVectorEnv(model, ROWS, observation="pixels", max_episode_steps=10_000)
    rows.reset(seed=0)
    actions = rows.action_space.sample()
    return ROWS / seconds_per_call(lambda: rows.step(actions), model.device, TIMED_SECONDS)


def _look_for_fireballs(detector: Path, ground: Ground) -> Fireballs:
    episodes = collect(LABELLED_FRAMES, LABELLED_SEED, EnvConfig(**ground.store.spec.settings))
    contexts = draw_contexts(episodes, context_frames=8, num_contexts=LABELLED_CONTEXTS, seed=0)
    return Fireballs(object_detector.load(detector), contexts)


def _fireballs(scores: Mapping[str, Any]) -> dict[str, float]:
    return {
        prefix + name: value
        for prefix, answer in (("", "dream"), ("copied ", "frozen"))
        for name, value in (
            ("fireballs kept", scores["step_4"][answer]["fireball"]["known"]["recall"]),
            ("fireballs a frame", scores["step_32"][answer]["fireball"]["per_frame"]),
        )
    }


def read(out: Path) -> list[dict[str, Any]]:
    """The figures of all that was judged, the fastest first."""
    found = [read_json(file) for amount in AMOUNTS for file in sorted(out.glob(f"*/{amount}-*.json"))]
    return sorted(found, key=lambda one: (AMOUNTS.index(one["amount"]), -one["frames/s"]))


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Markdown, a row for each model and amount: means over seeds, and behind them from the lowest to the highest."""
    names = [name for name in COLUMNS if any(name in one for one in found)]
    lines = ["| model | trained for equal | seeds | " + " | ".join(names) + " |", "| --- " * (len(names) + 3) + "|"]
    copied = [_cell([one[f"copied {name}"] for one in found[:1] if f"copied {name}" in one], name) for name in names]
    lines.append(f"| {COPY} | - | - | {' | '.join(copied)} |")
    for model, amount in dict.fromkeys((one["model"], one["amount"]) for one in found):
        seeds = [one for one in found if (one["model"], one["amount"]) == (model, amount)]
        cells = [_cell([one[name] for one in seeds if one.get(name) is not None], name) for name in names]
        lines.append(f"| {model} | {amount} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float], name: str) -> str:
    return mean_and_range(values[:1] if len(set(values)) == 1 else values, COLUMNS[name])


def show(out: Path) -> None:
    """Print and write the table, and the plot where there is matplotlib."""
    found = read(out)
    if not found:
        raise UserError(f"nothing is judged in {out}: give --seconds or --steps, or both")
    text = table(found)
    print(text)
    (out / "table.md").write_text(text + "\n")
    try:
        check_matplotlib()
    except UserError as error:
        print(f"no plot: {error}")
        return
    draw(found, out / "frontier.png")


def draw(found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Error 8 and 32 steps ahead, and fireballs kept, against frames a second; a colour for each model."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    shown = [name for name in ("error 8", "error 32", "fireballs kept") if name in found[0]]
    models = list(dict.fromkeys(one["model"] for one in found))
    figure = Figure(figsize=(5 * len(shown), 4.5), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(shown))), shown, strict=True):
        for one in found:
            colour = f"C{models.index(one['model'])}"
            filled = colour if one["amount"] == "seconds" else "none"
            axes.plot(one["frames/s"], one[name], "o", markeredgecolor=colour, markerfacecolor=filled)
        axes.axhline(found[0][f"copied {name}"], color="grey", linestyle=":")
        axes.set(xscale="log", xlabel=f"dreamt frames a second, {ROWS} rows, decoded", ylabel=name)
        axes.xaxis.set_major_formatter(LogFormatter())  # plain numbers
        axes.xaxis.set_minor_formatter(LogFormatter())
    axes = figure.axes[0]
    for number, model in enumerate(models):
        axes.plot([], [], "o", color=f"C{number}", label=model)
    axes.plot([], [], "o", color="black", markerfacecolor="none", label="at equal steps; filled: at equal seconds")
    axes.plot([], [], ":", color="grey", label=COPY)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(path, dpi=150)


def dreams(out: Path, episodes: Path) -> NDArray[np.uint8]:
    """Two held-out stretches and what the first seed's models dream from the same frames along the same actions."""
    folders = [
        (one["model"], training_folder(out, one["model"], "seconds", 0) / "world_model")
        for one in read(out)
        if (one["amount"], one["seed"]) == ("seconds", 0)
    ]
    models = {name: load_model(folder) for name, folder in folders if folder.exists()}
    window = min((model.dynamics.config.window for model in models.values()), default=1)
    stretches = draw_stretches(
        EpisodeStore.open(episodes), 2, horizon=max(DRAWN), context_frames=min(8, window), seed=0, whole=True
    )
    columns = [step - 1 for step in DRAWN]
    shown = {"real": stretches.future[:, columns].numpy()}
    for name, model in models.items():
        shown[name] = decode(model, dream_along(model, stretches, temperature=1.0)[:, columns])
    rows = [(name, list(frames[start])) for start in range(len(stretches)) for name, frames in shown.items()]
    return picture_grid(rows, [f"step {step}" for step in DRAWN])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", action="append", required=True, metavar="'NAME = RUN key=value ...'", help="repeatable"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for figures, table and plot")
    parser.add_argument("--seconds", type=float, default=0, help="CPU seconds of a training; 0: none at equal time")
    parser.add_argument("--steps", type=int, default=0, help="steps of a training; 0: none at equal steps")
    parser.add_argument("--seed", type=int, action="append", help="of the training, repeatable (default: 0)")
    parser.add_argument("--detector", type=Path, help="a detector that benchmarks.small_objects has written")
    parser.add_argument("--starts", type=int, default=STARTS, help=f"of the judged dreams (default: {STARTS})")
    return parser.parse_args()


if __name__ == "__main__":
    main()
