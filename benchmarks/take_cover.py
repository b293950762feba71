"""The table and the plot of several runs of one config: every seed, their mean, and what they are compared with.

    python -m benchmarks.take_cover runs/take_cover-0 runs/take_cover-1 runs/take_cover-2 --out results
    python -m benchmarks.take_cover runs/a runs/b --beside "PPO (SB3) in the dream=verdicts/sb3" --out results

Reads the verdict.json of each run folder; `--beside NAME=FOLDER` adds the agent of another verdict as a row. Writes
OUT/table.md, OUT/scores.png (needs matplotlib) and OUT/scores.json. Baselines are those of all verdicts together, an
episode that several of them played counted once. Intervals: 95 %, bootstrap. That of the mean over seeds draws seeds
and then their episodes, so it is as wide as the few seeds make it. IQM is the mean of the middle half of all episodes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldsim.errors import UserError
from worldsim.evaluation.statistics import RESAMPLES, bootstrap_interval
from worldsim.evaluation.verdict import FILE, sequence
from worldsim.evaluation.world_plots import check_matplotlib

Verdict = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """A line of the table. returns: one for each episode."""

    name: str
    mean: float
    low: float
    high: float
    returns: Sequence[float]
    minutes: float | None = None
    dream: float | None = None


def main() -> None:
    """Read the verdicts, write table, plot and figures."""
    arguments = _arguments()
    runs = {str(folder): read_verdict(folder) for folder in arguments.runs}
    if len(runs) < len(arguments.runs):
        raise UserError(f"{', '.join(map(str, arguments.runs))}: expected each run once")
    beside = dict(_named(text) for text in arguments.beside)
    rows = [
        over_seeds(list(runs.values())),
        *(agent_row(name, verdict) for name, verdict in runs.items()),
        *(agent_row(name, read_verdict(folder)) for name, folder in beside.items()),
        *baseline_rows(list(runs.values())),
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = table(rows)
    print(text)
    (arguments.out / "table.md").write_text(text)
    figures = [{**vars(row), "returns": list(row.returns), "iqm": interquartile_mean(row.returns)} for row in rows]
    (arguments.out / "scores.json").write_text(json.dumps(figures, indent=2) + "\n")
    draw(rows, arguments.out / "scores.png")


def read_verdict(folder: Path) -> Verdict:
    """What FOLDER/verdict.json says. Raises UserError where there is none."""
    try:
        content: Verdict = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} holds no {FILE}: expected the folder of a finished run") from None
    return content


def agent_row(name: str, verdict: Verdict) -> Row:
    """The agent of one verdict."""
    agent, dream, seconds = verdict["agent"], verdict["dream"], verdict["seconds"]
    low, high = agent["ci95"]
    minutes = sum(seconds.values()) / 60 if seconds else None
    return Row(name, agent["mean"], low, high, agent["returns"], minutes, dream and dream["mean"])


def over_seeds(verdicts: Sequence[Verdict]) -> Row:
    """The mean over the agents of several verdicts, each counted alike."""
    each = [np.asarray(verdict["agent"]["returns"], np.float64) for verdict in verdicts]
    low, high = nested_interval(each)
    mean = float(np.mean([returns.mean() for returns in each]))
    name = "one seed" if len(each) == 1 else f"mean over {len(each)} seeds"
    return Row(name, mean, low, high, np.concatenate(each).tolist())


def baseline_rows(verdicts: Sequence[Verdict]) -> list[Row]:
    """The baselines of all verdicts together, each sequence of blind actions for itself."""
    played: dict[str, dict[tuple[int, int], float]] = {}
    for index, verdict in enumerate(verdicts):
        for name, score in verdict["baselines"].items():
            # Blind policies do the same on the same seed; those that look through a model are one for each verdict.
            own = index if name == "shuffled_observations" else 0
            episodes = played.setdefault(name.replace("_", " ") + sequence(score), {})
            episodes |= {(own, seed): value for seed, value in zip(score["seeds"], score["returns"], strict=True)}
    rows = []
    for name, episodes in played.items():
        returns = list(episodes.values())
        rows.append(Row(name, float(np.mean(returns)), *bootstrap_interval(returns), returns))
    return rows


def nested_interval(
    each: Sequence[NDArray[np.float64]], resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the mean over seeds: draws seeds with replacement, then episodes (n,) of each drawn seed."""
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    for index in range(resamples):
        chosen = random.integers(len(each), size=len(each))
        means[index] = np.mean(
            [each[run][random.integers(len(each[run]), size=len(each[run]))].mean() for run in chosen]
        )
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def interquartile_mean(values: Sequence[float]) -> float:
    """The mean of the middle half (Agarwal et al. 2021, arXiv 2108.13264), the edges counted by their share."""
    ordered = np.sort(np.asarray(values, np.float64))
    edges = np.clip(np.arange(len(ordered) + 1) / len(ordered), 0.25, 0.75)
    weight = np.diff(edges)
    return float((ordered * weight).sum() / weight.sum())


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| | mean | 95 % interval | IQM | episodes | its dream | minutes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        dream = "" if row.dream is None else f"{row.dream:.0f}"
        minutes = "" if row.minutes is None else f"{row.minutes:.0f}"
        lines.append(
            f"| {row.name} | {row.mean:.0f} | {row.low:.0f} to {row.high:.0f} | {interquartile_mean(row.returns):.0f} "
            f"| {len(row.returns)} | {dream} | {minutes} |"
        )
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Means with their intervals, and every episode as a faint dot. Raises UserError without matplotlib."""
    check_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.5 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    random = np.random.default_rng(0)
    for height, row in enumerate(reversed(rows)):
        jitter = height + random.uniform(-0.15, 0.15, len(row.returns))
        axes.scatter(row.returns, jitter, s=3, color="#b8c4d0", linewidths=0)
        spread = [[row.mean - row.low], [row.high - row.mean]]
        axes.errorbar(row.mean, height, xerr=spread, fmt="o", color="#1f5fa8", markersize=4)
    axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)], fontsize=8)
    axes.set_xlabel("return of an episode in the real env")
    figure.savefig(path, dpi=150)


def _named(text: str) -> tuple[str, Path]:
    name, equals, folder = text.rpartition("=")
    if not equals:
        raise UserError(f"--beside {text!r}: expected NAME=FOLDER")
    return name, Path(folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs, one for each seed")
    parser.add_argument("--beside", action="append", default=[], metavar="NAME=FOLDER", help="another agent's verdict")
    parser.add_argument("--out", type=Path, required=True, help="folder for table.md, scores.png and scores.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
