"""A network as a policy: for one episode at a time, or for several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from worldsim.agents.errors import AgentConfigError
from worldsim.agents.networks import PolicyNetwork

EXPLORATION_STREAM = 0x657870  # the env may draw from the seed itself


class NetworkPolicy:
    """A policy network with its own random state, for single observations. Can be pickled for worker processes.

    greedy: the most probable action. temperature: see `PolicyNetwork.act`. epsilon: share of uniformly random
    actions in [0, 1]. Two policies that were `reset` with one seed act alike on equal observations.
    Calling the policy is the same as `act`, so that a pixel network serves wherever a policy of frames does.
    """

    def __init__(
        self,
        network: PolicyNetwork,
        *,
        name: str = "network",
        greedy: bool = False,
        temperature: float = 1.0,
        epsilon: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not temperature > 0:
            raise AgentConfigError(f"temperature must be above 0, got {temperature}; greedy=True takes the mode.")
        if not 0 <= epsilon <= 1:
            raise AgentConfigError(f"epsilon must be in [0, 1], got {epsilon}.")
        self.network = network
        self.name = name
        self.greedy = greedy
        self.temperature = temperature
        self.epsilon = epsilon
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Begin a new episode with the random state of `seed`."""
        self._generator = torch.Generator().manual_seed(seed)
        self._rng = np.random.default_rng((seed, EXPLORATION_STREAM))

    def act(self, observation: np.ndarray[Any, Any]) -> Any:
        """One observation (F,) float or (H, W, C) uint8 to one action: int for Discrete, else an array."""
        if self.epsilon and self._rng.random() < self.epsilon:
            return self._plain(self.network.actions.uniform(self._rng))
        row = np.asarray(observation)[None]
        return self._plain(self.network.act(row, self._generator, self.greedy, self.temperature)[0])

    __call__ = act

    def _plain(self, action: Any) -> Any:
        return int(action) if self.network.actions.single else action

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_generator": self._generator.get_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._generator = torch.Generator()
        self._generator.set_state(state["_generator"])


class NetworkRows:
    """A policy network on several episodes side by side, a row each: one pass serves them all.

    A row acts as a `NetworkPolicy` that was reset with its seed, but for what a batch rounds differently.
    """

    def __init__(self, network: PolicyNetwork, *, greedy: bool = False) -> None:
        """greedy: the most probable actions."""
        self._network, self._greedy = network, greedy
        self._generators: list[torch.Generator] = []

    def reset(self, seeds: Sequence[int]) -> None:
        """Begin a new episode in each row."""
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def act(self, observations: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]) -> list[Any]:
        """The actions of the rows (P,) that still play: ints for Discrete, else arrays."""
        generators = [self._generators[row] for row in rows]
        actions = self._network.act(observations, generators, self._greedy)
        return actions.tolist() if self._network.actions.single else list(actions)
