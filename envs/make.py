"""`make(config)`: any registered environment as (frame, action, reward) with frames of the wanted size."""

from __future__ import annotations

import difflib
import importlib
import warnings
from dataclasses import asdict, replace
from typing import Any

import gymnasium as gym
import numpy as np

from worldsim.envs.config import EnvConfig
from worldsim.envs.errors import UnusableEnvironmentError
from worldsim.envs.families import Family, family_of, name_of
from worldsim.envs.pictures import ArrayFrames, Frame, RenderedFrames, Source, find_picture
from worldsim.envs.wrappers import PixelEnv

DEFAULT_FRAMES_PER_SECOND = 30.0  # for environments that do not state theirs


def make(config: EnvConfig) -> gym.Env[Frame, Any]:
    """The environment of `config` with observations uint8 (frame_height, frame_width, 1 or 3).

    Deterministic under `reset(seed=...)` as far as the simulator is. Raises UnusableEnvironmentError.
    """
    _check_numbers(config)
    family = family_of(config.id)
    env = _make_simulator(config, family)
    try:
        return _wrap(env, config, family)
    except BaseException:
        env.close()
        raise


def describe(env: gym.Env[Any, Any], config: EnvConfig) -> dict[str, Any]:
    """The facts that a data set and a model keep about an environment made by `make(config)`, as plain values.

    `env` may be wrapped further: the facts are those of the pixel environment inside. TypeError if there is none.
    """
    while not isinstance(env, PixelEnv):
        if not isinstance(env, gym.Wrapper):
            raise TypeError(f"describe() takes an environment made by worldsim.envs.make(), not {env}")
        env = env.env
    family = family_of(config.id)
    shape = env.observation_space.shape or ()
    return {
        "id": config.id,
        "settings": asdict(config),
        "frame_shape": tuple(int(size) for size in shape),
        "action_space": _describe_actions(env.action_space),
        "action_meanings": _action_meanings(env, config, family),
        "frames_per_second": float(env.metadata["render_fps"]),
        "max_episode_steps": _max_episode_steps(env, family),
        "blank_terminal_frame": bool(family and family.blank_terminal_frame),
    }


def tics_per_second(env: gym.Env[Any, Any], config: EnvConfig) -> float | None:
    """Underlying steps in a second of play, of a simulator or of what `make(config)` made; None where nobody says."""
    if isinstance(env, PixelEnv):
        return tics_per_second(env.env, config)
    family = family_of(config.id)
    stated = family.tics_per_second(env) if family and family.tics_per_second else env.metadata.get("render_fps")
    return float(stated) if stated else None


def telling(config: EnvConfig) -> EnvConfig | None:
    """The same environment, such that `read_state` can tell its true state; None where its simulator does not."""
    family = family_of(config.id)
    if family is None or family.read_state is None:
        return None
    return replace(config, kwargs={**config.kwargs, **family.state_kwargs})


def read_state(env: gym.Env[Any, Any], config: EnvConfig) -> dict[str, float]:
    """The true state of an environment made by `make(telling(config))` as named numbers, NaN for what is not there."""
    family = family_of(config.id)
    if family is None or family.read_state is None:
        raise UnusableEnvironmentError(f"{config.id} does not tell its state: expected an id for which telling() does")
    return family.read_state(env)


def _check_numbers(config: EnvConfig) -> None:
    for name in ("frame_height", "frame_width", "frame_skip"):
        value = getattr(config, name)
        if not _is_integer(value, least=1):
            raise UnusableEnvironmentError(f"{name}={value!r}: expected an integer of at least 1")
    if config.max_episode_tics is not None and not _is_integer(config.max_episode_tics, least=0):
        raise UnusableEnvironmentError(
            f"max_episode_tics={config.max_episode_tics!r}: expected None, 0 (no cap) or a positive integer"
        )


