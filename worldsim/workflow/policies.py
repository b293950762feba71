"""Policies that look at the real env through a world model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from worldsim.agents.actions import Categorical, MultiCategorical
from worldsim.agents.networks import PolicyNetwork
from worldsim.agents.policies import NetworkRows
from worldsim.agents.policy_io import load_policy, load_value, read_policy_config
from worldsim.errors import UserError
from worldsim.evaluation.panel import Think, Thoughts
from worldsim.model_folder import load_model
from worldsim.observations import observation_space
from worldsim.rollouts import Action
from worldsim.scripted_policies import NOISE_STREAM, StickyRandom
from worldsim.workflow.watching import StackWatcher, Watcher
from worldsim.world_model import WorldModel, row_generator

# Episodes that a worker plays at once: each has an env of its own, and an engine may take a hundred megabytes.
SIDE_BY_SIDE = 16


class ObservationPolicy(Protocol):
    """Whatever turns a dream's observation into an action. What it does may depend only on seed and observations."""

    def reset(self, seed: int) -> None:
        """Begins a new episode."""

    def act(self, observation: NDArray[Any]) -> Action:
        """The action after the observation of one row."""


class ObservationRows(Protocol):
    """The same for several episodes side by side, a row each."""

    def reset(self, seeds: Sequence[int]) -> None:
        """Begins a new episode in each row."""

    def act(self, observations: NDArray[Any], rows: NDArray[np.int64]) -> Sequence[Action]:
        """The actions of the rows (P,), ascending, that still play, after their observations (P, ...)."""


class EachRow:
    """An `ObservationPolicy` of its own in each row, as `ObservationRows`."""

    def __init__(self, make_policy: Callable[[], ObservationPolicy]) -> None:
        """make_policy: called once for each episode."""
        self._make_policy = make_policy
        self._policies: list[ObservationPolicy] = []

    def reset(self, seeds: Sequence[int]) -> None:
        """Begin a new episode in each row."""
        self._policies = [self._make_policy() for _ in seeds]
        for policy, seed in zip(self._policies, seeds, strict=True):
            policy.reset(seed)

    def act(self, observations: NDArray[Any], rows: NDArray[np.int64]) -> list[Action]:
        """The actions of the rows (P,) that still play."""
        return [self._policies[row].act(observation) for row, observation in zip(rows, observations, strict=True)]


class DreamTrainedPolicy:
    """A `BatchPolicy` on what agents of a dream read, fed from real frames by the world model.

    noise: share of steps on which a sticky random action replaces the policy's, for collection. noise_steps: mean
    length of the spells in which they come.
    """

    def __init__(
        self,
        model: WorldModel,
        policy: ObservationRows,
        *,
        noise: float = 0.0,
        noise_steps: float = 1.0,
        name: str = "dream-trained",
    ) -> None:
        self.name = name
        self._model, self._policy = model, policy
        self._noise, self._noise_steps = noise, noise_steps
        self._rows: list[_Row] = []
        self._watcher = StackWatcher(model) if model.agent_observation == "frame_stack" else Watcher(model)

    def reset(self, seeds: Sequence[int]) -> None:
        """Begin a new episode in each row; all that is random in it follows from its seed."""
        space = self._model.spec.gym_action_space()
        self._rows = [_Row(seed, space, self._noise, self._noise_steps) for seed in seeds]
        self._policy.reset(seeds)
        self._watcher.reset()

    def __call__(self, frames: NDArray[np.uint8], rows: NDArray[np.int64]) -> list[Action]:
        """The actions of the rows (P,) that still play, ascending, after their real frames (P, H, W, C)."""
        playing = [self._rows[row] for row in rows]
        taken = np.stack([np.asarray(row.action) for row in playing])
        observations = self._watcher.observe(frames, rows, [row.generator for row in playing], taken)
        each = zip(playing, self._policy.act(observations, rows), frames, strict=True)
        return [row.choose(action, frame) for row, action, frame in each]


