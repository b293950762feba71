"""Minari data sets whose observations are pictures, or hold one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from worldsim.data.episode import EnvSpec
from worldsim.data.recordings import ImportSettings, Recording, Source
from worldsim.errors import UserError

SPEC_KEY = "worldsim_spec"  # what `export_minari` leaves in a data set: JSON of the EnvSpec
EPISODE_KEY = "worldsim_"  # begins the names of what it leaves with each episode
EPISODE_FIELDS = ("seed", "policy", "split", "tics", "round")
FRAMES_PER_SECOND = 30.0  # where the data set names no environment that states its rate


def read_minari(id_or_folder: str | Path, settings: ImportSettings) -> Source:
    """A Minari data set by its id, from Minari's local folder, or the folder of one.

    Pictures are the observation itself or the one entry of a Dict that is a picture. Raises UserError where there is
    none, and where Minari is not installed or knows no such data set.
    """
    dataset = _open(id_or_folder)
    if not dataset.total_episodes:
        raise UserError(f"{id_or_folder} holds 0 episodes; expected at least one, download the data set again")
    key = _picture_key(dataset.observation_space, str(id_or_folder))
    kept = dataset.storage.metadata.get(SPEC_KEY)
    remarks: list[str] = []
    if kept is not None:
        spec = EnvSpec.from_dict(json.loads(kept))
    else:
        spec, remarks = _spec(dataset, key)
    if settings.size is not None:
        frame_shape = [*settings.size, spec.frame_shape[2]]  # no longer those that the env of its settings shows
        spec = EnvSpec.from_dict({**spec.to_dict(), "frame_shape": frame_shape, "settings": {}})
    start = int(dataset.action_space.start) if isinstance(dataset.action_space, gym.spaces.Discrete) else 0
    return Source(spec, int(dataset.total_episodes), partial(_recordings, dataset, key, start), remarks)


def _recordings(dataset: Any, key: str | None, start: int) -> Iterator[Recording]:
    notes = dataset.storage.get_episode_metadata(dataset.episode_indices)
    for episode, about in zip(dataset.iterate_episodes(), notes, strict=True):
        frames = episode.observations if key is None else episode.observations[key]
        kept = {name: about.get(EPISODE_KEY + name) for name in EPISODE_FIELDS}
        kept = {name: value.item() if isinstance(value, np.generic) else value for name, value in kept.items()}
        if kept["seed"] is None and about.get("seed") is not None:
            kept["seed"] = int(about["seed"])
        yield Recording(
            f"episode {episode.id}",
            np.asarray(frames),
            np.asarray(episode.actions) - start if start else np.asarray(episode.actions),
            episode.rewards,
            episode.terminations,
            episode.truncations,
            **kept,
        )


def _open(id_or_folder: str | Path) -> Any:
    try:
        import minari
    except ImportError as error:
        raise UserError(f'{id_or_folder}: Minari is not installed; pip install "worldsim-rl[minari]"') from error
    try:
        if Path(id_or_folder).is_dir():
            return minari.MinariDataset(data_folder(Path(id_or_folder)))
        return minari.load_dataset(str(id_or_folder))
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"{id_or_folder} is neither a folder of recordings nor a local Minari data set ({error}); check the path, "
            f"or fetch it with: minari download {id_or_folder}"
        ) from error


def data_folder(folder: Path) -> Path:
    """Where Minari's files lie in the folder of a data set: in `data`, unless that is it."""
    return folder / "data" if (folder / "data" / "metadata.json").exists() else folder


def _picture_key(space: gym.Space[Any], name: str) -> str | None:
    """The entry of the observations that is a picture; None if they are pictures themselves."""
    if _is_picture(space):
        return None
    keys = (
        [key for key, entry in space.spaces.items() if _is_picture(entry)] if isinstance(space, gym.spaces.Dict) else []
    )
    if len(keys) != 1:
        raise UserError(
            f"{name}: observations are {space}, expected uint8 pictures (H, W, C) or a Dict with one of them"
        )
    return str(keys[0])


def _is_picture(space: gym.Space[Any]) -> bool:
    shape = space.shape or ()
    return space.dtype == np.uint8 and (len(shape) == 2 or (len(shape) == 3 and shape[-1] in (1, 3)))


def _spec(dataset: Any, key: str | None) -> tuple[EnvSpec, list[str]]:
    """The environment as far as a data set of others tells, and what had to be inferred."""
    space = dataset.observation_space if key is None else dataset.observation_space[key]
    steps = [int(about["total_steps"]) for about in dataset.storage.get_episode_metadata(dataset.episode_indices)]
    env_spec = dataset.spec.env_spec
    limit = env_spec.max_episode_steps if env_spec is not None else None
    actions = _describe_actions(dataset.action_space, dataset.id)
    count = actions["n"] if actions["type"] == "discrete" else int(np.prod(actions["shape"]))
    height, width = space.shape[:2]
    spec = EnvSpec(
        id=env_spec.id if env_spec is not None else dataset.id,
        settings={},
        frame_shape=(height, width, space.shape[2] if len(space.shape) > 2 else 1),
        action_space=actions,
        action_meanings=[f"action {index}" for index in range(count)],
        frames_per_second=FRAMES_PER_SECOND,
        max_episode_steps=limit or max(steps),
        blank_terminal_frame=False,
    )
    said = f"{FRAMES_PER_SECOND:g} frames a second"
    return spec, [said if limit else f"{said}; episodes end after {max(steps)} steps, the longest there is"]


def _describe_actions(space: gym.Space[Any], name: str) -> dict[str, Any]:
    if isinstance(space, gym.spaces.Discrete):
        return {"type": "discrete", "n": int(space.n)}
    if isinstance(space, gym.spaces.Box):
        low, high = (np.asarray(bound, np.float32).reshape(-1).tolist() for bound in (space.low, space.high))
        return {"type": "box", "shape": [len(low)], "low": low, "high": high}
    raise UserError(f"{name}: action space {space}, expected Discrete or Box")
