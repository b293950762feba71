"""The stages that train. Each reads what the stage before it wrote, resumes what it began, and is quick when done."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch

from worldsim import distributed
from worldsim.agents.learners import build_learner
from worldsim.agents.networks import PolicyNetwork
from worldsim.agents.policy_io import save_policy
from worldsim.checkpoints import read_checkpoint
from worldsim.data.files import explained
from worldsim.data.latents import LatentCache, encode_store
from worldsim.data.store import EpisodeStore
from worldsim.distillation import DistillationLearner
from worldsim.dream import DreamVectorEnv
from worldsim.dynamics.learner import DynamicsLearner
from worldsim.dynamics.protocol import Dynamics
from worldsim.endings import EndingLearner, EndingReader
from worldsim.errors import UserError
from worldsim.evaluation.board import log_videos
from worldsim.evaluation.temperature import calibrate_temperature
from worldsim.evaluation.uncertainty import measure_uncertainty
from worldsim.evaluation.videos import real_beside_dream
from worldsim.model_folder import load_model, save_model
from worldsim.plan_learner import PlanLearner
from worldsim.plan_reader import PlanReader
from worldsim.start_contexts import StartContexts, draw_contexts
from worldsim.tokenizers.build import AnyTokenizer, build_tokenizer, code_vectors, tokenizer_fingerprint
from worldsim.tokenizers.learner import TokenizerLearner
from worldsim.training import Learner, fit
from worldsim.training_log import TENSORBOARD
from worldsim.workflow.config import RunConfig, plan_steps
from worldsim.workflow.folders import round_folders
from worldsim.workflow.machine import Machine
from worldsim.world_model import WorldModel

RELEASED_CONTEXTS = 512  # start contexts that travel with a model, a quarter of them first frames of episodes
TRAINING_CONTEXTS = 8192


def train_tokenizer(
    config: RunConfig, run: Path, round_number: int, store: EpisodeStore, machine: Machine
) -> AnyTokenizer:
    """The tokenizer of a round: trained on the episodes of round 0; refined in later rounds, on all there are by then.

    Without `tokenizer.refine_steps` it stays that of round 0.
    """
    if config.tokenizer.kind == "pixels":
        return build_tokenizer(config.tokenizer, store.spec.frame_shape)
    refined = round_number > 0 and config.tokenizer.refine_steps > 0
    steps = config.tokenizer.refine_steps if refined else config.tokenizer.steps
    settings = replace(config.tokenizer, steps=steps)
    begin_with = load_model(round_folders(run, round_number - 1).world_model).tokenizer if refined else None
    learner = TokenizerLearner(
        settings,
        store,
        machine.device,
        machine.dtype,
        config.seed + (1000 * round_number if refined else 0),
        begin_with=begin_with,
    )
    fit(
        learner,
        steps=steps,
        folder=round_folders(run, round_number).tokenizer if refined else run / "tokenizer",
        name=f"tokenizer, round {round_number}" if refined else "tokenizer",
        images_every=max(1, steps // 8),
        checkpoint_seconds=config.checkpoint_seconds,
        seed=config.seed,
    )
    return learner.tokenizer


def encode_episodes(store: EpisodeStore, tokenizer: AnyTokenizer, machine: Machine) -> LatentCache:
    """The latents of all episodes, kept beside them under the tokenizer's fingerprint."""
    fingerprint = tokenizer_fingerprint(tokenizer)
    distributed.on_rank_0(
        lambda: encode_store(store, tokenizer, fingerprint, machine.device, machine.dtype, progress=True)
    )
    return LatentCache.open(store, fingerprint)


def train_dynamics(
    config: RunConfig,
    run: Path,
    round_number: int,
    store: EpisodeStore,
    latents: LatentCache,
    tokenizer: AnyTokenizer,
    machine: Machine,
) -> DynamicsLearner:
    """The learner with the dynamics of a round, its `average`; they go on from those of the round before."""
    begin_with = None
    if round_number > 0:
        begin_with = load_model(round_folders(run, round_number - 1).world_model, device=machine.device).dynamics
    learner = DynamicsLearner(
        config.dynamics,
        store,
        latents,
        tokenizer.grid,
        machine.device,
        machine.dtype,
        seed=_round_seed(config, round_number),
        begin_with=begin_with,
        codes=code_vectors(tokenizer),
    )
    _fit_round(
        learner, config, config.dynamics.steps, round_folders(run, round_number).dynamics, "dynamics", round_number
    )
    return learner


