"""Settings that cannot work are refused before anything is written: a run that fails after an hour helps nobody."""

from __future__ import annotations

import math
from typing import Any

from worldsim.agents.errors import AgentConfigError, UnusableSpaceError
from worldsim.agents.learners import check_agent
from worldsim.agents.pictures import seen_size
from worldsim.data.episode import EnvSpec
from worldsim.data.shards import COMPRESSIONS
from worldsim.distributed import KINDS
from worldsim.dynamics.build import DYNAMICS
from worldsim.dynamics.config import SIZES
from worldsim.errors import UserError
from worldsim.optimization import OPTIMIZERS
from worldsim.plan_reader import check_strides
from worldsim.tokenizers.build import TOKENIZERS, build_tokenizer
from worldsim.workflow.config import RunConfig

AT_LEAST: dict[str, float] = {
    "seed": 0,
    "rounds": 1,
    "threads": 0,
    "checkpoint_seconds": 0,
    "collect.workers": 1,
    "collect.noise_steps": 1,
    "tokenizer.patch": 1,
    "tokenizer.channels": 1,
    "tokenizer.width": 1,
    "tokenizer.encoder_layers": 0,
    "tokenizer.decoder_layers": 0,
    "tokenizer.heads": 1,
    "tokenizer.codes": 2,
    "tokenizer.commitment": 0,
    "tokenizer.contrast_weight": 0,
    "tokenizer.latent_noise": 0,
    "tokenizer.steps": 1,
    "tokenizer.refine_steps": 0,
    "tokenizer.batch_frames": 1,
    "tokenizer.warmup_steps": 0,
    "tokenizer.weight_decay": 0,
    "dynamics.window": 2,
    "dynamics.clip_frames": 2,
    "dynamics.time_every": 1,
    "dynamics.registers": 1,
    "dynamics.belief_size": 1,
    "dynamics.mixtures": 1,
    "dynamics.finest_steps": 1,
    "dynamics.sampling_steps": 1,
    "dynamics.distillation_steps": 0,
    "dynamics.change_weight": 0,
    "dynamics.reward_weight": 0,
    "dynamics.termination_weight": 0,
    "dynamics.steps": 1,
    "dynamics.batch_clips": 1,
    "dynamics.weight_decay": 0,
    "dynamics.warmup_steps": 0,
    "dynamics.reward_bins": 2,
    "endings.steps": 0,
    "endings.frames": 1,
    "endings.members": 1,
    "endings.batch_size": 1,
    "endings.weight_decay": 0,
    "endings.warmup_steps": 0,
    "plans.steps": 0,
    "plans.horizon": 1,
    "plans.afterwards": 0,
    "plans.actions_before": 1,
    "plans.members": 1,
    "plans.batch_size": 1,
    "plans.weight_decay": 0,
    "plans.warmup_steps": 0,
    "dream.num_envs": 1,
    "dream.max_episode_steps": 1,
    "dream.start_from_step": 0,
    "dream.context_frames": 1,
    "dream.feature_frames": 1,
    "dream.temperature": 0,
    "evaluate.episodes": 1,
    "evaluate.blind_tuning_episodes": 1,
    "evaluate.dream_episodes": 1,
    "evaluate.workers": 1,
}
ABOVE_ZERO = (
    "dynamics.noise_scale",
    "tokenizer.learning_rate",
    "tokenizer.gradient_clip",
    "dynamics.learning_rate",
    "dynamics.change_scale",
    "endings.learning_rate",
    "plans.learning_rate",
)
SHARES = (  # from 0 to 1
    "collect.policy_noise",
    "tokenizer.mask_max",
    "tokenizer.codebook_decay",
    "tokenizer.ema_decay",
    "dynamics.context_noise",
    "dynamics.shortcut_fraction",
    "dynamics.self_context_fraction",
    "dynamics.ema_decay",
    "endings.ending_fraction",
    "plans.near_fraction",
    "plans.afterwards_weight",
    "plans.discount",
    "dream.ending_fraction",
)
BELOW_ONE = (  # from 0 on
    "dynamics.ending_fraction",
    "dynamics.head_dropout",
    "endings.dropout",
    "plans.dropout",
    "plans.frame_dropout",
)
LARGEST_SEED = 2**31 - 1  # that every simulator takes, as the seed of an episode


