"""The example trainer learns in a real env and runs in a dream unchanged."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import numpy as np

from examples import ppo
from tests.worlds import tiny_world
from worldsim.model_folder import save_model


def test_it_knows_nothing_of_worldsim() -> None:
    imported = set()
    for node in ast.walk(ast.parse(Path(ppo.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert {"gymnasium", "torch"} <= imported
    assert "worldsim" not in imported


def test_it_learns_a_real_env() -> None:
    history = ppo.main(["CartPole-v1", "--time-steps", "12000", "--num-envs", "8"])
    assert history[1] < 40
    assert history[-1] > 80


def test_it_runs_in_a_dream_and_learns_what_is_paid_there(tmp_path: Path) -> None:
    model = tiny_world(max_episode_steps=8)
    model.dynamics.head.termination.bias.data.fill_(-1e4)
    save_model(model, tmp_path)
    kwargs = {"model": str(tmp_path), "observation": "features"}
    command = ["worldsim:worldsim/Dream-v0", "--vectorization", "vector_entry_point", "--kwargs", json.dumps(kwargs)]
    history = ppo.main([*command, "--time-steps", "4096", "--horizon", "16", "--num-envs", "32"])
    assert len(history) == 8
    assert all(math.isfinite(value) for value in history)
    assert np.mean(history[-2:]) > history[0]


def test_single_dreams_side_by_side_serve_as_well(tmp_path: Path) -> None:
    save_model(tiny_world(max_episode_steps=4), tmp_path)
    kwargs = json.dumps({"model": str(tmp_path), "observation": "belief"})
    command = ["worldsim:worldsim/Dream-v0", "--kwargs", kwargs, "--num-envs", "2", "--horizon", "8"]
    assert len(ppo.main([*command, "--time-steps", "32"])) == 2
