"""Facts about families of environments that Gymnasium does not tell: extras, crops, caps, what the actions mean.

Everything that is true of one simulator only lives here or in the simulator's own module (`doom.py`, `cartpole.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym

from worldsim.envs import cartpole, doom, minatar, mujoco
from worldsim.envs.pictures import Source

# Whole names: somebody's AntFarm has nothing to do with MuJoCo.
CLASSIC_CONTROL = ("Acrobot", "MountainCar", "MountainCarContinuous", "Pendulum")
BOX2D = ("BipedalWalker", "BipedalWalkerHardcore", "CarRacing", "LunarLander", "LunarLanderContinuous")
MUJOCO = (
    "Ant",
    "HalfCheetah",
    "Hopper",
    "Humanoid",
    "HumanoidStandup",
    "InvertedDoublePendulum",
    "InvertedPendulum",
    "Pusher",
    "Reacher",
    "Swimmer",
    "Walker2d",
)


@dataclass(frozen=True)
class Family:
    """What is known about the environments whose id starts with one of `prefixes`."""

    name: str
    prefixes: tuple[str, ...]
    extra: str | None = None
    """The extra of `worldsim-rl` that installs the simulator."""
    modules: tuple[str, ...] = ()
    """Modules that must be importable; importing them registers the ids where Gymnasium does not."""
    prepare: Callable[[], None] | None = None
    """Called before the simulator is made: registers the ids where importing does not, or chooses its OpenGL."""
    crop: Callable[[gym.Env[Any, Any]], tuple[int, int, int, int] | None] | None = None
    """Which part of what is drawn (top, bottom, left, right) is worth looking at, where settings name none; an
    observation that is a picture is taken whole.
    """
    max_episode_tics: dict[str, int] = field(default_factory=dict)
    action_meanings: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    """By id and number of actions (Discrete) or of parts (all other spaces)."""
    reserved_kwargs: dict[str, str] = field(default_factory=dict)
    """Arguments of the simulator that would work against ours, and the setting to use instead."""
    blank_terminal_frame: bool = False
    wrap: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]] | None = None
    """A wrapper around the simulator, below frame skip and pictures."""
    source: Callable[[gym.Env[Any, Any]], Source | None] | None = None
    """Pictures for environments whose `render()` is slow or needs more packages; `image=render` goes around it. None
    for an environment that draws itself in another way."""
    read_action_meanings: Callable[[gym.Env[Any, Any]], list[str] | None] | None = None
    episode_steps: Callable[[gym.Env[Any, Any]], int | None] | None = None
    """The simulator's own time limit in underlying steps, where the registration does not state it."""
    tics_per_second: Callable[[gym.Env[Any, Any]], float | None] | None = None
    """Underlying steps in a second of play, where the metadata do not tell."""
    read_state: Callable[[gym.Env[Any, Any]], dict[str, float]] | None = None
    """The simulator's true state as named numbers (NaN: not there at the moment), after `reset` or `step`."""
    state_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of the simulator without which `read_state` would not see everything."""


def _versions(names: tuple[str, ...]) -> tuple[str, ...]:
    """The beginnings of the ids of all versions of these environments and of no others."""
    return tuple(f"{name}-v" for name in names)


def _minigrid_meanings(env: gym.Env[Any, Any]) -> list[str] | None:
    actions = getattr(env.unwrapped, "actions", None)
    return None if actions is None else [action.name for action in actions]


def _minigrid_steps(env: gym.Env[Any, Any]) -> int | None:
    return getattr(env.unwrapped, "max_steps", None)


def _atari_tics_per_second(env: gym.Env[Any, Any]) -> float | None:
    """60 pictures a second by the frame skip of its own (its metadata say 30, whatever that is)."""
    skip = (env.spec.kwargs if env.spec else {}).get("frameskip", 1)
    if isinstance(skip, tuple | list):  # drawn from low to high - 1
        low, high = skip
        return 60 / ((low + high - 1) / 2)
    return 60 / skip


FAMILIES: tuple[Family, ...] = (
    Family(
        name="ViZDoom",
        prefixes=("Vizdoom",),
        extra="vizdoom",
        modules=("vizdoom", "vizdoom.gymnasium_wrapper"),
        max_episode_tics={"VizdoomTakeCover-v1": 2100},
        reserved_kwargs={"frame_skip": "frame_skip", "max_episode_steps": "max_episode_tics"},
        blank_terminal_frame=True,
        wrap=doom.DoomWrapper,
        read_action_meanings=doom.action_meanings,
        episode_steps=doom.episode_tics,
        read_state=doom.read_state,
        state_kwargs=doom.STATE_KWARGS,
    ),
    Family(
        name="CartPole",
        prefixes=_versions(("CartPole",)),
        extra="classic",
        modules=("pygame",),
        crop=cartpole.crop_of,
        action_meanings={("CartPole-v0", 2): ["left", "right"], ("CartPole-v1", 2): ["left", "right"]},
        source=cartpole.frames_of,
        read_state=cartpole.read_state,
    ),
    Family(
        name="classic control",
        prefixes=_versions(CLASSIC_CONTROL),
        extra="classic",
        modules=("pygame",),
        action_meanings={
            ("Acrobot-v1", 3): ["torque -1", "torque 0", "torque +1"],
            ("MountainCar-v0", 3): ["left", "noop", "right"],
            ("MountainCarContinuous-v0", 1): ["force"],
            ("Pendulum-v1", 1): ["torque"],
        },
    ),
    Family(
        name="Box2D",
        prefixes=_versions(BOX2D),
        extra="box2d",
        modules=("Box2D", "pygame"),
        # The lowest 12 rows of CarRacing are its indicator bar: they show the speed, so they stay in the picture.
        action_meanings={
            ("CarRacing-v3", 3): ["steer", "gas", "brake"],
            ("CarRacing-v3", 5): ["noop", "right", "left", "gas", "brake"],
            ("LunarLander-v3", 4): ["noop", "left engine", "main engine", "right engine"],
        },
    ),
    Family(
        name="MinAtar",
        prefixes=("MinAtar/",),
        extra="minatar",
        modules=("minatar",),
        prepare=minatar.register,
        read_action_meanings=minatar.action_meanings,
        source=minatar.MinAtarFrames,
    ),
    Family(
        name="Atari",
        prefixes=("ALE/",),
        extra="atari",
        modules=("ale_py",),
        tics_per_second=_atari_tics_per_second,
    ),
    Family(
        name="MiniGrid",
        prefixes=("MiniGrid-", "BabyAI-"),
        extra="minigrid",
        modules=("minigrid",),
        # Its observation is an encoding of objects; pictures come from render(), all of the grid or, with
        # kwargs={agent_pov: true}, what the agent sees.
        read_action_meanings=_minigrid_meanings,
        episode_steps=_minigrid_steps,
    ),
    Family(
        name="MuJoCo",
        prefixes=_versions(MUJOCO),
        extra="mujoco",
        modules=("mujoco",),
        prepare=mujoco.prepare,
        wrap=mujoco.set_up_pictures,
    ),
)


def family_of(env_id: str) -> Family | None:
    """The first family one of whose prefixes starts the id (after `module:`), or None."""
    name = name_of(env_id)
    for family in FAMILIES:
        if name.startswith(family.prefixes) or f"{name}-v" in family.prefixes:  # Gymnasium takes the newest version
            return family
    return None


def name_of(env_id: str) -> str:
    """The id without the `module:` that registers it."""
    return env_id.rsplit(":", 1)[-1]
