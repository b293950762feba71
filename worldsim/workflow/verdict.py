"""The verdict of a run or a model: real returns of its policy and of every baseline, and the dream's own estimate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from worldsim import envs
from worldsim.agents.policy_io import load_policy
from worldsim.config import from_dict
from worldsim.data.store import EpisodeStore
from worldsim.device import choose_device, choose_precision
from worldsim.envs.config import EnvConfig
from worldsim.errors import UserError
from worldsim.evaluation.blind import score_baselines
from worldsim.evaluation.dreamt_return import score_in_dream
from worldsim.evaluation.pictures import write_pictures
from worldsim.evaluation.returns import score_policy
from worldsim.evaluation.seeds import check_disjoint, fresh_seeds
from worldsim.evaluation.verdict import Verdict, print_verdict
from worldsim.evaluation.world import measure_world
from worldsim.model_folder import load_model
from worldsim.rollouts import play_episode
from worldsim.workflow.config import EvaluateConfig, RunConfig
from worldsim.workflow.policies import act_in_dream, load_dream_trained
from worldsim.workflow.showing import model_folder
from worldsim.workflow.stages import Machine, round_folders

TUNING_OFFSET = 500_000  # tuning seeds of the blind baseline lie this far below the first evaluation seed


def evaluate_run(
    config: RunConfig, run: Path, machine: Machine, store: EpisodeStore, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Write RUN/verdict.json and RUN/videos for the policy of the last round; returns the verdict as plain data."""
    folder = round_folders(run, config.rounds - 1).world_model
    settings = config.evaluate
    verdict = _judge(folder, settings, machine, store, seconds)
    verdict.write(run)
    print_verdict(verdict)
    model = load_model(folder, device=machine.device, dtype=machine.dtype)
    agent_frames = _real_episode(folder, machine, settings, verdict.agent.median_seed)
    write_pictures(
        model,
        store,
        run / "videos",
        act=act_in_dream(load_policy(folder / "policy"), seed=settings.seed, greedy=settings.greedy),
        agent_frames=agent_frames,
    )
    return verdict.to_dict()


def evaluate_model(name_or_folder: str | Path, out: Path, *, episodes: int, seed: int) -> dict[str, Any]:
    """Score the policy that lies in a model's folder, and the baselines, in the real env; writes OUT/verdict.json."""
    if episodes < 1:
        raise UserError(f"episodes={episodes}: expected at least 1")
    folder = model_with_policy(name_or_folder)
    device = choose_device("auto")
    machine = Machine(device, choose_precision("auto", device))
    settings = EvaluateConfig(episodes=episodes, seed=seed, dream_episodes=episodes)
    verdict = _judge(folder, settings, machine, None, {})
    verdict.write(out)
    print_verdict(verdict)
    return verdict.to_dict()


def model_with_policy(name_or_folder: str | Path) -> Path:
    """The world model folder of a released model, a model folder, or a run folder (its last round)."""
    folder = model_folder(name_or_folder)
    if not (folder / "policy").is_dir():
        raise UserError(f"{folder} holds no policy: train one with `worldsim run`")
    return folder


def _judge(
    folder: Path, settings: EvaluateConfig, machine: Machine, store: EpisodeStore | None, seconds: Mapping[str, float]
) -> Verdict:
    model = load_model(folder, device=machine.device, dtype=machine.dtype)
    env_config = from_dict(EnvConfig, model.spec.settings, f"{folder}/config.json")
    make_env = partial(envs.make, env_config)
    make_agent = partial(
        load_dream_trained, folder, folder / "policy", greedy=settings.greedy, dtype=machine.dtype
    )
    used = [] if store is None else [entry.seed for entry in store.entries]
    tuning = fresh_seeds(settings.seed - TUNING_OFFSET, settings.blind_tuning_episodes, used)
    seeds = fresh_seeds(settings.seed, settings.episodes, [*used, *tuning])
    check_disjoint(data=_unique(used), blind_tuning=tuning, evaluation=seeds)

    agent = score_policy(make_env, make_agent, seeds, settings.workers, progress="agent in the real env")
    baselines = score_baselines(
        make_env,
        model.spec.gym_action_space(),
        seeds,
        tuning,
        settings.workers,
        make_agent=make_agent if store is not None else None,
        store_folder=None if store is None else store.folder,
    )
    act = act_in_dream(load_policy(folder / "policy"), seed=settings.seed, greedy=settings.greedy)
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
        seconds=dict(seconds),
        world=world,
    )


def _real_episode(folder: Path, machine: Machine, settings: EvaluateConfig, seed: int) -> Any:
    """Frames (T, H, W, C) of the real episode that the agent plays with `seed`."""
    policy = load_dream_trained(folder, folder / "policy", greedy=settings.greedy, dtype=machine.dtype)
    model = load_model(folder)
    env = envs.make(from_dict(EnvConfig, model.spec.settings, f"{folder}/config.json"))
    try:
        result = play_episode(env, policy, seed)
    finally:
        env.close()
    assert result.frames is not None
    blank = model.spec.blank_terminal_frame and result.terminated
    return np.asarray(result.frames[: len(result.frames) - blank])


def _unique(seeds: Iterable[int]) -> list[int]:
    return sorted(set(seeds))
