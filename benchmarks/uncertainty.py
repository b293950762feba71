"""Which cheap signal tells where a dream goes wrong?

    python -m benchmarks.uncertainty take_cover --episodes runs/take_cover/episodes

Dreams start from held-out moments and follow the recorded actions. At each step several signals are compared with the
error of that step, the mean square between dreamt and real latents: AUROC is the probability that a step whose error
is above the median (or among the worst tenth) of all dreams at that step shows a higher signal than one whose is not.

    movement    how far the sampler moved its estimate of the frame: `infos["uncertainty"]`, costs nothing
    spread      variance over several draws of the same step: costs as many steps more
    round_trip  change of the latents when they are decoded and encoded: costs both
    hazard      the probability of an ending: costs nothing
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.data.store import EpisodeStore
from worldsim.evaluation.statistics import area_under_roc
from worldsim.evaluation.stretches import Stretches, draw_stretches, encode, start_dreams
from worldsim.workflow.showing import load_here
from worldsim.world_model import WorldModel, row_generator

SIGNALS = ("movement", "spread", "round_trip", "hazard")
WORST = {"above_median": 0.5, "worst_tenth": 0.9}


def main() -> None:
    """Dream, compare, print."""
    arguments = _arguments()
    model = load_here(arguments.model)
    stretches = draw_stretches(
        EpisodeStore.open(arguments.episodes),
        arguments.starts,
        horizon=arguments.steps,
        context_frames=min(8, model.dynamics.config.window),
        seed=arguments.seed,
        whole=True,
    )
    groups = [
        list(signals(model, stretches, slice(first, first + 64), arguments.draws))
        for first in range(0, arguments.starts, 64)
    ]
    report = compare(
        [{name: np.concatenate([g[k][name] for g in groups]) for name in groups[0][k]} for k in range(arguments.steps)]
    )
    _print(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def signals(
    model: WorldModel, stretches: Stretches, rows: slice, draws: int
) -> Iterator[dict[str, NDArray[np.float64]]]:
    """For each dreamt step of `rows` the signals and "error", (B,) each."""
    real = encode(model, stretches.future[rows])
    state = start_dreams(model, stretches, rows, seed=rows.start)
    for t in range(stretches.horizon):
        actions = stretches.future_actions[rows, t]
        others = []
        for draw in range(draws):
            branch = state.clone().with_generators(
                [row_generator(1_000_000 * (draw + 1) + row) for row in range(len(actions))]
            )
            others.append(model.step(branch, actions)[1].latents)
        state, step = model.step(state, actions)
        drawn = torch.stack([step.latents, *others])
        again = model.encode(model.decode(step.latents))
        yield {
            "error": _each_row(step.latents - real[:, t]),
            "movement": _numbers(step.uncertainty),
            "spread": _numbers(drawn.float().var(0).mean((-2, -1))),
            "round_trip": _each_row(again - step.latents),
            "hazard": _numbers(step.termination_probability),
        }


def compare(steps: list[dict[str, NDArray[np.float64]]]) -> dict[str, dict[str, list[float]]]:
    """AUROC of each signal at each step, [positives][signal][step]."""
    report: dict[str, dict[str, list[float]]] = {}
    for kind, share in WORST.items():
        report[kind] = {}
        for name in SIGNALS:
            areas = [area_under_roc(step[name], step["error"] > np.quantile(step["error"], share)) for step in steps]
            report[kind][name] = [float("nan") if area is None else area for area in areas]
    return report


def _each_row(difference: Tensor) -> NDArray[np.float64]:
    return _numbers(difference.float().square().mean((-2, -1)))


def _numbers(values: Tensor) -> NDArray[np.float64]:
    return values.double().cpu().numpy()


def _print(report: dict[str, dict[str, list[float]]]) -> None:
    for kind, areas in report.items():
        print(f"AUROC, {kind.replace('_', ' ')}:")
        for name, values in areas.items():
            print(f"  {name:12}mean {np.mean(values):.3f}   by step " + " ".join(f"{value:.2f}" for value in values))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a world model folder or a released model's name")
    parser.add_argument("--episodes", type=Path, required=True, help="folder of episodes, of which the held-out serve")
    parser.add_argument("--starts", type=int, default=256, help="dreams (default: 256)")
    parser.add_argument("--steps", type=int, default=8, help="of each dream (default: 8)")
    parser.add_argument("--draws", type=int, default=3, help="more draws of each step, for the spread (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--json", type=Path, help="file for the report")
    return parser.parse_args()


if __name__ == "__main__":
    main()
