"""The verdict of a run or a model: real returns of its policy and of every baseline, and the dream's own estimate."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from worldsim import envs
from worldsim.agents.policy_io import VALUE_WEIGHTS, load_policy
from worldsim.data.store import EpisodeStore
from worldsim.device import choose_device, choose_precision
from worldsim.errors import UserError
from worldsim.evaluation.blind import score_baselines
from worldsim.evaluation.dreamt_return import Act, score_in_dream
from worldsim.evaluation.pictures import CAPTIONS, write_pictures
from worldsim.evaluation.returns import MakeBatchPolicy, score_policy
from worldsim.evaluation.seeds import check_disjoint, fresh_seeds
from worldsim.evaluation.verdict import FILE, Verdict, median_seed, print_verdict
from worldsim.evaluation.world import measure_world
from worldsim.model_folder import episodes_beside, find_model, load_model
from worldsim.workflow.checks import check_seeds
from worldsim.workflow.config import EvaluateConfig, RunConfig
from worldsim.workflow.folders import round_folders
from worldsim.workflow.machine import Machine
from worldsim.workflow.policies import SIDE_BY_SIDE, act_in_dream, is_greedy, load_dream_trained, thinking_agent
from worldsim.workflow.reality import agent_episode, env_config, fresh_store
from worldsim.workflow.report import report

PICTURES = (
    "grid.png",
    "real_beside_dream.mp4",
    "several_dreams.mp4",
    "temperatures.mp4",
    "long_dream.mp4",
    "agent_real.mp4",
    CAPTIONS,
)
TUNING_OFFSET = 500_000  # tuning seeds of the blind baseline lie this far below (or above) the first evaluation seed


def evaluate_run(
    config: RunConfig, run: Path, machine: Machine, store: EpisodeStore, seconds: Callable[[], Mapping[str, float]]
) -> dict[str, Any]:
    """Write RUN/verdict.json, RUN/videos and RUN/report.html for the policy of the last round; returns the verdict.

    What is there already of the same weights and settings is kept. `seconds()` is the time of the stages so far.
    """
    folder = round_folders(run, config.rounds - 1).world_model
    settings = config.evaluate
    judged = {"settings": asdict(settings), "weights": _fingerprint(folder)}
    verdict = _earlier(run, judged)
    if verdict is None:
        for name in PICTURES:
            (run / "videos" / name).unlink(missing_ok=True)  # of other weights or settings
        scored = _judge(folder, settings, machine, store, seconds, {"judged": judged})
        scored.write(run)
        verdict = scored.to_dict()
    print_verdict(verdict)
    if any(not (run / "videos" / name).exists() for name in PICTURES):
        model = load_model(folder, device=machine.device, dtype=machine.dtype)
        write_pictures(
            model,
            run / "videos",
            store=store,
            think=thinking_agent(folder / "policy", model, settings.seed),
            episode=agent_episode(folder, median_seed(verdict), machine.dtype),
        )
    report(run, folder, run)
    return verdict


def evaluate_model(name_or_folder: str | Path, out: Path, *, episodes: int, seed: int) -> dict[str, Any]:
    """Score the policy that lies in a model's folder, and the baselines, in the real env; writes OUT/verdict.json.

    Of a run folder the newest model is taken, and its episodes serve to measure the world model too. Without any, the
    policy plays some for the baseline that is shown another episode's frames.
    """
    if episodes < 1:
        raise UserError(f"episodes={episodes}: expected at least 1")
    check_seeds("seed", seed, episodes)
    folder = model_with_policy(name_or_folder)
    episodes_folder = episodes_beside(name_or_folder, folder)
    store = None if episodes_folder is None else EpisodeStore.open(episodes_folder)
    device = choose_device("auto")
    machine = Machine(device, choose_precision("auto", device))
    settings = EvaluateConfig(
        episodes=episodes, seed=seed, dream_episodes=episodes, greedy=is_greedy(folder / "policy")
    )
    with tempfile.TemporaryDirectory() as temporary:
        shown = fresh_store(folder, Path(temporary) / "episodes", machine.dtype) if store is None else store
        verdict = _judge(folder, settings, machine, store, dict, {}, shown)
    verdict.write(out)
    print_verdict(verdict)
    return verdict.to_dict()


def model_with_policy(name_or_folder: str | Path) -> Path:
    """The world model folder of a released model, a model folder, or a run folder (its last round)."""
    folder = find_model(name_or_folder)
    if not (folder / "policy").is_dir():
        raise UserError(
            f"{folder} holds no policy: train one with `worldsim run`; where its episodes are recordings, without "
            "an env, there is none to judge, and --world judges the dream"
        )
    return folder


def _judge(
    folder: Path,
    settings: EvaluateConfig,
    machine: Machine,
    store: EpisodeStore | None,
    seconds: Callable[[], Mapping[str, float]],
    notes: Mapping[str, Any],
    shown: EpisodeStore | None = None,
) -> Verdict:
    make_agent = partial(load_dream_trained, folder, folder / "policy", greedy=settings.greedy, dtype=machine.dtype)
    act = act_in_dream(load_policy(folder / "policy"), seed=settings.seed, greedy=settings.greedy)
    return judge(folder, make_agent, act, settings, machine, store, seconds, notes, shown)


def judge(
    folder: Path,
    make_agent: MakeBatchPolicy,
    act: Act,
    settings: EvaluateConfig,
    machine: Machine,
    store: EpisodeStore | None,
    seconds: Callable[[], Mapping[str, float]],
    notes: Mapping[str, Any],
    shown: EpisodeStore | None = None,
) -> Verdict:
    """The verdict on any agent of the world model in `folder`: on real frames (`make_agent`), and in its dream (`act`).

    make_agent: makes its `BatchPolicy`, in worker processes. act: takes features (B, F), gives the actions of all rows.
    store: the model's own episodes, whose seeds are not played, and on which it is measured. shown: held-out episodes,
    whose frames the agent is shown in place of its own for a baseline; by default those of the store. What there are no
    episodes for is left out.
    """
    model = load_model(folder, device=machine.device, dtype=machine.dtype)
    make_env = partial(envs.make, env_config(model.spec, folder))
    used = [] if store is None else [entry.seed for entry in store.entries]
    below = settings.seed - TUNING_OFFSET
    tuning_from = below if below >= 0 else settings.seed + TUNING_OFFSET
    tuning = fresh_seeds(tuning_from, settings.blind_tuning_episodes, used)
    seeds = fresh_seeds(settings.seed, settings.episodes, [*used, *tuning])
    check_disjoint(data=_unique(used), blind_tuning=tuning, evaluation=seeds)

    shown = store if shown is None else shown
    agent = score_policy(
        make_env,
        make_agent,
        seeds,
        settings.workers,
        side_by_side=SIDE_BY_SIDE,
        progress="agent in the real env",
    )
    baselines = score_baselines(
        make_env,
        model.spec.gym_action_space(),
        seeds,
        tuning,
        settings.workers,
        make_agent=make_agent,
        side_by_side=SIDE_BY_SIDE,
        store_folder=None if shown is None else shown.folder,
    )
    dream = score_in_dream(
        model, act, episodes=settings.dream_episodes, seed=settings.seed, progress="agent in the dream"
    )
    world = {} if store is None else measure_world(model, store)
    training = model.training
    return Verdict(
        env_id=model.spec.id,
        agent=agent,
        baselines=baselines,
        dream=dream,
        action_shuffle_ratio=world.get("action_shuffle_ratio", training.get("action_shuffle_ratio")),
        real_steps=int(training.get("real steps", 0)),
        real_tics=int(training.get("real tics", 0)),
        seconds=dict(seconds()),
        world=world,
        notes=notes,
    )


def _earlier(run: Path, judged: Mapping[str, Any]) -> dict[str, Any] | None:
    """The verdict in RUN, if it is of the same weights and settings."""
    try:
        verdict: dict[str, Any] = json.loads((run / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return verdict if verdict.get("judged") == json.loads(json.dumps(judged)) else None


def _fingerprint(folder: Path) -> str:
    """16 hex digits that change with any weight of the world model or the policy; the value network plays no part."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*.safetensors") if path.name != VALUE_WEIGHTS):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _unique(seeds: Iterable[int]) -> list[int]:
    return sorted(set(seeds))
