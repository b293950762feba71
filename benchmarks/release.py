"""Make a release of a run: its newest world model with 8-bit matrices, its policy, its verdict in the model card.

python -m benchmarks.release runs/take_cover take_cover
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from worldsim.errors import UserError
from worldsim.model_folder import PRETRAINED, load_model, save_model
from worldsim.workflow.verdict import model_with_policy

LARGEST_BYTES = 20_000_000


def main() -> None:
    """Read the command line and write the release."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    arguments = parser.parse_args()
    folder = release(arguments.run, arguments.name)
    print(f"{folder}: {size(folder) / 1e6:.1f} MB")


def release(run: Path, name: str, pretrained: Path = PRETRAINED) -> Path:
    """Write `pretrained/name` from the run's newest round; returns the folder."""
    source, target = model_with_policy(run), pretrained / name
    model = load_model(source)
    verdict = json.loads((run / "verdict.json").read_text(encoding="utf-8"))
    threads = json.loads((run / "config.json").read_text(encoding="utf-8"))["threads"]
    model.training.update(_figures(verdict, threads))
    if target.exists():
        shutil.rmtree(target)
    save_model(model, target, small=True)
    shutil.copytree(source / "policy", target / "policy")
    if size(target) > LARGEST_BYTES:
        raise UserError(
            f"{target} has {size(target):,} bytes, a release may have {LARGEST_BYTES:,}: use a smaller model"
        )
    return target


def size(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _figures(verdict: dict[str, Any], threads: int) -> dict[str, str]:
    """threads: that the run was told to use; 0: all there were."""
    scores = {"policy, real env": verdict["agent"], "policy, its dream": verdict["dream"]}
    scores |= {f"{name.replace('_', ' ')}, real env": score for name, score in verdict["baselines"].items()}
    figures = {}
    for name, score in scores.items():
        low, high = score["ci95"]
        figures[f"return of {name}"] = f"{score['mean']:.0f} ({low:.0f} to {high:.0f}, {score['episodes']} episodes)"
    minutes = sum(verdict["seconds"].values()) / 60
    return {**figures, f"minutes for everything, CPU threads: {threads or 'all'}": f"{minutes:.0f}"}


if __name__ == "__main__":
    main()
