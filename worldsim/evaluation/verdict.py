"""The verdict of a run: what the agent is worth in reality, beside everything it must be compared with."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import worldsim
from worldsim.data.files import explained, write_json
from worldsim.evaluation.statistics import Score

FILE = "verdict.json"


def versions() -> dict[str, str]:
    """Of worldsim and of what its numbers depend on."""
    others = {name: version(name) for name in ("torch", "gymnasium", "numpy")}
    return {"worldsim": worldsim.__version__, **others, "python": platform.python_version()}


@dataclass(frozen=True)
class Verdict:
    """Everything that verdict.json says; None where a thing was not measured.

    agent: the policy in the real env. baselines: under the same wrappers, with "random" among them. dream: the same
    policy in full-length dreams. real_steps, real_tics: the data it all cost, in agent steps and steps of the
    underlying env. seconds: per stage. world: measures of the world model on held-out episodes. notes: anything else,
    as JSON types.
    """

    env_id: str
    agent: Score
    baselines: Mapping[str, Score]
    dream: Score | None
    action_shuffle_ratio: float | None
    real_steps: int
    real_tics: int
    seconds: Mapping[str, float]
    world: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=versions)

    def __post_init__(self) -> None:
        if "random" not in self.baselines:
            raise ValueError(f"a verdict needs the random baseline, got {', '.join(self.baselines) or 'none'}")

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "env_id": self.env_id,
            "agent": self.agent.to_dict(),
            "baselines": {name: score.to_dict() for name, score in self.baselines.items()},
            "dream": None if self.dream is None else self.dream.to_dict(),
            "action_shuffle_ratio": self.action_shuffle_ratio,
            "world": dict(self.world),
            "real_steps": self.real_steps,
            "real_tics": self.real_tics,
            "seconds": {stage: round(float(seconds), 3) for stage, seconds in self.seconds.items()},
            "versions": dict(self.versions),
            **self.notes,
        }

    def write(self, folder: Path) -> Path:
        """Writes folder/verdict.json, all of it or nothing, and returns its path."""
        with explained("write the verdict", folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / FILE, self.to_dict())
        return folder / FILE


def median_seed(verdict: Mapping[str, Any]) -> int:
    """The seed of the agent's episode with the (lower) median return, from what was read from verdict.json."""
    returns, seeds = verdict["agent"]["returns"], verdict["agent"]["seeds"]
    return Score(returns, seeds, lengths=[0] * len(returns)).median_seed


def print_verdict(verdict: Verdict | Mapping[str, Any], console: Any = None) -> None:
    """Shows a verdict, or what was read from verdict.json, as a table. console: a rich Console."""
    from rich.console import Console
    from rich.table import Table

    content = verdict.to_dict() if isinstance(verdict, Verdict) else verdict
    console = console or Console()
    agent = content["agent"]
    table = Table(title=f"{content['env_id']}: mean return with its 95 % interval")
    table.add_column("policy")
    for heading in ("mean", "interval", "episodes"):
        table.add_column(heading, justify="right")
    table.add_column("agent is above")
    table.add_row("[bold]agent, real env", *_numbers(agent), "", end_section=True)
    for name, score in content["baselines"].items():
        table.add_row(name.replace("_", " ") + sequence(score), *_numbers(score), above(agent, score))
    if content["dream"] is not None:
        table.add_section()
        table.add_row("agent, in its dream", *_numbers(content["dream"]), "")
    console.print(table)
    facts = [f"trained on {content['real_steps']:,} real steps ({content['real_tics']:,} tics)"]
    if content["action_shuffle_ratio"] is not None:
        facts.append(f"action-shuffle ratio {content['action_shuffle_ratio']:.2f}")
    if content["seconds"]:
        facts.append(f"{sum(content['seconds'].values()) / 60:.1f} minutes")
    console.print("; ".join(facts))


def _numbers(score: Mapping[str, Any]) -> Sequence[str]:
    low, high = score["ci95"]
    return f"{score['mean']:.1f}", f"{low:.1f} to {high:.1f}", str(score["episodes"])


def sequence(score: Mapping[str, Any]) -> str:
    """The actions of an open-loop baseline."""
    if "actions" not in score:
        return ""
    hold = f" x {score['hold_steps']} steps" if len(score["actions"]) > 1 else ""
    return f" ({', '.join(str(action) for action in score['actions'])}{hold})"


def above(agent: Mapping[str, Any], baseline: Mapping[str, Any]) -> str:
    """How far the agent's interval lies above a baseline."""
    low = agent["ci95"][0]
    if low > baseline["ci95"][1]:
        return "its interval"
    return "its mean" if low > baseline["mean"] else "no"