def train_endings(
    config: RunConfig,
    run: Path,
    round_number: int,
    store: EpisodeStore,
    latents: LatentCache,
    dynamics: Dynamics,
    machine: Machine,
) -> EndingReader:
    """The network that foresees endings, trained anew on the episodes there are by now."""
    seed = _round_seed(config, round_number)
    learner = EndingLearner(config.endings, store, latents, dynamics.scale, machine.device, machine.dtype, seed)
    _fit_round(learner, config, config.endings.steps, round_folders(run, round_number).endings, "endings", round_number)
    return learner.reader


def train_plans(
    config: RunConfig,
    run: Path,
    round_number: int,
    store: EpisodeStore,
    latents: LatentCache,
    tokenizer: AnyTokenizer,
    machine: Machine,
) -> PlanReader:
    """The network that foresees what plans lead to, trained anew on the episodes there are by now.

    config: as the run is walked (`worldsim.workflow.sources.as_walked`), since the amount of data says how many steps.
    """
    seed = _round_seed(config, round_number)
    settings = replace(config.plans, steps=plan_steps(config, round_number))
    learner = PlanLearner(settings, store, latents, tokenizer, machine.device, machine.dtype, seed)
    _fit_round(learner, config, settings.steps, round_folders(run, round_number).plans, "plans", round_number)
    return learner.reader


def distil(
    config: RunConfig,
    run: Path,
    round_number: int,
    store: EpisodeStore,
    latents: LatentCache,
    tokenizer: AnyTokenizer,
    dynamics: Dynamics,
    machine: Machine,
) -> Dynamics:
    """The dynamics of a round with a network that samples in fewer steps."""
    networks = copy.deepcopy((tokenizer, dynamics))
    contexts = training_contexts(config, store, latents)
    model = WorldModel(store.spec, *networks, contexts, device=machine.device, dtype=machine.dtype)
    seed = _round_seed(config, round_number)
    steps = config.dynamics.distillation_steps
    learner = DistillationLearner(model, steps=steps, sampling_steps=config.dynamics.sampling_steps, seed=seed)
    _fit_round(learner, config, steps, round_folders(run, round_number).distillation, "distillation", round_number)
    return learner.result(dynamics)


def training_contexts(config: RunConfig, store: EpisodeStore, latents: LatentCache) -> StartContexts:
    """Real moments from which agents, and networks that sample, dream while they learn."""
    return draw_contexts(
        store,
        latents,
        TRAINING_CONTEXTS,
        config.dream.context_frames,
        episode_starts=256,
        seed=config.seed + 1,
        before_endings=round(config.dream.ending_fraction * TRAINING_CONTEXTS),
        reach=config.dream.max_episode_steps,
        from_step=config.dream.start_from_step,
    )