def check_settings(config: RunConfig) -> None:
    """Raise UserError for the first setting that no environment could work with."""
    for name, least in AT_LEAST.items():
        _require(name, _value(config, name), _value(config, name) >= least, f"at least {least:g}")
    for name in ABOVE_ZERO:
        _require(name, _value(config, name), _value(config, name) > 0, "above 0")
    for name in (*AT_LEAST, *ABOVE_ZERO):
        _require(name, _value(config, name), math.isfinite(_value(config, name)), "a finite number")
    for name in SHARES:
        _require(name, _value(config, name), 0 <= _value(config, name) <= 1, "from 0 to 1")
    for name in BELOW_ONE:
        _require(name, _value(config, name), 0 <= _value(config, name) < 1, "from 0 on and below 1")
    check_seeds("evaluate.seed", config.evaluate.seed, config.evaluate.episodes)
    _require(
        "collect.held_out_fraction",
        config.collect.held_out_fraction,
        0 < config.collect.held_out_fraction <= 0.5,
        "above 0 and at most 0.5: the verdict needs episodes that were not trained on",
    )
    _check_names(config)
    _check_rounds(config)
    _check_fit(config)
    try:
        check_agent(config.agent, config.dream.num_envs)
    except AgentConfigError as error:
        raise UserError(f"agent.{error}") from None


def check_seeds(name: str, first: int, episodes: int) -> None:
    """Raise UserError if `episodes` episodes cannot have the seeds from `first` on."""
    largest = LARGEST_SEED - episodes
    _require(name, first, 0 <= first <= largest, f"from 0 to {largest}, for {episodes} episodes")


def check_environment(config: RunConfig, spec: EnvSpec) -> None:
    """Raise UserError where settings do not fit the frames or the length of the real env's episodes."""
    if not spec.max_episode_steps:
        raise UserError(
            f"{spec.id} has no limit of steps, so dreams of it might never end: set env.max_episode_tics, such as 1000"
        )
    build_tokenizer(config.tokenizer, spec.frame_shape)  # refuses sizes that do not divide
    persistence = config.agent.initial_persistence
    if config.agent.kind == "actor_critic":
        held = not persistence or spec.action_choices is not None
        _require("agent.initial_persistence", persistence, held, f"0, because {spec.id} has no discrete actions")
    if config.agent.kind == "dagger":
        discrete = spec.action_choices is not None and not spec.action_shape
        _require("agent.kind", "dagger", discrete, f"actor_critic, because {spec.id} has no discrete actions")
    if config.dream.stack_ages:
        try:
            seen_size(spec.frame_shape, config.agent.strides)
        except UnusableSpaceError as error:
            raise UserError(f"agent.{error}") from None
    if config.plans.steps:
        check_strides(config.plans, spec.frame_shape)
    mirror = config.collect.mirror_actions
    if mirror:
        count = spec.action_space["n"] if spec.action_space["type"] == "discrete" else 0
        twice = [mirror[other] for other in mirror] if sorted(mirror) == list(range(count)) else []
        expected = f"the {count} actions in another order, of which each pair is exchanged"
        if not count:
            expected = f"no copies in a mirror, because {spec.id} has no discrete actions"
        _require("collect.mirror_actions", mirror, twice == list(range(count)) and count > 0, expected)


