"""A dream-trained policy that plays several real episodes side by side."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from tests.worlds import ACTION_SPACES, NoiseEnv, tiny_world
from worldsim.agents.networks import PolicyNetwork, network_spec
from worldsim.agents.policies import NetworkPolicy
from worldsim.dream import DreamVectorEnv
from worldsim.rollouts import play_side_by_side
from worldsim.workflow.policies import DreamTrainedPolicy


@pytest.mark.parametrize("actions", ACTION_SPACES)
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_row_plays_as_it_would_alone(actions: str, noise: float) -> None:
    model = tiny_world(actions)
    spec = network_spec(DreamVectorEnv(model, 1, observation="features"), [16])
    network = PolicyNetwork(spec, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(network.head.weight, std=1.0, generator=torch.Generator().manual_seed(1))
    policy = DreamTrainedPolicy(model, partial(NetworkPolicy, network), noise=noise)
    seeds = [11, 3, 7, 18]
    together = play_side_by_side([NoiseEnv(model) for _ in seeds], policy, seeds)
    assert len({result.length for result in together}) > 1
    for seed, row in zip(seeds, together, strict=True):
        [alone] = play_side_by_side([NoiseEnv(model)], policy, [seed])
        assert row.frames is not None
        assert alone.frames is not None
        np.testing.assert_array_equal(row.frames, alone.frames)
        np.testing.assert_allclose(row.actions, alone.actions, atol=1e-4)
