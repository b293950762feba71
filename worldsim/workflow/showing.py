"""Dreams and comparisons to look at."""

from __future__ import annotations

import math
from pathlib import Path

from worldsim.agents.policy_io import load_policy
from worldsim.data.store import EpisodeStore
from worldsim.device import choose_device, choose_precision
from worldsim.errors import UserError
from worldsim.evaluation.pictures import write_long_dream, write_pictures
from worldsim.model_folder import find_model, load_model
from worldsim.workflow.policies import act_in_dream
from worldsim.world_model import WorldModel

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov")


def dream_video(
    name_or_folder: str, out: Path, *, steps: int, seed: int, temperature: float | None, random_actions: bool
) -> None:
    """A pure dream of `steps` frames as mp4, played by the model's policy if it has one."""
    if steps < 1:
        raise UserError(f"steps={steps}: expected at least 1")
    if seed < 0:
        raise UserError(f"seed={seed}: expected at least 0")
    if temperature is not None and not 0 <= temperature < math.inf:
        raise UserError(f"temperature={temperature}: expected 0 or more")
    if out.suffix.lower() not in VIDEO_SUFFIXES:
        raise UserError(f"--out {out}: expected a video file that ends in {' or '.join(VIDEO_SUFFIXES)}")
    folder = model_folder(name_or_folder)
    model = _load(folder)
    policy = folder / "policy"
    act = None if random_actions or not policy.is_dir() else act_in_dream(load_policy(policy), seed)
    write_long_dream(model, out, act=act, steps=steps, temperature=temperature, seed=seed)


def render_run(run: Path, out: Path | None) -> Path:
    """Videos and pictures of a run's newest world model beside its held-out episodes; returns their folder."""
    folder = model_folder(run)
    policy = folder / "policy"
    act = act_in_dream(load_policy(policy), seed=0) if policy.is_dir() else None
    target = out or run / "videos"
    write_pictures(_load(folder), EpisodeStore.open(run / "episodes"), target, act=act)
    return target


def model_folder(name_or_folder: str | Path) -> Path:
    """The folder of a released model, a model folder itself, or the newest model of a run folder."""
    rounds = sorted(Path(name_or_folder).glob("round-*/world_model/config.json"))
    return rounds[-1].parent if rounds else find_model(name_or_folder)


def _load(folder: Path) -> WorldModel:
    device = choose_device("auto")
    return load_model(folder, device=device, dtype=choose_precision("auto", device))
