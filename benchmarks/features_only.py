"""A world model whose agents read features where its own agent reads frames: for learners that have no convolutions."""

from __future__ import annotations

from pathlib import Path

from worldsim.model_folder import load_model, save_model


def features_only(folder: Path, target: Path) -> Path:
    """The folder, or where its agent reads frames `target`, with the same world model but for that."""
    model = load_model(folder)
    if not model.stack_ages:
        return folder
    model.stack_ages = ()
    save_model(model, target)
    return target