class _Row:
    """What an episode's noise is drawn from, and the last of its actions."""

    def __init__(self, seed: int, space: gym.Space[Any], noise: float, noise_steps: float) -> None:
        self.generator = row_generator(seed)
        self.action: Action = 0
        self._random_policy = StickyRandom(space, "mixed")
        self._random_policy.reset(seed)
        self._random = np.random.default_rng((seed, NOISE_STREAM))
        self._in_spell = False
        # How likely a spell begins where none goes on (one may follow another at once), so that their share is `noise`.
        self._begins = noise / (noise_steps * (1 - noise) + noise)
        self._goes_on = 1 - (1 - self._begins) / noise_steps

    def choose(self, action: Action, frame: NDArray[np.uint8]) -> Action:
        """The policy's action or a random one."""
        random_action = self._random_policy(frame)
        self._in_spell = self._random.random() < (self._goes_on if self._in_spell else self._begins)
        self.action = random_action if self._in_spell else action
        return self.action


def load_dream_trained(
    model_folder: Path | str,
    policy_folder: Path | str,
    *,
    greedy: bool = False,
    noise: float = 0.0,
    noise_steps: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> DreamTrainedPolicy:
    """The policy in `policy_folder` on the world model in `model_folder`; for worker processes.

    Raises UserError if the two do not belong together.
    """
    model = load_model(model_folder, dtype=dtype)
    network = load_fitting_policy(Path(policy_folder), model)
    return DreamTrainedPolicy(model, NetworkRows(network, greedy=greedy), noise=noise, noise_steps=noise_steps)


def load_fitting_policy(policy_folder: Path, model: WorldModel) -> PolicyNetwork:
    """The policy in `policy_folder`, on the device of `model`. Raises UserError if it reads other things than its
    agents do.
    """
    network = load_policy(policy_folder, model.device)
    shown = observation_space(model, model.agent_observation).shape
    if network.spec.observation_shape != shown:
        raise UserError(
            f"the policy in {policy_folder} reads observations of shape {network.spec.observation_shape}, those of its "
            f"world model have {shown}: train a policy in its dream with `worldsim run`"
        )
    return network


def is_greedy(policy_folder: Path | str) -> bool:
    """Whether the saved policy is to be judged by its most likely actions, as its notes say."""
    return bool(read_policy_config(Path(policy_folder))["notes"].get("greedy", False))


def thinking_agent(policy_folder: Path | str, model: WorldModel, seed: int) -> Think:
    """The policy saved for `model`, greedy if its notes say so, with what it thinks: for videos.

    Draws from a random state of its own where it is not greedy.
    """
    folder = Path(policy_folder)
    network, value = load_fitting_policy(folder, model), load_value(folder, model.device)
    greedy, generator = is_greedy(folder), torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def think(observations: NDArray[Any]) -> Thoughts:
        inputs = network.inputs(torch.as_tensor(observations).to(model.device))
        distribution = network.distribution(inputs)
        if isinstance(distribution, Categorical):
            shares = distribution.log_probs.exp()
        elif isinstance(distribution, MultiCategorical):
            shares = torch.stack([_expected_choice(part.log_probs.exp()) for part in distribution.parts], -1)
        else:
            shares = (torch.tanh(distribution.mean) + 1) / 2  # from bound to bound
        return Thoughts(
            actions=network.act(observations, generator, greedy),
            shares=shares.double().cpu().numpy(),
            values=None if value is None else value(inputs).double().cpu().numpy(),
        )

    return think


def _expected_choice(probabilities: torch.Tensor) -> torch.Tensor:
    """Of probabilities (B, n) the expected index, from 0 for the first to 1 for the last, (B,)."""
    count = probabilities.shape[-1]
    return (probabilities * torch.arange(count, device=probabilities.device)).sum(-1) / max(1, count - 1)


def act_in_dream(network: PolicyNetwork, seed: int, greedy: bool = False) -> Any:
    """`network` as a callable on batches of dream observations, with a random state of its own."""
    generator = torch.Generator().manual_seed(seed)

    def act(observations: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(network.act(observations, generator, greedy))

    return act
