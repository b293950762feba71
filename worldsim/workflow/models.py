"""What released models there are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldsim.model_folder import PRETRAINED, released_models


@dataclass(frozen=True)
class Release:
    """A released model. scores: what its card says of returns, by whose they are."""

    name: str
    env_id: str
    megabytes: float
    licence: str
    scores: dict[str, str]


def releases(pretrained: Path = PRETRAINED) -> list[Release]:
    """The models that ship with the package, by name."""
    return [_release(pretrained / name) for name in released_models(pretrained)]


def print_releases(console: Any = None) -> None:
    """Shows them as a table. console: a rich Console."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Released world models", box=None, padding=(0, 1, 0, 0), pad_edge=False)  # fits 80 columns
    for heading in ("model", "environment", "MB", "agent", "dream", "random", "blind", "licence"):
        table.add_column(heading, no_wrap=True)
    for release in releases():
        # Whoever wants all the intervals finds them in the model's card.
        others = (release.scores[name].partition(" ")[0] for name in ("dream", "random", "best blind"))
        size = f"{release.megabytes:.0f}"
        table.add_row(f"[bold]{release.name}", release.env_id, size, release.scores["policy"], *others, release.licence)
    console = console or Console()
    console.print(table)
    console.print(
        "Mean returns: of the agent in the real env with its 95 % interval, what its dream promises, "
        "and in the real env of random play and of the best sequence that does not look."
    )
    console.print('gymnasium.make("worldsim:worldsim/Dream-v0", model=MODEL), worldsim render MODEL', markup=False)


def _release(folder: Path) -> Release:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    training = config["training"]
    names = {"policy": "policy, real env", "dream": "policy, its dream"}
    names |= {name: f"{name}, real env" for name in ("random", "best blind")}
    scores = {short: str(training.get(f"return of {name}", "")) for short, name in names.items()}
    return Release(
        name=folder.name,
        env_id=config["env"]["id"],
        megabytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6,
        licence=config.get("licence", "not stated"),
        scores={name: text.replace(", 100 episodes", "") for name, text in scores.items()},
    )
