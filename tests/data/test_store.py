from __future__ import annotations

import errno
import os
import pickle
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.counting import assert_same, contents, episode, fill, read_picture, spec
from worldsim.data import shards
from worldsim.data.shards import COMPRESSIONS
from worldsim.data.store import EpisodeStore, open_or_create
from worldsim.errors import UserError

EPISODES = [episode(1, 3), episode(2, 40, terminated=False, split="held_out"), episode(3, 15), episode(4, 1)]


@pytest.fixture(params=COMPRESSIONS)
def store(tmp_path: Path, request: pytest.FixtureRequest) -> EpisodeStore:
    return EpisodeStore.create(tmp_path / "store", spec(), request.param)


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_episodes_come_back_as_they_were(tmp_path: Path, box: bool, compression: str) -> None:
    store = EpisodeStore.create(tmp_path / "store", spec(box), compression)
    originals = [replace(one, actions=episode(one.seed, len(one), box=box).actions) for one in EPISODES]
    fill(store, "a", *originals)
    reopened = EpisodeStore.open(tmp_path / "store")
    assert reopened.spec == spec(box)
    assert len(reopened) == len(originals)
    for original, read in zip(originals, reopened, strict=True):
        assert_same(original, read)


def test_order_is_by_shard_then_position(store: EpisodeStore) -> None:
    fill(store, "b", EPISODES[0], EPISODES[1])
    fill(store, "a", EPISODES[2])
    with store.writer("b") as writer:
        assert len(writer.entries) == 2
        writer.append(EPISODES[3])
    assert len(store) == 3, "a store does not change before refresh"
    store.refresh()
    assert [one.seed for one in store] == [3, 1, 2, 4]
    assert [entry.seed for entry in store.entries] == [3, 1, 2, 4]
    assert [store.shard_name(i) for i in range(4)] == ["a", "b", "b", "b"]
    assert store.lengths.tolist() == [15, 3, 40, 1]
    assert store.splits == ["train", "train", "held_out", "train"]
    assert store.indices("held_out").tolist() == [2]
    assert [store.frame_offset(i) for i in range(4)] == [0, 0, 4, 45]
    assert store.shards == {"a": 16, "b": 47}
    assert store.total_tics() == 2 * (15 + 3 + 40 + 1)


