r"""Agents from one world model at several temperatures: what the dream promises, what reality pays, and from when on
more training hurts.

    python -m benchmarks.temperatures take_cover --out temperatures
    python -m benchmarks.temperatures runs/mdn --config take_cover_mdn_rnn --temperature 0.1 --temperature 1.15 --out O

The table of Ha & Schmidhuber (2018), section 4.4, for any model: in a cold dream nothing hits, and agents learn to live
in that; a hot one is harder than reality. For every temperature some agents (`--agents`) learn in the model's dream at
that temperature, from its own start contexts, with the config's settings; on features where these name no stack_ages,
whatever the model's own agent reads. After every `--judge-every` updates each plays full-length dreams at its
temperature and real episodes, always the same seeds, which no verdict uses. OUT gets an agent's folder each,
temperatures.json, table.md, and with matplotlib temperatures.png and curves.png, the returns against the updates. Run
again, it goes on.

Whether a dream that is cut where the model is unsure, or costs there, is exploited later (an OUT for each):

    python -m benchmarks.temperatures take_cover --temperature 1 --judge-every 20 --uncertainty-quantile 0.99 --out O
    python -m benchmarks.temperatures take_cover --temperature 1 --judge-every 20 --uncertainty-quantile 0.99 \
        --uncertainty-penalty 1 --out P
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.features_only import features_only
from worldsim import envs
from worldsim.agents.learners import build_learner
from worldsim.agents.networks import PolicyNetwork
from worldsim.agents.policy_io import save_policy
from worldsim.config import load_config, resolve_config_path
from worldsim.data.files import write_json
from worldsim.dream import DreamVectorEnv
from worldsim.errors import UserError
from worldsim.evaluation.dreamt_return import score_in_dream
from worldsim.evaluation.returns import score_policy
from worldsim.evaluation.statistics import Score, bootstrap_interval
from worldsim.evaluation.world_plots import check_matplotlib
from worldsim.model_folder import find_model
from worldsim.training import fit
from worldsim.workflow.config import RunConfig
from worldsim.workflow.machine import choose_machine
from worldsim.workflow.policies import SIDE_BY_SIDE, act_in_dream, load_dream_trained
from worldsim.workflow.reality import env_config
from worldsim.workflow.report import read_json
from worldsim.workflow.showing import load_here
from worldsim.world_model import WorldModel

TEMPERATURES = (0.1, 0.5, 1.0, 1.15, 1.3, 1.75, 2.5)
FIRST_SEED = 2_000_000


@dataclass(frozen=True)
class Judged:
    """An agent after some updates: its returns in the dream at its temperature and in the real env."""

    temperature: float
    agent: int
    updates: int
    dream: Sequence[float]
    real: Sequence[float]


def main() -> None:
    """Train and judge what is not there yet, then write table and plots."""
    arguments = _arguments()
    overrides = [*arguments.overrides, f"threads={arguments.threads}"]
    config = load_config(RunConfig, resolve_config_path(arguments.config), overrides)
    choose_machine(config)
    folder = find_model(arguments.model)
    if not config.dream.stack_ages:
        folder = features_only(folder, arguments.out / "world_model")
    for temperature in arguments.temperature or TEMPERATURES:
        for agent in range(arguments.agents):
            train(config, folder, temperature, agent, arguments)
    report(arguments.out, str(arguments.model))


def train(config: RunConfig, folder: Path, temperature: float, agent: int, arguments: argparse.Namespace) -> None:
    """One agent, judged on its way; what an earlier call has judged is not judged again."""
    out = arguments.out / f"temperature-{temperature:g}-agent-{agent}"
    every = arguments.judge_every or arguments.updates
    stages = sorted({*range(every, arguments.updates, every), arguments.updates})
    todo = [updates for updates in stages if not (out / f"judged-{updates}.json").exists()]
    if not todo:
        return
    model = load_here(folder)
    rows = DreamVectorEnv(
        model,
        config.dream.num_envs,
        observation=model.agent_observation,
        max_episode_steps=config.dream.max_episode_steps,
        temperature=temperature,
        uncertainty_quantile=arguments.uncertainty_quantile,
        uncertainty_penalty=arguments.uncertainty_penalty,
    )
    learner = build_learner(config.agent, rows, seed=agent, device=model.device, dtype=model.dtype)
    greedy = config.evaluate.greedy or config.agent.kind == "cma_es"
    for updates in todo:
        name = f"temperature {temperature:g}, agent {agent}"
        fit(learner, steps=updates, folder=out, name=name, log_every=1, seed=agent)
        policy = out / f"policy-{updates}"
        save_policy(learner.policy, policy, notes={"env": model.spec.id, "greedy": greedy}, value=learner.value)
        dream, real = judge(model, folder, policy, learner.policy, temperature, greedy, arguments)
        write_json(out / f"judged-{updates}.json", {"dream": dream.to_dict(), "real": real.to_dict()})


def judge(
    model: WorldModel,
    folder: Path,
    policy: Path,
    network: PolicyNetwork,
    temperature: float,
    greedy: bool,
    arguments: argparse.Namespace,
) -> tuple[Score, Score]:
    """Scores in full-length dreams and in the real env."""
    seeds = range(arguments.seed, arguments.seed + arguments.episodes)
    dream = score_in_dream(
        model,
        act_in_dream(network, arguments.seed, greedy),
        episodes=len(seeds),
        seed=arguments.seed,
        temperature=temperature,
    )
    real = score_policy(
        partial(envs.make, env_config(model.spec, folder)),
        partial(load_dream_trained, folder, policy, greedy=greedy, dtype=model.dtype),
        seeds,
        arguments.workers,
        side_by_side=SIDE_BY_SIDE,
    )
    return dream, real


def report(out: Path, model: str) -> None:
    """Table, figures and plots of all agents in `out`."""
    judged = read(out)
    text = table(judged)
    print(text)
    (out / "table.md").write_text(text + "\n")
    write_json(out / "temperatures.json", {"model": model, "temperatures": summary(judged)})
    try:
        check_matplotlib()
    except UserError as error:
        print(f"no plots: {error}")
        return
    draw(judged, out / "temperatures.png")
    draw_curves(judged, out / "curves.png")


def read(out: Path) -> list[Judged]:
    """All that was judged in a folder, by temperature, agent and updates."""
    judged = []
    for path in out.glob("temperature-*-agent-*/judged-*.json"):
        _, temperature, _, agent = path.parent.name.split("-")
        scores = read_json(path)
        updates = int(path.stem.partition("-")[2])
        returns = (scores[where]["returns"] for where in ("dream", "real"))
        judged.append(Judged(float(temperature), int(agent), updates, *returns))
    return sorted(judged, key=lambda one: (one.temperature, one.agent, one.updates))


def summary(judged: Sequence[Judged]) -> dict[str, Any]:
    """For each temperature what its agents have after their last update, and where the real return was best.

    dream, real: mean over agents, of each agent, and the interval of the mean over all their episodes. best_updates:
    after how many updates the mean real return over agents was highest, and that return.
    """
    found: dict[str, Any] = {}
    for temperature in sorted({one.temperature for one in judged}):
        here = [one for one in judged if one.temperature == temperature]
        stages = sorted({one.updates for one in here})
        curve = {updates: _mean([one for one in here if one.updates == updates], "real") for updates in stages}
        last = [one for one in here if one.updates == stages[-1]]
        best = max(curve, key=lambda updates: curve[updates])
        found[f"{temperature:g}"] = {
            "agents": len(last),
            "updates": stages[-1],
            **{where: _part(last, where) for where in ("dream", "real")},
            "best_updates": best,
            "best_real": curve[best],
        }
    return found


def _mean(judged: Sequence[Judged], where: str) -> float:
    return float(np.mean([np.mean(getattr(one, where)) for one in judged]))


def _part(judged: Sequence[Judged], where: str) -> dict[str, Any]:
    episodes = np.concatenate([np.asarray(getattr(one, where), np.float64) for one in judged])
    each = [float(np.mean(getattr(one, where))) for one in judged]
    return {"mean": float(np.mean(each)), "agents": each, "ci95": list(bootstrap_interval(episodes))}


def table(judged: Sequence[Judged]) -> str:
    """Markdown, a row for each temperature."""
    lines = [
        "| temperature | dream | real | 95 % interval | each agent, real | best after updates |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for temperature, row in summary(judged).items():
        low, high = row["real"]["ci95"]
        agents = ", ".join(f"{mean:.0f}" for mean in row["real"]["agents"])
        best = f"{row['best_updates']} ({row['best_real']:.0f})"
        cells = [f"{row['dream']['mean']:.0f}", f"**{row['real']['mean']:.0f}**", f"{low:.0f} to {high:.0f}"]
        lines.append(f"| {temperature} | {' | '.join([*cells, agents, best])} |")
    return "\n".join(lines)


def draw(judged: Sequence[Judged], path: Path) -> None:
    """Dream and real return against the temperature: means over agents, and each agent."""
    from matplotlib.figure import Figure

    rows: Mapping[str, Any] = summary(judged)
    temperatures = [float(temperature) for temperature in rows]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for where, colour in (("dream", "#7a5195"), ("real", "#ef5675")):
        axes.plot(temperatures, [row[where]["mean"] for row in rows.values()], color=colour, label=where)
        for temperature, row in zip(temperatures, rows.values(), strict=True):
            each = row[where]["agents"]
            axes.plot([temperature] * len(each), each, "o", color=colour, markersize=3, alpha=0.6)
    axes.set(xlabel="temperature of the dream that agents learned in", ylabel="mean return")
    axes.legend()
    figure.savefig(path, dpi=150)


def draw_curves(judged: Sequence[Judged], path: Path) -> None:
    """Dream and real return against the updates, means over agents, a panel for each temperature."""
    from matplotlib.figure import Figure

    temperatures = sorted({one.temperature for one in judged})
    figure = Figure(figsize=(3 * len(temperatures), 3), layout="constrained")
    panels = figure.subplots(1, len(temperatures), sharey=True, squeeze=False)[0]
    for axes, temperature in zip(panels, temperatures, strict=True):
        here = [one for one in judged if one.temperature == temperature]
        stages = sorted({one.updates for one in here})
        for where, colour in (("dream", "#7a5195"), ("real", "#ef5675")):
            means = [_mean([one for one in here if one.updates == updates], where) for updates in stages]
            axes.plot(stages, means, "o-", color=colour, markersize=3, label=where)
        axes.set(title=f"temperature {temperature:g}", xlabel="updates")
    panels[0].set_ylabel("mean return")
    panels[0].legend()
    figure.savefig(path, dpi=150)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a world model folder, a run folder, or a released model's name")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the config to change")
    parser.add_argument("--config", default="take_cover", help="of the agent and its dreams (default: take_cover)")
    parser.add_argument("--out", type=Path, required=True, help="folder for agents, table and plots")
    parser.add_argument("--temperature", type=float, action="append", help=f"repeatable (default: {TEMPERATURES})")
    parser.add_argument("--agents", type=int, default=3, help="at each temperature (default: 3)")
    parser.add_argument("--updates", type=int, default=60, help="of each agent (default: 60)")
    parser.add_argument("--judge-every", type=int, help="updates between two judgements (default: at the end alone)")
    parser.add_argument("--uncertainty-quantile", type=float, help="cut dreams that are less sure (default: none are)")
    parser.add_argument("--uncertainty-penalty", type=float, help="take that much off the reward there, uncut")
    parser.add_argument("--episodes", type=int, default=64, help="dreamt and real, of each judgement (default: 64)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help=f"first one (default: {FIRST_SEED})")
    parser.add_argument("--workers", type=int, default=1, help="processes that play the real env (default: 1)")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: all cores (default: 0)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
