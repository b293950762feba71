"""Where a run keeps what its rounds make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RoundFolders:
    """Where one round of a run keeps its things."""

    tokenizer: Path
    dynamics: Path
    endings: Path
    plans: Path
    distillation: Path
    world_model: Path
    agent: Path
    policy: Path


def round_folders(run: Path, round_number: int) -> RoundFolders:
    """The folders of a round; each stage makes its own."""
    base = run / f"round-{round_number:02d}"
    return RoundFolders(
        tokenizer=base / "tokenizer",
        dynamics=base / "dynamics",
        endings=base / "endings",
        plans=base / "plans",
        distillation=base / "distillation",
        world_model=base / "world_model",
        agent=base / "agent",
        policy=base / "world_model" / "policy",
    )
