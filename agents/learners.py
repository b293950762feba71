"""Learners by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from worldsim.agents.actor_critic import ActorCriticLearner
from worldsim.agents.cma_es import CmaEsLearner, import_cma
from worldsim.agents.config import AgentConfig, check_cma_es, check_config, check_dagger
from worldsim.agents.dagger import DaggerLearner
from worldsim.agents.errors import AgentConfigError
from worldsim.agents.networks import PolicyNetwork
from worldsim.agents.rollout import Envs
from worldsim.agents.values import ValueNetwork


class AgentLearner(Protocol):
    """Makes `policy` better with every `update`; see ActorCriticLearner for what each method does.

    value: what it expects of an observation, None for a learner that expects nothing.
    """

    policy: PolicyNetwork

    @property
    def value(self) -> ValueNetwork | None:
        """The value network that learns with the policy."""

    def begin_with(self, state: Mapping[str, Any]) -> None:
        """Start from what an earlier learner of this kind had learnt, its `state_dict()`."""

    def update(self) -> dict[str, float]:
        """One training step; returns metrics."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next update depends on."""

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """The inverse of `state_dict`."""


def _cma_es(
    config: AgentConfig, envs: Envs, seed: int, _device: torch.device | str, _dtype: torch.dtype
) -> AgentLearner:
    return CmaEsLearner(config.cma_es, envs, seed)  # a linear controller: its products are too small for a GPU


LEARNERS: dict[str, Callable[[AgentConfig, Envs, int, torch.device | str, torch.dtype], AgentLearner]] = {
    "actor_critic": ActorCriticLearner,
    "cma_es": _cma_es,
    "dagger": DaggerLearner,
}


def check_agent(config: AgentConfig, num_envs: int) -> None:
    """Raise AgentConfigError for the first setting outside its range, or for a package that the kind needs."""
    if config.kind not in LEARNERS:
        raise AgentConfigError(f"kind must be one of {', '.join(LEARNERS)}, got '{config.kind}'.")
    if config.kind == "cma_es":
        check_cma_es(config.cma_es, num_envs)
        import_cma()
    else:
        check_config(config)
        check_dagger(config.dagger)


def build_learner(
    config: AgentConfig,
    envs: Envs,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> AgentLearner:
    """The learner that `config.kind` names. Raises AgentConfigError and UnusableSpaceError as it does.

    device: of its networks, but for CMA-ES, whose linear controllers stay on the CPU. dtype: in which it
    convolves pictures.
    """
    check_agent(config, envs.num_envs)
    return LEARNERS[config.kind](config, envs, seed, device, dtype)
