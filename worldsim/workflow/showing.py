"""Dreams and comparisons to look at."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from worldsim.data.store import EpisodeStore
from worldsim.device import choose_device, choose_precision
from worldsim.dream_starts import check_temperature
from worldsim.envs.errors import UnusableEnvironmentError
from worldsim.errors import UserError
from worldsim.evaluation.pictures import write_pictures
from worldsim.evaluation.verdict import FILE, median_seed
from worldsim.evaluation.videos import long_dream
from worldsim.model_folder import episodes_beside, find_model, load_model
from worldsim.rendering import write_video
from worldsim.workflow.policies import thinking_agent
from worldsim.workflow.reality import FRESH_SEED, agent_episode, fresh_store
from worldsim.workflow.report import read_json, report
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
    if temperature is not None:
        check_temperature(temperature)
    if out.suffix.lower() not in VIDEO_SUFFIXES:
        raise UserError(f"--out {out}: expected a video file that ends in {' or '.join(VIDEO_SUFFIXES)}")
    folder = find_model(name_or_folder)
    model = load_here(folder)
    policy = folder / "policy"
    think = None if random_actions or not policy.is_dir() else thinking_agent(policy, model, seed)
    video = long_dream(model, think=think, steps=steps, temperature=temperature, seed=seed)
    write_video(video, out, frames_per_second=model.spec.frames_per_second)


def render(name_or_folder: str, out: Path | None, *, gif: bool, say: Callable[[str], None]) -> Path:
    """OUT/videos and OUT/report.html of a run's newest world model, or of a model; returns the report's path.

    out: by default the run's own folder, or renders/NAME for a model. The episodes of a run are shown where they are
    there; else some are played anew, if the env is installed. `say` hears what cannot be shown without it.
    """
    folder = find_model(name_or_folder)
    run = folder.parent.parent if folder.parent.parent == Path(name_or_folder) else None
    target = out or run or Path("renders") / folder.name
    model = load_here(folder)
    has_policy = (folder / "policy").is_dir()
    episode, missing = None, []
    with tempfile.TemporaryDirectory() as temporary:
        try:
            recorded = episodes_beside(name_or_folder, folder)
            if recorded is not None:
                store = EpisodeStore.open(recorded)
            else:
                store = fresh_store(folder, Path(temporary) / "episodes", model.dtype)
        except UnusableEnvironmentError as error:
            store = None
            missing.append(f"real episodes beside the dream, and the grid ({error})")
        try:
            if has_policy:
                episode = agent_episode(folder, _seed_to_show(run), model.dtype)
        except UnusableEnvironmentError as error:
            missing.append(f"the agent in the real env ({error})")
        if not has_policy:
            missing.append("an agent: the model has no policy, and its dreams are played at random")
        for what in missing:
            say(f"not shown: {what}")
        think = thinking_agent(folder / "policy", model, seed=0) if has_policy else None
        write_pictures(model, target / "videos", store=store, think=think, episode=episode, gif=gif)
    return report(target, folder, run, missing)


def _seed_to_show(run: Path | None) -> int:
    """Of the episode in the middle of the run's verdict; a fresh one without a verdict."""
    try:
        return FRESH_SEED if run is None else median_seed(read_json(run / FILE))
    except FileNotFoundError:
        return FRESH_SEED


def load_here(name_or_folder: Path | str) -> WorldModel:
    """The model on the device, and in the precision, that this machine dreams best with."""
    device = choose_device("auto")
    return load_model(name_or_folder, device=device, dtype=choose_precision("auto", device))