def check_processes(config: RunConfig, processes: int) -> None:
    """Raise UserError where `processes` cannot share the rows of a training batch evenly."""
    dynamics, clips = config.dynamics, config.dynamics.batch_clips
    counts = {"dynamics.batch_clips": clips}
    if config.tokenizer.kind != "pixels":
        counts["tokenizer.batch_frames"] = config.tokenizer.batch_frames
    for name, count in counts.items():
        _require(name, count, count % processes == 0, f"a multiple of {processes}, the number of processes")
    if dynamics.kind != "dit":
        return
    for name in ("dynamics.shortcut_fraction", "dynamics.self_context_fraction"):
        share = _value(config, name)
        alone = round(share * clips)
        together = processes * round(share * (clips // processes))
        _require(
            name, share, alone == together, f"a share of {clips} clips that {processes} processes have equal parts of"
        )


def _check_names(config: RunConfig) -> None:
    choices: dict[str, tuple[str, ...]] = {
        "distributed": KINDS,
        "collect.compression": COMPRESSIONS,
        "tokenizer.kind": tuple(TOKENIZERS),
        "dynamics.kind": tuple(DYNAMICS),
        "dynamics.size": tuple(SIZES),
        "dynamics.optimizer": OPTIMIZERS,
    }
    for name, known in choices.items():
        _require(name, _value(config, name), _value(config, name) in known, f"one of {', '.join(known)}")
    stickiness = config.collect.stickiness
    _require("collect.stickiness", stickiness, stickiness == "mixed" or _is_share(stickiness), "0 to 1, or mixed")


def _check_rounds(config: RunConfig) -> None:
    """Every list that has an entry per round must fit `rounds`."""
    lists = {"collect.tics": (config.collect.tics, config.collect.workers), "agent_updates": (config.agent_updates, 1)}
    for name, (values, least) in lists.items():
        if len(values) != config.rounds:
            raise UserError(f"{name} has {len(values)} entries, rounds is {config.rounds}: give one number per round")
        _require(name, values, min(values) >= least, f"at least {least} in every round")


def _check_fit(config: RunConfig) -> None:
    """Settings that limit each other."""
    dynamics = config.dynamics
    frames = config.dream.context_frames
    expected = f"at most dream.context_frames, which is {frames}: dreams begin with the past that their context holds"
    shown, read = config.dream.feature_frames, config.endings.frames
    _require("dream.feature_frames", shown, shown <= frames, expected)
    ages = config.dream.stack_ages
    if ages:
        kind = config.agent.kind
        seeing = "actor_critic or dagger, because dream.stack_ages shows it pictures"
        _require("agent.kind", kind, kind != "cma_es", seeing)
        _check_ages("dream.stack_ages", ages, frames)
    _require("endings.frames", read, not config.endings.steps or read <= frames, expected)
    plans = config.plans
    if plans.steps:
        _check_ages("plans.ages", plans.ages, frames)
        inside = bool(plans.changes) and min(plans.changes) >= 1
        _require("plans.changes", plans.changes, inside, "numbers of steps, 1 or more each, and at least one")
        pairs = [len(pair) == 2 and min(pair) >= 1 for pair in plans.strides]
        _require("plans.strides", plans.strides, bool(pairs) and all(pairs), "pairs of steps down and across, above 0")
        near = plans.near_fraction
        others = near < 1 or not plans.afterwards
        _require("plans.near_fraction", near, others, "below 1: plans.afterwards is learned from those that end later")
        _require("plans.actions_before", plans.actions_before, plans.actions_before <= frames, expected)
    if config.agent.kind == "dagger":
        _require("plans.steps", plans.steps, plans.steps > 0, "above 0: agent.kind=dagger learns what plans risk")
    if dynamics.kind != "dit":
        distillation = dynamics.distillation_steps
        _require("dynamics.distillation_steps", distillation, not distillation, "0: only dynamics.kind=dit denoises")
    if dynamics.kind == "mdn_rnn":
        optimizer = dynamics.optimizer
        _require("dynamics.optimizer", optimizer, optimizer == "adamw", "adamw: an mdn_rnn has no blocks for Muon")
        return
    if dynamics.kind == "video_gpt":
        kind = config.tokenizer.kind
        _require("tokenizer.kind", kind, kind == "vq", "vq, because dynamics.kind=video_gpt predicts codes")
        return
    finest = dynamics.finest_steps
    _require("dynamics.finest_steps", finest, finest & (finest - 1) == 0, "a power of two")
    steps = dynamics.sampling_steps
    _require(
        "dynamics.sampling_steps", steps, steps <= finest and steps & (steps - 1) == 0, f"a power of two up to {finest}"
    )
    shortcut = dynamics.shortcut_fraction
    if finest == 1:
        _require("dynamics.shortcut_fraction", shortcut, shortcut == 0, "0, because finest_steps=1 has no larger steps")
    if dynamics.distillation_steps:
        expected = f"below finest_steps, which is {finest}: that is what distillation_steps is for"
        _require("dynamics.sampling_steps", steps, steps < finest, expected)
    elif shortcut == 0:
        _require(
            "dynamics.sampling_steps",
            steps,
            steps == finest,
            f"{finest} (finest_steps), because neither shortcut_fraction nor distillation_steps trains larger steps",
        )


def _check_ages(name: str, ages: list[int], frames: int) -> None:
    """Ages of frames that somebody sees, in dreams that begin with so many."""
    _require(name, ages, bool(ages) and min(ages) == 0, "0 among them, the current frame, and none below")
    _require(name, ages, len(set(ages)) == len(ages), "each age once")
    _require(name, ages, max(ages) < frames, f"less than dream.context_frames, which is {frames}")


def _require(name: str, value: Any, holds: bool, expected: str) -> None:
    if not holds:
        raise UserError(f"{name}={value}: expected {expected}")


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def _value(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part)
    return config