def save_world_model(
    config: RunConfig,
    run: Path,
    round_number: int,
    store: EpisodeStore,
    latents: LatentCache,
    tokenizer: AnyTokenizer,
    learner: DynamicsLearner,
    dynamics: Dynamics,
    endings: EndingReader | None,
    plans: PlanReader | None,
    machine: Machine,
) -> Path:
    """Everything needed to dream, in one folder; returns it. A whole folder with these weights is left as it is.

    learner: what trained the dynamics, of whose held-out figures the card tells.
    """
    folder = round_folders(run, round_number).world_model
    if _holds(folder, dynamics):
        return folder
    contexts = draw_contexts(
        store,
        latents,
        RELEASED_CONTEXTS,
        config.dream.context_frames,
        episode_starts=RELEASED_CONTEXTS // 4,
        seed=config.seed,
    )
    training = {
        "real tics": store.total_tics(),
        "real steps": store.total_steps(),
        "episodes": len(store.played()),
        "rounds": round_number + 1,
        "seed": config.seed,
        "tokenizer steps": config.tokenizer.steps + round_number * config.tokenizer.refine_steps,
        "dynamics steps in each round": config.dynamics.steps,
        **{name: round(value, 5) for name, value in learner.evaluate().items()},
    }
    # Copies: a world model casts its networks to the precision in which it dreams.
    networks = copy.deepcopy((tokenizer, dynamics))
    dreaming = WorldModel(
        store.spec, *networks, contexts, device=machine.device, dtype=machine.dtype, endings=copy.deepcopy(endings)
    )
    dreaming.temperature = config.dream.temperature
    if config.dream.calibrate_temperature:
        found = calibrate_temperature(dreaming, store)
        dreaming.temperature = found.temperature
        training["endings per step, real"] = round(found.hazard_observed, 5)
        training["endings per step, dreamt"] = round(found.hazard_dreamt, 5)
    model = WorldModel(
        store.spec,
        tokenizer,
        dynamics,
        contexts,
        temperature=dreaming.temperature,
        feature_frames=config.dream.feature_frames,
        stack_ages=config.dream.stack_ages,
        endings=endings,
        plans=plans,
        uncertainty_quantiles=measure_uncertainty(dreaming, store).quantiles,
        training=training,
    )
    save_model(model, folder)
    shown = real_beside_dream(model, store, starts=2, steps=32, seed=config.seed)
    log_videos(
        round_folders(run, round_number).dynamics / TENSORBOARD,
        [(shown.name, shown)],
        step=config.dynamics.steps,
        rate=store.spec.frames_per_second,
    )
    return folder


def _holds(folder: Path, dynamics: Dynamics) -> bool:
    """Whether a whole world model with the weights of `dynamics` lies in `folder`.

    Later rounds must not write it anew: its start contexts and figures come from the episodes there were then.
    """
    try:
        saved = load_model(folder).dynamics.state_dict()
    except UserError:
        return False
    weights = dynamics.state_dict()
    return saved.keys() == weights.keys() and all(torch.equal(saved[name], weights[name].cpu()) for name in saved)


def train_agent(
    config: RunConfig, run: Path, round_number: int, store: EpisodeStore, latents: LatentCache, machine: Machine
) -> PolicyNetwork:
    """The agent in dreams from real moments; goes on from the policy of the round before."""
    folders = round_folders(run, round_number)
    model = load_model(folders.world_model, device=machine.device, dtype=machine.dtype)
    rows = DreamVectorEnv(
        model,
        config.dream.num_envs,
        observation=model.agent_observation,
        max_episode_steps=config.dream.max_episode_steps,
        start_contexts=training_contexts(config, store, latents),
        array="numpy" if config.agent.kind == "cma_es" else "torch",  # CMA-ES computes on the CPU
    )
    seed = _round_seed(config, round_number)
    learner = build_learner(config.agent, rows, seed, machine.device, machine.dtype)
    if round_number > 0:
        learner.begin_with(read_checkpoint(round_folders(run, round_number - 1).agent)["learner"])
    updates = config.agent_updates[round_number]
    _fit_round(learner, config, updates, folders.agent, "agent", round_number, log_every=1)
    with explained("save the policy", folders.policy):
        notes = {"env": store.spec.id, "rounds": round_number + 1, "greedy": config.evaluate.greedy}
        save_policy(learner.policy, folders.policy, notes=notes, value=learner.value)
    return learner.policy


def _fit_round(
    learner: Learner, config: RunConfig, steps: int, folder: Path, stage: str, round_number: int, log_every: int = 10
) -> None:
    """`fit` as all stages do that every round repeats: `folder` and the stage's name are those of the round."""
    fit(
        learner,
        steps=steps,
        folder=folder,
        name=f"{stage}, round {round_number}",
        log_every=log_every,
        checkpoint_seconds=config.checkpoint_seconds,
        seed=_round_seed(config, round_number),
    )


def _round_seed(config: RunConfig, round_number: int) -> int:
    """Of everything random that a round trains."""
    return config.seed + 1000 * round_number
