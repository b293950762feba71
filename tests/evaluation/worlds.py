"""Small worlds to be judged in, an oracle that knows one of them, and an untrained world model of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.data.collection import collect
from worldsim.data.episode import EnvSpec
from worldsim.data.latents import encode_store
from worldsim.data.store import EpisodeStore
from worldsim.dynamics.config import DynamicsConfig
from worldsim.dynamics.dit_dynamics import DiTDynamics
from worldsim.scripted_policies import StickyRandom
from worldsim.start_contexts import draw_contexts
from worldsim.tokenizers.build import build_tokenizer, tokenizer_fingerprint
from worldsim.tokenizers.config import TokenizerConfig
from worldsim.world_model import WorldModel
from worldsim.world_state import DreamStep

SHAPE = (16, 16, 3)
EDGE = 15
CAP = 40
THREE = gym.spaces.Discrete(3)


def picture(position: int) -> NDArray[np.uint8]:
    """A bright column on a dark ground."""
    frame = np.full(SHAPE, 10, np.uint8)
    frame[:, position] = 200
    return frame


def spec(blank_terminal_frame: bool = True) -> EnvSpec:
    return EnvSpec(
        id="Column-v0",
        settings={},
        frame_shape=SHAPE,
        action_space={"type": "discrete", "n": 3},
        action_meanings=["left", "stay", "right"],
        frames_per_second=10.0,
        max_episode_steps=CAP,
        blank_terminal_frame=blank_terminal_frame,
    )


class ColumnEnv(gym.Env[NDArray[np.uint8], Any]):
    """A column goes left or right (0, 2) or stays; reaching the right edge ends the episode with a black frame."""

    observation_space = gym.spaces.Box(0, 255, SHAPE, np.uint8)
    action_space = THREE

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.steps = int(self.np_random.integers(4, 12)), 0
        return picture(self.position), {}

    def step(self, action: int) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        self.position = max(0, self.position + int(action) - 1)
        self.steps += 1
        ended = self.position == EDGE
        frame = np.zeros(SHAPE, np.uint8) if ended else picture(self.position)
        return frame, float(self.position), ended, self.steps >= CAP and not ended, {"tics": 2}


class RhythmEnv(gym.Env[NDArray[np.uint8], Any]):
    """Pays for playing 1 and 2 in turn, four steps each, and a little by chance; 0 never pays."""

    observation_space = gym.spaces.Box(0, 255, SHAPE, np.uint8)
    action_space = THREE

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(SHAPE, np.uint8), {}

    def step(self, action: int) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        reward = float(action == 1 + self.steps // 4 % 2) + 0.2 * float(self.np_random.standard_normal())
        self.steps += 1
        return np.zeros(SHAPE, np.uint8), reward, False, self.steps == 48, {}


def column_store(folder: Path) -> EpisodeStore:
    return collect(
        folder,
        spec(),
        ColumnEnv,
        lambda: StickyRandom(THREE, 0.7),
        budget_tics=3000,
        workers=1,
        seed=1,
        round=0,
        held_out_fraction=0.5,
        policy_name="sticky",
        progress=False,
    )


def tiny_model(store: EpisodeStore) -> WorldModel:
    """Untrained, on patches of pixels."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(TokenizerConfig(kind="pixels", patch=8), SHAPE)
    tokens, channels = tokenizer.latent_shape
    dynamics = DiTDynamics(
        DynamicsConfig(size="debug", finest_steps=1, sampling_steps=1), tokens, channels, tokenizer.grid, 3
    )
    fingerprint = tokenizer_fingerprint(tokenizer)
    latents = encode_store(store, tokenizer, fingerprint, torch.device("cpu"), torch.float32, progress=False)
    contexts = draw_contexts(store, latents, 32, 4, episode_starts=16, seed=0)
    return WorldModel(store.spec, tokenizer, dynamics, contexts)


@dataclass(frozen=True)
class OracleState:
    position: Tensor


class Oracle:
    """Knows ColumnEnv by heart. A latent token is a row of pixels; the state is where the column stands."""

    spec = spec()
    device = torch.device("cpu")
    dynamics = SimpleNamespace(config=SimpleNamespace(window=12))

    def encode(self, frames: Tensor) -> Tensor:
        return frames.flatten(-2).float() / 255

    def decode(self, latents: Tensor) -> Tensor:
        return (latents * 255).round().to(torch.uint8).unflatten(-1, (SHAPE[1], SHAPE[2]))

    def start(
        self, latents: Tensor, actions: Tensor, has_action: Tensor, present: Tensor, generators: Any
    ) -> OracleState:
        assert present[:, -1].all()
        assert (latents[~present] == 0).all()
        assert len(generators) == len(latents)
        self.check_context(latents, actions, has_action, present)
        return OracleState(self.where(latents[:, -1]))

    def start_episode(self, frames: Tensor, generators: Any) -> OracleState:
        return OracleState(self.where(self.encode(frames)))

    def step(
        self, state: OracleState, actions: Tensor, *, temperature: float | None = None
    ) -> tuple[OracleState, DreamStep]:
        moved = (state.position + actions - 1).clamp(0, EDGE)
        latents = self.encode(torch.from_numpy(np.stack([picture(int(position)) for position in moved])))
        ended = (moved == EDGE).float()
        return replace(state, position=moved), DreamStep(latents, ended, moved.float(), ended, ended)

    def observe(self, state: OracleState, frames: Tensor, actions: Tensor) -> tuple[OracleState, DreamStep]:
        return self.step(state, actions)

    @staticmethod
    def where(latents: Tensor) -> Tensor:
        return latents.unflatten(-1, (SHAPE[1], SHAPE[2])).sum((-3, -1)).argmax(-1)

    def check_context(self, latents: Tensor, actions: Tensor, has_action: Tensor, present: Tensor) -> None:
        """The action at frame t must lead from frame t - 1 to it."""
        position = self.where(latents)
        led = has_action[:, 1:] & present[:, :-1]
        moved = (position[:, :-1] + actions[:, 1:] - 1).clamp(0, EDGE)
        assert torch.equal(moved[led], position[:, 1:][led])


class BlindOracle(Oracle):
    """Dreams what comes when nobody acts."""

    def step(
        self, state: OracleState, actions: Tensor, *, temperature: float | None = None
    ) -> tuple[OracleState, DreamStep]:
        return super().step(state, torch.ones_like(actions))
