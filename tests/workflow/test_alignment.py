"""From the store to the agent's rollout, frames, actions, rewards and endings belong to the step that they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray
from torch import Tensor

from tests.ring import CELLS, END, cell_after
from worldsim import envs
from worldsim.agents.networks import PolicyNetwork, network_spec
from worldsim.agents.rollout import Envs, EpisodeStatistics, Rollout, play_rollout
from worldsim.config import load_config
from worldsim.data.store import EpisodeStore
from worldsim.dream import DreamVectorEnv
from worldsim.model_folder import load_model
from worldsim.observations import feature_layout
from worldsim.observed import ObservedVectorEnv
from worldsim.workflow.config import RunConfig
from worldsim.workflow.run import run
from worldsim.world_model import WorldModel

ROWS, STEPS = 32, 40
SETTINGS = [
    "env.id=tests.ring:Ring-v0",
    "env.frame_height=2",
    f"env.frame_width={2 * CELLS}",
    "env.grayscale=true",
    "env.max_episode_tics=60",
    "rounds=1",
    "collect.tics=[8000]",
    "tokenizer.kind=pixels",
    "tokenizer.patch=2",
    "dynamics.size=nano",
    "dynamics.steps=500",
    "dynamics.batch_clips=16",
    "dynamics.belief_size=64",
    "dynamics.head_dropout=0",
    "dynamics.reward_weight=1",
    "dynamics.finest_steps=2",
    "dynamics.shortcut_fraction=0",
    "dynamics.self_context_fraction=0",
    "agent_updates=[1]",
    "threads=1",
]


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the ring up to its world model."""
    folder = tmp_path_factory.mktemp("ring") / "run"
    config = load_config(RunConfig, repository / "configs" / "debug.yaml", SETTINGS)
    run(config, folder, lambda message: None, until="dynamics")
    return folder


def cells(model: WorldModel, features: Tensor) -> NDArray[Any]:
    """The brightest cell in the latents that features (..., F) begin with."""
    tokens, channels = model.latent_shape
    latents = features[..., : tokens * channels].unflatten(-1, (tokens, channels))
    brightness = model.decode(latents).float().mean((-3, -1))  # (..., W)
    found: NDArray[Any] = brightness.unflatten(-1, (CELLS, 2)).mean(-1).argmax(-1).numpy()
    return found


def rollout_in(rows: Envs) -> Rollout:
    """A new policy's rollout: uniformly random actions."""
    policy = PolicyNetwork(network_spec(rows, [8]))
    first, _ = rows.reset(seed=5)
    generator = torch.Generator().manual_seed(0)
    rollout, _ = play_rollout(rows, policy, first, STEPS, generator, EpisodeStatistics(rows.num_envs))
    return rollout


def agreement(model: WorldModel, rollout: Rollout) -> dict[str, float]:
    """Shares of the steps on which frames, last actions, rewards and endings are those of the known function."""
    before = cells(model, rollout.observations[:-1])  # (T, B)
    expected = cell_after(before, rollout.raw_actions.numpy())
    goes_on = ~(rollout.terminated | rollout.truncated).numpy()  # elsewhere the next episode's first frame stands
    last_action = rollout.observations[1:, :, -feature_layout(model)["action"] :].argmax(-1)
    ending = rollout.continuation.numpy() < 0.5
    return {
        "frame": float((cells(model, rollout.observations[1:]) == expected)[goes_on].mean()),
        "last action": float((last_action == rollout.raw_actions).numpy()[goes_on].mean()),
        "reward": float((np.abs(rollout.rewards.numpy() - expected) < 0.5).mean()),
        "ending": float((ending == (expected == END)).mean()),
        "ending where there is one": float(ending[expected == END].mean()),
    }


@pytest.mark.slow
def test_the_store_holds_the_known_function(folder: Path) -> None:
    store = EpisodeStore.open(folder / "episodes")
    for i in range(len(store)):
        episode = store[i]
        shown = episode.frames[:, 0, ::2, 0].argmax(-1)
        np.testing.assert_array_equal(shown[1:], cell_after(shown[:-1], episode.actions))
        np.testing.assert_array_equal(episode.rewards, shown[1:])
        assert episode.terminated[-1] == (shown[-1] == END)


@pytest.mark.slow
def test_a_dream_follows_the_known_function_through_the_agents_rollout(folder: Path) -> None:
    model = load_model(folder / "round-00" / "world_model")
    rollout = rollout_in(DreamVectorEnv(model, ROWS, observation="features"))
    found = agreement(model, rollout)
    assert min(found.values()) >= 0.95, found
    assert found["last action"] == 1.0


@pytest.mark.slow
def test_reality_seen_through_the_model_follows_it_exactly(folder: Path) -> None:
    model = load_model(folder / "round-00" / "world_model")
    make = lambda: envs.make(envs.EnvConfig(**model.spec.settings))  # noqa: E731
    real = SyncVectorEnv([make] * ROWS, autoreset_mode=AutoresetMode.SAME_STEP)
    found = agreement(model, rollout_in(ObservedVectorEnv(real, model)))
    assert found == dict.fromkeys(found, 1.0)
