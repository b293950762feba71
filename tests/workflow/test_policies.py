"""A dream-trained policy that plays several real episodes side by side."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.worlds import tiny_world
from worldsim.agents.networks import PolicyNetwork, network_spec
from worldsim.dream import DreamVectorEnv
from worldsim.rollouts import play_side_by_side
from worldsim.workflow.policies import DreamTrainedPolicy
from worldsim.world_model import WorldModel


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


@pytest.mark.parametrize("actions", ["discrete", "box"])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_row_plays_as_it_would_alone(actions: str, noise: float) -> None:
    model = tiny_world(actions)
    spec = network_spec(DreamVectorEnv(model, 1, observation="features"), [16])
    network = PolicyNetwork(spec, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(network.head.weight, std=1.0, generator=torch.Generator().manual_seed(1))
    policy = DreamTrainedPolicy(model, network, noise=noise)
    seeds = [11, 3, 7, 18]
    together = play_side_by_side([NoiseEnv(model) for _ in seeds], policy, seeds)
    assert len({result.length for result in together}) > 1
    for seed, row in zip(seeds, together, strict=True):
        [alone] = play_side_by_side([NoiseEnv(model)], policy, [seed])
        assert row.frames is not None
        assert alone.frames is not None
        np.testing.assert_array_equal(row.frames, alone.frames)
        np.testing.assert_allclose(row.actions, alone.actions, atol=1e-4)