def _is_integer(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _make_simulator(config: EnvConfig, family: Family | None) -> gym.Env[Any, Any]:
    for module in family.modules if family else ():
        try:
            importlib.import_module(module)
        except ImportError as error:
            assert family is not None
            raise _missing_extra(config.id, module, family) from error
    if family and family.prepare:
        family.prepare()
    if "render_mode" in config.kwargs:
        raise UnusableEnvironmentError("kwargs.render_mode: pictures are always made with render_mode=rgb_array")
    for name, setting in (family.reserved_kwargs if family else {}).items():
        if name in config.kwargs:
            raise UnusableEnvironmentError(f"kwargs.{name}: use the setting {setting} instead")
    kwargs = {"render_mode": "rgb_array", **config.kwargs}
    try:
        return _made(config.id, kwargs)
    except (gym.error.UnregisteredEnv, gym.error.DeprecatedEnv) as error:
        raise UnusableEnvironmentError(_unknown(config.id)) from error
    except gym.error.DependencyNotInstalled as error:
        raise UnusableEnvironmentError(f"{config.id} needs a package that is not installed: {error}") from error
    except ImportError as error:
        raise UnusableEnvironmentError(f"{config.id}: a module cannot be imported: {error}") from error
    except (gym.error.Error, TypeError, ValueError, RuntimeError) as error:
        raise UnusableEnvironmentError(f"{config.id} could not be made with kwargs {kwargs}: {error}") from error


def _made(env_id: str, kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
    try:
        with warnings.catch_warnings():
            # An env that cannot render may show a picture all the same, or it is refused in one line (`_source`).
            warnings.filterwarnings("ignore", message=".*not in the possible render_modes")
            return gym.make(env_id, disable_env_checker=True, **kwargs)
    except TypeError as error:
        if "unexpected keyword argument 'render_mode'" not in str(error):
            raise
    del kwargs["render_mode"]  # it has nothing to render; its observation may be a picture all the same
    return gym.make(env_id, disable_env_checker=True, **kwargs)


def _wrap(env: gym.Env[Any, Any], config: EnvConfig, family: Family | None) -> PixelEnv:
    _check_actions(env.action_space, config)
    if family and family.wrap:
        env = family.wrap(env)
    source = _source(env, config, family)
    default_cap = family.max_episode_tics.get(name_of(config.id)) if family else None
    cap = default_cap if config.max_episode_tics is None else config.max_episode_tics
    rate = tics_per_second(env, config) or DEFAULT_FRAMES_PER_SECOND
    return PixelEnv(
        env,
        source,
        frame_size=(config.frame_height, config.frame_width),
        grayscale=config.grayscale,
        crop=_default_crop(env, family, source) if config.crop is None else _crop(config.crop, source.size),
        frame_skip=config.frame_skip,
        max_episode_tics=cap or None,
        frames_per_second=rate / config.frame_skip,
    )


def _source(env: gym.Env[Any, Any], config: EnvConfig, family: Family | None) -> Source:
    if config.image != "render":
        found = find_picture(env.observation_space, config.image)
        if found is not None:
            return ArrayFrames(*found)
        if config.image != "auto":
            raise UnusableEnvironmentError(
                f"{config.id}: the observation {env.observation_space} holds no picture; try image=render"
            )
        drawn = family.source(env) if family and family.source else None
        if drawn is not None:
            return drawn
    if "rgb_array" not in env.metadata.get("render_modes", []) or env.render_mode != "rgb_array":
        raise UnusableEnvironmentError(
            f"{config.id} shows no picture: its observation is {env.observation_space} and it cannot render rgb_array; "
            "give the env that render mode, or observations that are uint8 pixels (H, W, 1 or 3)"
        )
    return RenderedFrames(env)


def _default_crop(env: gym.Env[Any, Any], family: Family | None, source: Source) -> tuple[int, int, int, int] | None:
    if family is None or family.crop is None or isinstance(source, ArrayFrames):
        return None
    return family.crop(env)


def _crop(crop: list[int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    height, width = size
    if len(crop) != 4:
        raise UnusableEnvironmentError(f"crop={list(crop)}: expected [top, bottom, left, right]")
    top, bottom, left, right = crop
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise UnusableEnvironmentError(
            f"crop={list(crop)}: expected 0 <= top < bottom <= {height} and 0 <= left < right <= {width}"
        )
    return top, bottom, left, right


def _check_actions(space: gym.Space[Any], config: EnvConfig) -> None:
    if isinstance(space, gym.spaces.Discrete):
        return
    if isinstance(space, gym.spaces.MultiDiscrete | gym.spaces.MultiBinary) and len(space.shape) == 1:
        return
    if isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating) and len(space.shape) == 1:
        return
    raise UnusableEnvironmentError(
        f"{config.id}: action space {space} is not supported, expected Discrete, or a MultiDiscrete, MultiBinary or "
        "float Box of one dimension; convert it in a gymnasium.ActionWrapper"
    )


def _describe_actions(space: gym.Space[Any]) -> dict[str, Any]:
    if isinstance(space, gym.spaces.Discrete):
        return {"type": "discrete", "n": int(space.n)}
    if isinstance(space, gym.spaces.MultiDiscrete):
        return {"type": "multi_discrete", "nvec": space.nvec.tolist()}
    if isinstance(space, gym.spaces.MultiBinary):
        return {"type": "multi_binary", "n": int(space.shape[0])}
    assert isinstance(space, gym.spaces.Box)
    return {"type": "box", "shape": list(space.shape), "low": space.low.tolist(), "high": space.high.tolist()}


def _action_meanings(env: PixelEnv, config: EnvConfig, family: Family | None) -> list[str]:
    space = env.action_space
    count = int(space.n) if isinstance(space, gym.spaces.Discrete) else int(np.prod(space.shape or ()))
    known: list[str] | None = None
    if family and family.read_action_meanings:
        known = family.read_action_meanings(env)
    elif family:
        known = family.action_meanings.get((name_of(config.id), count))
    if known is None and hasattr(env.unwrapped, "get_action_meanings"):  # Atari
        known = [str(name).lower() for name in env.unwrapped.get_action_meanings()]
    if known is not None and len(known) == count:
        return list(known)
    return [f"action {index}" for index in range(count)]


def _max_episode_steps(env: PixelEnv, family: Family | None) -> int | None:
    """In agent steps: the smallest of our cap, the registered time limit and the simulator's own."""
    limits = [env.max_episode_tics, env.spec.max_episode_steps if env.spec else None]
    if family and family.episode_steps:
        limits.append(family.episode_steps(env))
    tics = min((limit for limit in limits if limit), default=None)
    return None if tics is None else -(-tics // env.frame_skip)


def _missing_extra(env_id: str, module: str, family: Family) -> UnusableEnvironmentError:
    return UnusableEnvironmentError(
        f'{env_id} needs the package {module!r}, which cannot be imported; pip install "worldsim-rl[{family.extra}]"'
    )


def _unknown(env_id: str) -> str:
    ids = sorted(gym.registry)
    lower = {name.lower(): name for name in ids}
    nearest = difflib.get_close_matches(env_id.lower(), lower, n=1, cutoff=0.4)
    hint = f"did you mean {lower[nearest[0]]!r}?" if nearest else "expected a registered Gymnasium id."
    if ":" not in env_id:
        hint += f" An id of your own: module:{env_id} imports the module"
    return f"environment id {env_id!r} is not registered; {hint}"
