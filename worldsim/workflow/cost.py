"""What a run will cost, said before it starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from worldsim.data.actions import action_feature_count
from worldsim.data.episode import EnvSpec
from worldsim.distillation import ROWS
from worldsim.dynamics.config import SIZES
from worldsim.endings import EndingConfig, ReaderMember, read_ages
from worldsim.plan_reader import PlanConfig, PlanMember
from worldsim.workflow.config import RunConfig, plan_steps

# What a run of take_cover did on one core with bf16 while another ran on the second, from its seconds.json (2026-11-29;
# benchmarks/LOG.md). Networks this narrow wait for what lies between their products.
COLLECTED_TICS_PER_SECOND = 4_000
OPERATIONS_PER_SECOND = {"tokenizer": 100e9, "dynamics": 45e9, "endings": 27e9, "plans": 65e9, "dreams": 30e9}


def describe_cost(config: RunConfig, spec: EnvSpec) -> str:
    """A few lines: real frames, disk, memory and a rough time, from sizes alone."""
    tics = sum(config.collect.tics)
    frames = tics // max(1, config.env.frame_skip)
    height, width, channels = spec.frame_shape
    frame_bytes = height * width * channels
    tokens, latent_channels = _latent_shape(config, spec)
    latent_bytes = tokens * latent_channels * 2
    kept = frames * (2 if config.collect.mirror_actions else 1)  # copies in a mirror cost no tics
    disk = kept * (frame_bytes + latent_bytes)
    memory = 1.2e9 + kept * latent_bytes * 1.5
    if config.plans.steps:  # their reader learns from decoded frames
        memory += kept * frame_bytes
    hours = _training_seconds(config, spec, (tokens, latent_channels)) / 3600
    return (
        f"cost: {tics:,} real tics ({frames:,} frames), about {disk / 1e9:.2f} GB of disk, {memory / 1e9:.1f} GB of "
        f"memory, some {hours * 60:.0f} minutes of training on one CPU core (much less on a GPU)"
    )


def _latent_shape(config: RunConfig, spec: EnvSpec) -> tuple[int, int]:
    height, width, channels = spec.frame_shape
    patch = config.tokenizer.patch
    patches = (height // patch) * (width // patch)
    if config.tokenizer.kind == "pixels":
        return patches, patch * patch * channels
    if config.tokenizer.kind == "convolutional":
        return 1, config.tokenizer.channels
    if config.tokenizer.kind == "vq":
        return patches, config.tokenizer.channels
    return patches // math.prod(config.tokenizer.merge), config.tokenizer.channels


def _training_seconds(config: RunConfig, spec: EnvSpec, latent_shape: tuple[int, int]) -> float:
    """Multiply-adds of weights times tokens, forward and twice that backward; a dream step is two passes and a bit."""
    clip = config.dynamics.batch_clips * config.dynamics.clip_frames
    distillation = 0.0
    if config.dynamics.kind == "mdn_rnn":
        per_training_frame, per_step = (factor * _mdn_rnn_weights(config, latent_shape) for factor in (6, 2))
    elif config.dynamics.kind == "video_gpt":
        size, places = SIZES[config.dynamics.size], latent_shape[0] + 1
        seen = (config.dynamics.clip_frames * places, config.dynamics.window * places)  # by a token: masked or read
        training, dreamt = (2 * places * size.depth * size.width * (12 * size.width + 2 * keys) for keys in seen)
        per_training_frame, per_step = 3 * training, dreamt
    else:
        size = SIZES[config.dynamics.size]
        weights = size.width**2 * size.depth * (12 + 4 / config.dynamics.time_every)
        places = latent_shape[0] + config.dynamics.registers
        whole, sampler = 2 * weights * places, 32 * size.width**2 * (size.depth // config.dynamics.time_every) * places
        sampling = config.dynamics.sampling_steps * (sampler if config.dynamics.distillation_steps else whole)
        per_training_frame, per_step = whole * 7, whole * 1.5 + sampling
        lesson = whole * (config.dynamics.finest_steps + 1.5) + 3 * sampling
        distillation = config.dynamics.distillation_steps * ROWS * lesson
    dynamics = config.rounds * config.dynamics.steps * clip * per_training_frame + distillation
    # A generation of CMA-ES plays twice, to the end.
    horizon = 2 * config.dream.max_episode_steps if config.agent.kind == "cma_es" else config.agent.horizon
    dreams = sum(config.agent_updates) * horizon * config.dream.num_envs * per_step
    if config.agent.kind == "dagger":
        dreams *= 2  # judging plans and learning what they say takes as long again
    operations = {
        "tokenizer": _tokenizer_operations(config, spec),
        "dynamics": dynamics,
        "endings": config.rounds * _endings_operations(config, spec, latent_shape),
        "plans": _plans_operations(config, spec),
        "dreams": dreams,
    }
    seconds = sum(count / OPERATIONS_PER_SECOND[stage] for stage, count in operations.items())
    return seconds + sum(config.collect.tics) / COLLECTED_TICS_PER_SECOND


def _endings_operations(config: RunConfig, spec: EnvSpec, latent_shape: tuple[int, int]) -> float:
    """Of one training."""
    settings, actions = config.endings, action_feature_count(spec)

    def forward() -> None:
        shown = torch.empty(1, settings.frames, 2 * math.prod(latent_shape) + actions)
        ages = read_ages(settings.frames)
        ReaderMember(settings, *latent_shape, actions)(shown, torch.empty(1, actions), ages)

    return 0.4 * _reader_operations(settings, forward)  # most training steps read few of the frames


def _plans_operations(config: RunConfig, spec: EnvSpec) -> float:
    """Of the trainings of all rounds."""
    settings = replace(config.plans, steps=sum(plan_steps(config, number) for number in range(config.rounds)))
    actions = action_feature_count(spec)

    def forward() -> None:
        pictures = torch.empty(1, len(settings.ages), *spec.frame_shape)
        taken, planned = torch.empty(1, settings.actions_before, actions), torch.empty(1, 1, settings.horizon, actions)
        PlanMember(settings, spec.frame_shape, actions)(pictures, taken, planned)

    return _reader_operations(settings, forward)


def _reader_operations(settings: EndingConfig | PlanConfig, forward: Callable[[], None]) -> float:
    """Of a training of all members. forward: of one of them, for one row; the backward pass counts twice."""
    if not settings.steps:
        return 0
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        forward()
    return 3 * settings.steps * settings.members * settings.batch_size * counter.get_total_flops()


def _tokenizer_operations(config: RunConfig, spec: EnvSpec) -> float:
    height, width, channels = spec.frame_shape
    settings = config.tokenizer
    frames = (settings.steps + (config.rounds - 1) * settings.refine_steps) * settings.batch_frames
    if settings.kind == "vit":
        patches = (height // settings.patch) * (width // settings.patch)
        drawn = patches if settings.decoder == "patches" else patches // math.prod(settings.merge)
        layers = patches * settings.encoder_layers + drawn * settings.decoder_layers
        return frames * 72 * settings.width**2 * layers
    if settings.kind == "convolutional":  # 4x4 taps, half the sides a layer: 32, 64, 128, 256 filters, and back
        taps = 16 * (32 * channels / 4 + 32 * 64 / 16 + 64 * 128 / 64 + 128 * 256 / 256)
        return frames * 6 * 2 * height * width * taps
    if settings.kind == "vq":  # 4x4 taps of stride 2 at both ends; residual blocks on the grid of tokens
        grid, width = height * width // settings.patch**2, settings.width
        blocks = (settings.encoder_layers + settings.decoder_layers) * 18 * width**2
        halvings = range(settings.patch.bit_length() - 1)
        ends = 2 * sum(16 * width * (width if n else channels) * settings.patch**2 / 4 ** (n + 1) for n in halvings)
        return frames * 6 * grid * (blocks + ends)
    return 0


def _mdn_rnn_weights(config: RunConfig, latent_shape: tuple[int, int]) -> float:
    hidden, numbers = config.dynamics.belief_size, math.prod(latent_shape)
    return hidden * (4 * (hidden + numbers) + 3 * config.dynamics.mixtures * numbers + 2 * hidden)
