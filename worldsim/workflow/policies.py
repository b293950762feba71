"""Policies that look at the real env through a world model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldsim.agents.networks import PolicyNetwork
from worldsim.agents.policies import NetworkPolicy
from worldsim.agents.policy_io import load_policy, read_policy_config
from worldsim.dream import observe_state
from worldsim.model_folder import load_model
from worldsim.rollouts import StickyRandom
from worldsim.world_model import WorldModel, WorldState, row_generator


class DreamTrainedPolicy:
    """A policy on a dream's observation, fed from real frames by the world model's `observe`.

    noise: share of steps on which a sticky random action replaces the policy's, for collection.
    """

    def __init__(
        self,
        model: WorldModel,
        network: PolicyNetwork,
        *,
        observation: str = "features",
        greedy: bool = False,
        noise: float = 0.0,
        name: str = "dream-trained",
    ) -> None:
        self.name = name
        self._model, self._observation, self._noise = model, observation, noise
        self._policy = NetworkPolicy(network, greedy=greedy)
        self._random_policy = StickyRandom(model.spec.gym_action_space(), "mixed")
        self._state: WorldState | None = None
        self._action: Any = None

    def reset(self, seed: int) -> None:
        """Begin a new episode; all that is random follows from `seed`."""
        self._policy.reset(seed)
        self._random_policy.reset(seed)
        self._random = np.random.default_rng(seed)
        self._generator = row_generator(seed)
        self._state = None

    def __call__(self, frame: NDArray[np.uint8]) -> Any:
        """The action for a real frame (H, W, C), uint8."""
        frames = torch.from_numpy(np.array(frame))[None]
        if self._state is None:
            self._state = self._model.start_episode(frames, [self._generator])
        else:
            self._state, _ = self._model.observe(self._state, frames, torch.as_tensor(np.asarray(self._action))[None])
        observation = observe_state(self._model, self._state, self._observation)[0]
        action = self._policy.act(observation)
        random_action = self._random_policy(frame)
        self._action = random_action if self._random.random() < self._noise else action
        return self._action


def load_dream_trained(
    model_folder: Path | str,
    policy_folder: Path | str,
    *,
    greedy: bool = False,
    noise: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> DreamTrainedPolicy:
    """The policy in `policy_folder` on the world model in `model_folder`; for worker processes."""
    model = load_model(model_folder, dtype=dtype)
    network = load_policy(Path(policy_folder))
    return DreamTrainedPolicy(model, network, greedy=greedy, noise=noise)


def is_greedy(policy_folder: Path | str) -> bool:
    """Whether the saved policy is to be judged by its most likely actions, as its notes say."""
    return bool(read_policy_config(Path(policy_folder))["notes"].get("greedy", False))


def act_in_dream(network: PolicyNetwork, seed: int, greedy: bool = False) -> Any:
    """`network` as a callable on batches of dream observations, with a random state of its own."""
    generator = torch.Generator().manual_seed(seed)

    def act(observations: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(network.act(observations, generator, greedy))

    return act
