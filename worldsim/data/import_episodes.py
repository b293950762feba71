"""From what others recorded to an episode store: Minari data sets, npz episodes, videos with actions."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tqdm import tqdm

from worldsim.data.episode import EnvSpec
from worldsim.data.files import explained
from worldsim.data.import_minari import data_folder, read_minari
from worldsim.data.import_npz import read_npz
from worldsim.data.import_videos import SUFFIXES, read_videos
from worldsim.data.recordings import ImportSettings, Source, to_episode
from worldsim.data.store import MANIFEST, EpisodeStore
from worldsim.errors import UserError

SHARD = "imported"


def import_episodes(
    source: str | Path, folder: Path, settings: ImportSettings, progress: bool = True
) -> tuple[EpisodeStore, list[str]]:
    """A new episode store in `folder` with all episodes of `source`, bit for bit unless `settings` scale the frames.

    source: a folder of npz episodes, of videos with action files, or of a Minari data set; or a Minari id. All or
    nothing: a source that cannot be read to its end leaves no store. Returns the store and what was inferred. Raises
    UserError.
    """
    _check(settings)
    with explained("import episodes", folder):
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty: expected a new folder for the imported episodes")
        opened = _open(source, settings)
        half = folder.with_name(folder.name + ".importing")
        shutil.rmtree(half, ignore_errors=True)
        try:
            _write(opened, half, settings, progress)
            if folder.exists():
                folder.rmdir()
            os.replace(half, folder)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    return EpisodeStore.open(folder), opened.remarks


def _open(source: str | Path, settings: ImportSettings) -> Source:
    folder = Path(source)
    if not folder.is_dir():
        if folder.exists():
            raise UserError(f"{source} is a file: expected a folder of recordings or the id of a Minari data set")
        return read_minari(str(source), settings)
    if (folder / MANIFEST).exists():
        raise UserError(f"{source} is an episode store already: use it as it is, with collect.source={source}")
    if (data_folder(folder) / "metadata.json").exists():
        return read_minari(folder, settings)
    suffixes = {path.suffix.lower() for path in folder.iterdir() if path.is_file()}
    has_npz, has_videos = ".npz" in suffixes, bool(suffixes & set(SUFFIXES))
    if has_npz and has_videos:
        raise UserError(
            f"{source} holds videos and npz files: expected one kind; import them from folders of their own"
        )
    if has_npz:
        return read_npz(folder, settings)
    if has_videos:
        return read_videos(folder, settings)
    kinds = f"npz episodes, videos ({', '.join(SUFFIXES)}) with npy or CSV actions, or a Minari data set"
    raise UserError(f"{source} holds 0 episodes: expected {kinds}; check the path")


def _write(opened: Source, folder: Path, settings: ImportSettings, progress: bool) -> None:
    store = EpisodeStore.create(folder, opened.spec)
    with store.writer(SHARD) as writer:
        recordings = tqdm(opened.recordings(), total=opened.count, desc="import", unit="episode", disable=not progress)
        for number, recording in enumerate(recordings):
            writer.append(to_episode(recording, number, opened.spec, settings))


def _check(settings: ImportSettings) -> None:
    if not 0 <= settings.held_out_fraction <= 0.5:
        raise UserError(f"held-out fraction {settings.held_out_fraction}: expected 0 to 0.5")
    if settings.size is not None and min(settings.size) < 1:
        raise UserError(f"size {settings.size[0]}x{settings.size[1]}: expected a height and a width of at least 1")


def has_real_env(spec: EnvSpec) -> bool:
    """Whether the episodes come from an env that can be made again: its configuration travelled with them."""
    return bool(spec.settings)