def test_raw_frames_are_a_view_of_the_file(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", spec())
    fill(store, "a", *EPISODES)
    frames = store[1].frames
    assert not frames.flags.owndata
    assert not frames.flags.writeable
    assert np.shares_memory(frames, store.read_frames(1, 0, 41))


@pytest.mark.parametrize(("start", "stop"), [(0, 41), (15, 17), (16, 32), (3, 4), (40, 41), (5, 5)])
def test_read_frames_reads_those(store: EpisodeStore, start: int, stop: int) -> None:
    fill(store, "a", *EPISODES)
    numbers, steps = read_picture(store.read_frames(1, start, stop))
    assert steps.tolist() == list(range(start, stop))
    assert (numbers == 2).all()


def test_read_frames_refuses_frames_of_the_next_episode(store: EpisodeStore) -> None:
    fill(store, "a", *EPISODES)
    for start, stop in [(0, 42), (-1, 3), (5, 4)]:
        with pytest.raises(IndexError, match="41 frames"):
            store.read_frames(1, start, stop)


def test_zstd_is_smaller(tmp_path: Path) -> None:
    sizes = {}
    for compression in COMPRESSIONS:
        store = EpisodeStore.create(tmp_path / compression, spec(), compression)
        fill(store, "a", *EPISODES)
        sizes[compression] = sum(entry.bytes for entry in store.entries)
    assert sizes["zstd"] < sizes["none"] / 4


def test_a_pickled_store_carries_no_frames(store: EpisodeStore) -> None:
    fill(store, "a", *EPISODES)
    pickled = pickle.dumps(store)
    assert len(pickled) < 1000
    assert_same(pickle.loads(pickled)[1], store[1])


def _append_and_die(folder: Path, calls_before_death: int) -> None:
    """Kills this process with SIGKILL at one of its system calls, half of its bytes written if it is a write."""
    left = calls_before_death
    write, fsync = os.write, os.fsync

    def due() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    def dying_write(descriptor: int, data: Any) -> int:
        if due():
            write(descriptor, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(descriptor, data)

    def dying_fsync(descriptor: int) -> None:
        if due():
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    with EpisodeStore.open(folder).writer("a") as writer:
        os.write, os.fsync = dying_write, dying_fsync  # type: ignore[assignment]
        writer.append(EPISODES[1])


# An append makes six calls without compression: it writes and syncs frames, steps, index. (With zstd 3 chunks: 8.)
@pytest.mark.parametrize("calls", range(7))
def test_a_killed_writer_loses_only_the_episode_it_was_writing(tmp_path: Path, calls: int) -> None:
    folder = tmp_path / "store"
    store = EpisodeStore.create(folder, spec())
    fill(store, "a", EPISODES[0])
    process = get_context("fork").Process(target=_append_and_die, args=(folder, calls))
    process.start()
    process.join()
    assert process.exitcode == (0 if calls == 6 else -signal.SIGKILL)

    kept = 2 if calls >= 5 else 1  # from the last fsync on, the index line is whole
    torn = EpisodeStore.open(folder)
    assert len(torn) == kept
    torn.verify()
    before = contents(folder)
    torn.refresh()
    assert contents(folder) == before, "readers never change a file"

    fill(torn, "a", *EPISODES[kept:])
    assert len(torn) == len(EPISODES)
    for original, read in zip(EPISODES, torn, strict=True):
        assert_same(original, read)
    clean = EpisodeStore.create(tmp_path / "clean", spec())
    fill(clean, "a", *EPISODES)
    assert contents(folder) == contents(tmp_path / "clean"), "nothing of the torn episode is left"


@pytest.mark.parametrize("failing_write", [0, 1, 2])
@pytest.mark.parametrize(("code", "remedy"), [(errno.ENOSPC, "disk is full"), (errno.EIO, "check the disk")])
def test_a_failed_write_leaves_the_shard_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_write: int, code: int, remedy: str
) -> None:
    store = EpisodeStore.create(tmp_path / "store", spec())
    fill(store, "a", EPISODES[0])
    before = contents(store.folder)
    write, calls = os.write, 0

    def failing(descriptor: int, data: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == failing_write + 1:
            write(descriptor, data[: len(data) // 2])
            raise OSError(code, os.strerror(code))
        return write(descriptor, data)

    with store.writer("a") as writer:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", failing)
            with pytest.raises(UserError, match=remedy):
                writer.append(EPISODES[1])
        assert contents(store.folder) == before
        assert len(writer.entries) == 1
        writer.append(EPISODES[2])  # when there is space again
    store.refresh()
    assert [one.seed for one in store] == [1, 3]


def test_a_refused_episode_is_not_stored(store: EpisodeStore) -> None:
    with store.writer("a") as writer, pytest.raises(ValueError, match="split"):
        writer.append(replace(EPISODES[0], split="test"))
    store.refresh()
    assert len(store) == 0


def _flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("file", ["frames", "steps.bin"])
def test_damage_is_found_at_the_first_reading(store: EpisodeStore, file: str) -> None:
    fill(store, "a", EPISODES[0], EPISODES[2])
    name = {"none": "frames.u8", "zstd": "frames.zst"}[store.compression] if file == "frames" else file
    _flip(store.folder / "shards" / "a" / name, -5)
    damaged = EpisodeStore.open(store.folder)
    assert_same(damaged[0], EPISODES[0])
    for read in (lambda: damaged[1], damaged.verify):
        with pytest.raises(UserError, match="shards/a: episode 1 is damaged"):
            read()


def test_a_damaged_compressed_chunk_is_a_user_error(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", spec(), "zstd")
    fill(store, "a", EPISODES[0])
    _flip(store.folder / "shards" / "a" / "frames.zst", 0)  # the magic number of the chunk
    with pytest.raises(UserError, match="episode 0 is damaged"):
        EpisodeStore.open(store.folder).read_frames(0, 0, 1)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _spoil_line(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0].replace(b"{", b"[") + lines[1])


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("frames.u8", _cut, "frames.u8 is damaged: .* bytes, the index names"),
        ("steps.bin", Path.unlink, "steps.bin is damaged: 0 bytes"),
        ("index.jsonl", _spoil_line, "index.jsonl: line 1 is damaged"),
    ],
)
def test_what_the_index_names_must_be_there(
    tmp_path: Path, file: str, damage: Callable[[Path], None], message: str
) -> None:
    store = EpisodeStore.create(tmp_path / "store", spec())
    fill(store, "a", EPISODES[0], EPISODES[2])
    damage(store.folder / "shards" / "a" / file)
    with pytest.raises(UserError, match=message):
        EpisodeStore.open(store.folder)
    before = (store.folder / "shards" / "a" / "index.jsonl").read_bytes()
    with pytest.raises(UserError, match=message):
        store.writer("a")
    assert (store.folder / "shards" / "a" / "index.jsonl").read_bytes() == before, "a writer never hides damage"


def test_one_writer_for_each_shard(store: EpisodeStore) -> None:
    with store.writer("a"):
        with pytest.raises(UserError, match="written by another"):
            store.writer("a")
        fill(store, "b", EPISODES[0])
    fill(store, "a", EPISODES[1])
    assert len(store) == 2


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".hidden", "a b"])
def test_shard_names_stay_in_the_store(store: EpisodeStore, name: str) -> None:
    with pytest.raises(UserError, match="shard name"):
        store.writer(name)


