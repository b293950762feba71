"""What a run will cost, said before it starts."""

from __future__ import annotations

import math

from worldsim.data.episode import EnvSpec
from worldsim.dynamics.config import SIZES
from worldsim.workflow.config import RunConfig

# Frames per second on two cores with bf16 matrix products, measured with the take_cover config; see benchmarks/LOG.md.
COLLECTED_TICS_PER_SECOND = 8_000
MATRIX_OPERATIONS_PER_SECOND = 250e9


def describe_cost(config: RunConfig, spec: EnvSpec) -> str:
    """A few lines: real frames, disk, memory and a rough time, from sizes alone."""
    tics = sum(config.collect.tics)
    frames = tics // max(1, config.env.frame_skip)
    height, width, channels = spec.frame_shape
    frame_bytes = height * width * channels
    tokens, latent_channels = _latent_shape(config, spec)
    latent_bytes = tokens * latent_channels * 2
    disk = frames * (frame_bytes + latent_bytes)
    memory = 1.2e9 + frames * latent_bytes * 1.5
    hours = _training_seconds(config, spec, tokens) / 3600
    return (
        f"cost: {tics:,} real tics ({frames:,} frames), about {disk / 1e9:.2f} GB of disk, {memory / 1e9:.1f} GB of "
        f"memory, {hours * 60:.0f} minutes of training on two CPU cores (much less on a GPU)"
    )


def _latent_shape(config: RunConfig, spec: EnvSpec) -> tuple[int, int]:
    height, width, channels = spec.frame_shape
    patch = config.tokenizer.patch
    patches = (height // patch) * (width // patch)
    if config.tokenizer.kind == "pixels":
        return patches, patch * patch * channels
    return patches // math.prod(config.tokenizer.merge), config.tokenizer.channels


def _training_seconds(config: RunConfig, spec: EnvSpec, tokens: int) -> float:
    """Multiply-adds of weights times tokens, forward and twice that backward; a dream step is two passes and a bit."""
    height, width, _ = spec.frame_shape
    vit = config.tokenizer
    patches = (height // vit.patch) * (width // vit.patch)
    vit_weights = 12 * vit.width**2 * (vit.encoder_layers + vit.decoder_layers)
    tokenizer = vit.steps * vit.batch_frames * patches * 6 * vit_weights if vit.kind == "vit" else 0
    size = SIZES[config.dynamics.size]
    weights = size.width**2 * size.depth * (12 + 4 / config.dynamics.time_every)
    per_pass = 2 * weights * (tokens + config.dynamics.registers)
    clip = config.dynamics.batch_clips * config.dynamics.clip_frames
    dynamics = config.rounds * config.dynamics.steps * clip * per_pass * 7
    steps = sum(config.agent_updates) * config.agent.horizon * config.dream.num_envs
    dreams = steps * per_pass * (config.dynamics.sampling_steps + 1.5)
    return (tokenizer + dynamics + dreams) / MATRIX_OPERATIONS_PER_SECOND + (
        sum(config.collect.tics) / COLLECTED_TICS_PER_SECOND
    )
