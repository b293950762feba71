"""A world model small enough for tests, with random weights."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from worldsim.data.actions import action_feature_count
from worldsim.data.episode import EnvSpec
from worldsim.dynamics.build import build_dynamics
from worldsim.dynamics.config import DynamicsConfig
from worldsim.endings import EndingConfig, EndingReader
from worldsim.plan_reader import PlanConfig, PlanReader
from worldsim.start_contexts import StartContexts
from worldsim.tokenizers.build import build_tokenizer, code_vectors
from worldsim.tokenizers.config import TokenizerConfig
from worldsim.world_model import WorldModel

ACTION_SPACES: dict[str, dict[str, Any]] = {
    "discrete": {"type": "discrete", "n": 3},
    "multi_discrete": {"type": "multi_discrete", "nvec": [3, 2]},
    "multi_binary": {"type": "multi_binary", "n": 3},
    "box": {"type": "box", "shape": [2], "low": [-1.0, 0.0], "high": [1.0, 1.0]},
}


MEANINGS = {
    "discrete": ["left", "stay", "right"],
    "multi_discrete": ["steer", "jump"],
    "multi_binary": ["left", "right", "fire"],
    "box": ["steer", "gas"],
}

PIXELS = TokenizerConfig(kind="pixels", patch=8)
TOKENIZERS = {  # by kind of the dynamics
    "video_gpt": TokenizerConfig(
        kind="vq", patch=8, channels=4, codes=8, width=8, heads=1, encoder_layers=1, decoder_layers=1
    ),
}


def tiny_spec(actions: str = "discrete", max_episode_steps: int | None = 50, size: int = 16) -> EnvSpec:
    return EnvSpec(
        id="Tiny-v0",
        settings={},
        frame_shape=(size, size, 3),
        action_space=ACTION_SPACES[actions],
        action_meanings=MEANINGS[actions],
        frames_per_second=10.0,
        max_episode_steps=max_episode_steps,
        blank_terminal_frame=False,
    )


def tiny_world(
    actions: str = "discrete",
    seed: int = 0,
    max_episode_steps: int | None = 50,
    kind: str = "dit",
    size: int = 16,
) -> WorldModel:
    """Random weights everywhere, so that every input shows in the output.

    kind: of the dynamics; a video_gpt gets codes, all others pixels. Frames are `size` pixels high and wide.
    """
    spec = tiny_spec(actions, max_episode_steps, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer(TOKENIZERS.get(kind, PIXELS), spec.frame_shape)
        tokens, channels = tokenizer.latent_shape
        config = DynamicsConfig(kind=kind, size="debug", window=4, belief_size=8, time_every=1, shortcut_fraction=0.25)
        codes = code_vectors(tokenizer)
        dynamics = build_dynamics(config, tokens, channels, tokenizer.grid, action_feature_count(spec), codes)
        for parameter in dynamics.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        dynamics.scale.low.fill_(-1.0)
        dynamics.scale.high.fill_(1.0)
        count, frames = 20, 3
        present = torch.ones(count, frames, dtype=torch.bool)
        present[:5, :-1] = False
        has_action = present.clone()
        has_action[:5] = False
        shape = (count, frames, *spec.action_shape)
        contexts = StartContexts(
            latents=(2 * torch.rand(count, frames, tokens, channels) - 1).half(),
            actions=torch.from_numpy(np.zeros(shape, spec.action_dtype)),
            has_action=has_action,
            present=present,
            at_start=torch.arange(count) < 5,
        )
    return WorldModel(spec, tokenizer, dynamics, contexts, training={"note": "random weights"})


def tiny_reader(model: WorldModel, frames: int = 3, members: int = 1) -> EndingReader:
    """Random weights everywhere."""
    tokens, channels = model.latent_shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        config = EndingConfig(steps=1, frames=frames, members=members)
        reader = EndingReader(config, tokens, channels, model.dynamics.action_features)
        for parameter in reader.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return reader.eval()


def tiny_plan_reader(model: WorldModel, members: int = 1, afterwards: int = 0) -> PlanReader:
    """Random weights everywhere; plans of up to 5 steps."""
    config = PlanConfig(1, 5, afterwards, ages=[0, 2], actions_before=3, strides=[[4, 2], [4, 4]], members=members)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        reader = PlanReader(config, model.spec.frame_shape, model.dynamics.action_features)
        for parameter in reader.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return reader.eval()


class NoiseEnv(gym.Env[NDArray[np.uint8], Any]):
    """Frames of noise, episodes of 3 to 12 steps."""

    def __init__(self, model: WorldModel) -> None:
        self.observation_space = gym.spaces.Box(0, 255, model.spec.frame_shape, np.uint8)
        self.action_space = model.spec.gym_action_space()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 3 + (seed or 0) % 10
        return self._frame(), {}

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.left -= 1
        return self._frame(), 1.0, self.left == 0, False, {}

    def _frame(self) -> NDArray[np.uint8]:
        assert self.observation_space.shape is not None
        return self.np_random.integers(256, size=self.observation_space.shape, dtype=np.uint8)