def test_missing_and_foreign_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no episode store"):
        EpisodeStore.open(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        EpisodeStore.create(tmp_path, spec())
    with pytest.raises(UserError, match="holds no episode store"):
        EpisodeStore.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match="compression 'gzip'"):
        EpisodeStore.create(tmp_path / "new", spec(), "gzip")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"format": "worldsim-episodes", "version": 99, "compression": "none", "spec": {}}', "version|format"),
        ('{"format": "other", "version": 1, "compression": "none", "spec": {}}', "other"),
    ],
)
def test_foreign_manifests(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(UserError, match=message):
        EpisodeStore.open(tmp_path)


def test_open_or_create_refuses_another_environment(tmp_path: Path) -> None:
    fill(open_or_create(tmp_path / "store", spec()), "a", EPISODES[0])
    assert len(open_or_create(tmp_path / "store", spec())) == 1
    with pytest.raises(UserError, match=r"frames_per_second is 10.0 on disk, 20.0 asked"):
        open_or_create(tmp_path / "store", replace(spec(), frames_per_second=20.0))
    with pytest.raises(UserError, match="compression is none on disk, zstd asked"):
        open_or_create(tmp_path / "store", spec(), "zstd")


def test_a_read_only_folder_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = EpisodeStore.create(tmp_path / "store", spec())

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=r"cannot create the episode store in .*other.*Read-only.*may be written"):
        EpisodeStore.create(tmp_path / "other", spec())
    with pytest.raises(UserError, match=r"cannot write episodes in .*store.*Read-only"):
        store.writer("a")


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_permission_is_a_user_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="change its permissions"):
        EpisodeStore.create(tmp_path / "store", spec())


def test_an_interrupted_append_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = EpisodeStore.create(tmp_path / "store", spec())

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with store.writer("a") as writer:
        with monkeypatch.context() as patch:
            patch.setattr(shards, "write_synced", interrupt)
            with pytest.raises(KeyboardInterrupt):
                writer.append(EPISODES[0])
        writer.append(EPISODES[1])
    store.refresh()
    assert [one.seed for one in store] == [2]


def test_a_store_seen_through_a_round_hides_later_ones(tmp_path: Path) -> None:
    whole = open_or_create(tmp_path / "store", spec())
    for number in (0, 1, 2):
        with whole.writer(f"round{number:02d}-worker00") as writer:
            writer.append(replace(episode(number, 3), round=number))
    whole.refresh()
    early = pickle.loads(pickle.dumps(whole.through_round(1)))
    assert [entry.round for entry in early.entries] == [0, 1]
    assert len(whole) == 3
