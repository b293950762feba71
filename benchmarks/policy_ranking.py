"""Does the dream rank policies as reality does?

    python -m benchmarks.policy_ranking take_cover --json ranking.json
    python -m benchmarks.policy_ranking runs/take_cover --steps 100 --episodes 64 --picture ranking.png
    python -m benchmarks.policy_ranking runs/a --policy runs/a/round-00/world_model/policy --policy other/policy

Every constant action, alternations of actions, random play, the model's own policy and others trained on its features
each play the first `--steps` steps of episodes, in the real env and in the dream. An agent that learns in the dream
climbs the dream's order, so what the dream ranks wrongly it learns wrongly. Printed: both means, their correlation
(Pearson's, and Spearman's of the ranks), of all and of the trained ones alone, and the regret: how much less the
dream's favourite earns in the real env than the best of these policies. The seeds are not those of any verdict.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldsim import envs
from worldsim.agents.policy_io import load_policy
from worldsim.evaluation.blind import Sequenced, alternations, constants
from worldsim.evaluation.dreamt_return import Act, score_in_dream
from worldsim.evaluation.returns import MakeBatchPolicy, MakePolicy, score_policy
from worldsim.evaluation.statistics import Score
from worldsim.evaluation.world_plots import check_matplotlib
from worldsim.model_folder import find_model
from worldsim.rollouts import Policy
from worldsim.scripted_policies import StickyRandom, UniformRandom
from worldsim.workflow.policies import SIDE_BY_SIDE, act_in_dream, is_greedy, load_dream_trained
from worldsim.workflow.reality import env_config
from worldsim.workflow.showing import load_here
from worldsim.world_model import WorldModel

HOLD_STEPS = (4, 16, 32)
MOST_CONSTANTS = 8


@dataclass(frozen=True)
class Candidate:
    """A policy: its maker for the real env (a BatchPolicy's if `side_by_side`), and for a number of dream rows."""

    name: str
    make_policy: MakePolicy | MakeBatchPolicy
    act: Callable[[int], Act]
    side_by_side: int = 0


def main() -> None:
    """Play, print, and write the report."""
    arguments = _arguments()
    folder = find_model(arguments.model)
    model = load_here(folder)
    make_env = partial(envs.make, env_config(model.spec, folder))

    report: dict[str, dict[str, Any]] = {}
    for candidate in policies(model, folder, arguments.policy, model.dtype, arguments.seed):
        seeds = range(arguments.seed, arguments.seed + arguments.episodes)
        real = score_policy(
            make_env,
            candidate.make_policy,
            seeds,
            arguments.workers,
            side_by_side=candidate.side_by_side,
            max_steps=arguments.steps,
            progress=f"{candidate.name}, real",
        )
        dream = score_in_dream(
            model,
            candidate.act(arguments.episodes),
            episodes=arguments.episodes,
            seed=arguments.seed,
            max_episode_steps=arguments.steps,
            temperature=arguments.temperature,
            rows_at_once=arguments.episodes,
            progress=f"{candidate.name}, dream",
        )
        trained = candidate.side_by_side > 0
        report[candidate.name] = {"trained": trained, "real": _summary(real), "dream": _summary(dream)}
    summary = summarise(report)
    _print(report, summary)
    if arguments.picture:
        draw(report, summary, model.spec.id, arguments.picture)
    if arguments.json:
        arguments.json.write_text(json.dumps({"policies": report, **summary}, indent=2) + "\n")


def summarise(report: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What `compare` says of all policies, and under "trained" of those that learned, if they are three or more."""
    summary: dict[str, Any] = _compared(list(report.values()))
    trained = [part for part in report.values() if part["trained"]]
    return {**summary, "trained": _compared(trained)} if len(trained) >= 3 else summary


def _compared(parts: Sequence[dict[str, Any]]) -> dict[str, float]:
    return compare([part["real"]["mean"] for part in parts], [part["dream"]["mean"] for part in parts])


def policies(model: WorldModel, folder: Path, others: Sequence[Path], dtype: torch.dtype, seed: int) -> list[Candidate]:
    """The blind ones, the model's own if it has one, and those in the folders `others`."""
    space = model.spec.gym_action_space()
    single = constants(space)[:MOST_CONSTANTS]
    blind: list[tuple[str, Callable[[], Policy]]] = [
        ("random", partial(UniformRandom, space)),
        ("sticky random", partial(StickyRandom, space)),
        *((_named(candidate), candidate.make_policy) for candidate in single),
        *((_named(candidate), candidate.make_policy) for candidate in alternations(space, HOLD_STEPS)),
    ]
    found = [Candidate(name, make, partial(each_row, make, seed)) for name, make in blind]
    if (folder / "policy").is_dir():
        found.append(_trained("the model's policy", folder, folder / "policy", dtype, seed))
    return found + [_trained("/".join(policy.parts[-2:]), folder, policy, dtype, seed) for policy in others]


def _trained(name: str, folder: Path, policy: Path, dtype: torch.dtype, seed: int) -> Candidate:
    greedy = is_greedy(policy)
    real = partial(load_dream_trained, folder, policy, greedy=greedy, dtype=dtype)
    network = load_policy(policy)
    return Candidate(name, real, lambda rows: act_in_dream(network, seed, greedy), SIDE_BY_SIDE)


def each_row(make_policy: Callable[[], Policy], seed: int, rows: int) -> Act:
    """A policy that does not look, for each of `rows` rows that begin at once; seeded as in the real env."""
    each = [make_policy() for _ in range(rows)]
    for row, policy in enumerate(each):
        policy.reset(seed + row)
    unseen = np.zeros((1, 1, 1), np.uint8)
    return lambda observations: np.stack([np.asarray(policy(unseen)) for policy in each])


def compare(real: Sequence[float], dream: Sequence[float]) -> dict[str, float]:
    """correlation (Pearson's), rank_correlation (Spearman's, ties by their mean rank) and regret: best real mean minus
    that of the dream's best.
    """
    favourite = int(np.argmax(dream))
    return {
        "correlation": float(np.corrcoef(real, dream)[0, 1]),
        "rank_correlation": float(np.corrcoef(_ranks(real), _ranks(dream))[0, 1]),
        "regret": float(max(real) - real[favourite]),
    }


def draw(report: dict[str, dict[str, Any]], summary: dict[str, Any], env_id: str, path: Path) -> None:
    """Dream against reality, a point with both intervals for each policy. Raises UserError without matplotlib."""
    check_matplotlib()
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    trained = [name for name, part in report.items() if part["trained"]]
    colours = dict(zip(trained, colormaps["turbo"](np.linspace(0.05, 0.95, len(trained))), strict=True))
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for name, part in report.items():
        x, y = part["dream"], part["real"]
        spread = [[[end["mean"] - end["ci95"][0]], [end["ci95"][1] - end["mean"]]] for end in (x, y)]
        colour = colours.get(name, "#b0b0b0")
        label = name if part["trained"] else None
        axes.errorbar(
            x["mean"],
            y["mean"],
            xerr=spread[0],
            yerr=spread[1],
            fmt="o",
            markersize=4,
            linewidth=0.8,
            color=colour,
            label=label,
        )
    axes.legend(
        fontsize=6, title="trained in dreams; grey: blind", title_fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    axes.axline((0, 0), slope=1, color="#8a8a8a", linewidth=0.8, linestyle="--")
    axes.set(xlabel="mean return in the dream", ylabel="mean return in the real env")
    axes.set_title(f"{env_id}: Pearson {summary['correlation']:.2f}, Spearman {summary['rank_correlation']:.2f}")
    figure.savefig(path, dpi=150)


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    return ((array[:, None] > array[None]).sum(1) + (array[:, None] >= array[None]).sum(1) - 1) / 2


def _named(candidate: Sequenced) -> str:
    actions = "/".join(str(np.asarray(action).tolist()) for action in candidate.actions)
    return f"always {actions}" if len(candidate.actions) == 1 else f"{actions}, {candidate.hold_steps} steps each"


def _summary(score: Score) -> dict[str, Any]:
    return {"mean": score.mean, "ci95": list(score.ci95), "episodes": len(score.returns)}


def _print(report: dict[str, dict[str, Any]], summary: dict[str, Any]) -> None:
    print(f"{'policy':28}{'real':>8}  {'interval':16}{'dream':>8}  interval")
    for name, part in sorted(report.items(), key=lambda item: -item[1]["real"]["mean"]):
        cells = [f"{part[w]['mean']:8.1f}  {'{:.0f} to {:.0f}'.format(*part[w]['ci95']):16}" for w in ("real", "dream")]
        print(f"{name:28}{cells[0]}{cells[1]}")
    print(
        f"correlation {summary['correlation']:.2f}, of ranks {summary['rank_correlation']:.2f}, "
        f"regret {summary['regret']:.1f}"
    )
    if "trained" in summary:
        of = summary["trained"]
        print(
            f"of the trained alone: correlation {of['correlation']:.2f}, of ranks {of['rank_correlation']:.2f}, "
            f"regret {of['regret']:.1f}"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a world model folder, a run folder, or a released model's name")
    parser.add_argument("--policy", type=Path, action="append", default=[], help="another policy's folder; repeatable")
    parser.add_argument("--steps", type=int, default=100, help="of an episode, at most (default: 100)")
    parser.add_argument("--episodes", type=int, default=64, help="of each policy, real and dreamt (default: 64)")
    parser.add_argument("--temperature", type=float, help="of the dreams (default: the model's own)")
    parser.add_argument("--seed", type=int, default=400_000, help="first seed (default: 400000)")
    parser.add_argument("--workers", type=int, default=2, help="processes that play the real env (default: 2)")
    parser.add_argument("--json", type=Path, help="file for the report")
    parser.add_argument("--picture", type=Path, help="PNG with dream against reality (needs matplotlib)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
