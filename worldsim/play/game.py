"""What all viewers share: the frozen model, its policy, and which real env to put beside its dreams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldsim import envs
from worldsim.agents.networks import PolicyNetwork
from worldsim.envs.errors import UnusableEnvironmentError
from worldsim.errors import UserError
from worldsim.model_folder import find_model
from worldsim.play.beside_real import BesideReal
from worldsim.play.controls import controls
from worldsim.play.session import Session
from worldsim.workflow.policies import act_in_dream, is_greedy, load_fitting_policy
from worldsim.workflow.reality import env_config
from worldsim.workflow.showing import load_here
from worldsim.world_model import WorldModel


@dataclass(frozen=True)
class Game:
    """policy: None for a model without one. make_real: makes the real env, None to play without."""

    name: str
    model: WorldModel
    policy: PolicyNetwork | None = None
    greedy: bool = False
    make_real: Callable[[], Any] | None = None

    @property
    def sampling_steps(self) -> list[int]:
        """The denoising steps to choose from, the fewest first."""
        return list(self.model.dynamics.sampling_choices)

    def new_session(self, seed: int) -> Session:
        """A dream of one viewer's own."""
        act = None if self.policy is None else act_in_dream(self.policy, seed, self.greedy)
        real = None if self.make_real is None else BesideReal(self.make_real())
        return Session(self.model, seed=seed, act=act, real=real)

    def introduction(self) -> dict[str, Any]:
        """What the page must know before the first frame, as plain data."""
        spec = self.model.spec
        return {
            "type": "hello",
            "model": self.name,
            "env": spec.id,
            "height": spec.frame_shape[0],
            "width": spec.frame_shape[1],
            "frames_per_second": spec.frames_per_second,
            "controls": controls(spec),
            "sampling_steps": self.sampling_steps,
            "has_policy": self.policy is not None,
            "beside_real": self.make_real is not None,
        }


def load_game(name_or_folder: str, *, beside_real: bool) -> Game:
    """The game of a released model, a model folder or a run folder.

    Raises UserError if there is no such model, or if its real env is wanted and cannot be made here.
    """
    folder = find_model(name_or_folder)
    model = load_here(folder)
    policy_folder = folder / "policy"
    has_policy = policy_folder.is_dir()
    return Game(
        Path(name_or_folder).resolve().name if Path(name_or_folder).is_dir() else folder.name,
        model,
        load_fitting_policy(policy_folder, model) if has_policy else None,
        is_greedy(policy_folder) if has_policy else False,
        _real_maker(model, folder) if beside_real else None,
    )


def _real_maker(model: WorldModel, folder: Path) -> Callable[[], Any]:
    try:
        config = env_config(model.spec, folder)
        envs.make(config).close()
    except UnusableEnvironmentError as error:
        raise UserError(f"--beside-real: {error}; or play without it") from None
    return lambda: envs.make(config)
