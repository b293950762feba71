"""Episodes for other programs: Minari data sets and npz files. Importing them again gives the same bytes."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from worldsim.data.files import explained, write_json
from worldsim.data.import_minari import EPISODE_FIELDS, EPISODE_KEY, SPEC_KEY
from worldsim.data.recordings import DESCRIPTION
from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError


def export_minari(store: EpisodeStore, dataset_id: str, progress: bool = True) -> Path:
    """Writes the episodes as the Minari data set `dataset_id` into Minari's local folder; returns its folder.

    Frames are stored as they are, not as JPEG. What Minari has no place for (splits, tics, the environment's settings)
    goes into its metadata. All or nothing. Raises UserError for an id that Minari refuses or has already.
    """
    _check_not_empty(store)
    try:
        import gymnasium as gym
        import minari
        from minari.data_collector import EpisodeBuffer
    except ImportError as error:
        raise UserError('Minari is not installed; pip install "worldsim-rl[minari]"') from error
    if dataset_id in minari.list_local_datasets():
        raise UserError(f"Minari has a data set {dataset_id} already; choose another id or: minari delete {dataset_id}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of authors and scores, which episodes of ours do not have
            dataset = minari.create_dataset_from_buffers(
                dataset_id,
                [],
                observation_space=gym.spaces.Box(0, 255, store.spec.frame_shape, np.uint8),
                action_space=store.spec.gym_action_space(),
                description=f"Episodes of {store.spec.id}, exported by worldsim",
                data_format="hdf5",
                jpeg_encoding=False,
            )
    except (ValueError, AssertionError) as error:
        expected = "expected NAME-v0 or NAMESPACE/NAME-v0"
        raise UserError(f"Minari does not take the id {dataset_id!r} ({error}); {expected}, not used before") from error
    folder = Path(dataset.spec.data_path)
    try:
        dataset.storage.update_metadata({SPEC_KEY: json.dumps(store.spec.to_dict())})
        shape = store.spec.gym_action_space().shape or ()
        for episode in tqdm(store, desc="export", unit="episode", total=len(store), disable=not progress):
            buffer = EpisodeBuffer(
                seed=episode.seed,
                observations=episode.frames,
                actions=episode.actions.reshape(len(episode), *shape),
                rewards=episode.rewards,
                terminations=episode.terminated,
                truncations=episode.truncated,
            )
            dataset.update_dataset_from_buffer([buffer])
        notes = [{EPISODE_KEY + name: getattr(entry, name) for name in EPISODE_FIELDS} for entry in store.entries]
        dataset.storage.update_episode_metadata(notes)
    except BaseException:
        shutil.rmtree(folder.parent, ignore_errors=True)
        raise
    return folder.parent


def export_npz(store: EpisodeStore, folder: Path, progress: bool = True) -> Path:
    """Writes an npz file for each episode and `env.json` into `folder`, new or empty; returns it. Raises UserError."""
    _check_not_empty(store)
    with explained("export episodes", folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder} is not empty: expected a new folder for the exported episodes")
        write_json(folder / DESCRIPTION, store.spec.to_dict())
        for number, episode in enumerate(tqdm(store, desc="export", total=len(store), disable=not progress)):
            arrays: dict[str, Any] = vars(episode)
            np.savez_compressed(folder / f"episode_{number:06d}.npz", **arrays)
    return folder


def _check_not_empty(store: EpisodeStore) -> None:
    if not len(store):
        raise UserError(f"{store.folder} holds 0 episodes: nothing to export; collect or import some first")
