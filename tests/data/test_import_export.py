"""Data in, data out: every frame, action and reward arrives where it was, in the right episode."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from imageio_ffmpeg import write_frames
from numpy.typing import NDArray

from tests.data.counting import action_of, assert_same, contents, episode, fill, read_picture, reward_of, spec
from worldsim.data.clips import ClipSampler
from worldsim.data.export_episodes import export_minari, export_npz
from worldsim.data.import_episodes import import_episodes
from worldsim.data.import_videos import read_video
from worldsim.data.recordings import ImportSettings
from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError

RATE = 10
EVERYTHING = ImportSettings()


@pytest.fixture
def minari_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def counting_store(folder: Path, box: bool = False) -> EpisodeStore:
    store = EpisodeStore.create(folder, spec(box))
    lengths = (5, 9, 1, 30, 12)
    episodes = [
        episode(number, steps, box=box, terminated=number % 2 == 0, split="held_out" if number == 1 else "train")
        for number, steps in enumerate(lengths)
    ]
    fill(store, "a", *episodes[:3])
    fill(store, "b", *episodes[3:])
    return store


def imported(source: str | Path, folder: Path, settings: ImportSettings = EVERYTHING) -> EpisodeStore:
    return import_episodes(source, folder, settings, progress=False)[0]


def write_lossless(path: Path, frames: NDArray[np.uint8], rate: float = RATE) -> None:
    height, width = frames.shape[1:3]
    writer = write_frames(
        str(path),
        (width, height),
        fps=rate,
        codec="ffv1",
        pix_fmt_out="bgr0",
        macro_block_size=1,
    )
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()


def videos(folder: Path, lengths: tuple[int, ...] = (5, 9, 7), **columns: Callable[[int, int], Any]) -> Path:
    """Videos whose pictures count, each with a CSV of the actions of `counting`, its rewards, and more columns."""
    folder.mkdir()
    for number, steps in enumerate(lengths):
        one = episode(number, steps)
        write_lossless(folder / f"clip{number}.mkv", one.frames)
        given = {"action": action_of, "reward": reward_of, **columns}
        rows = [",".join(given), *(",".join(str(f(number, t)) for f in given.values()) for t in range(steps))]
        (folder / f"clip{number}.csv").write_text("\n".join(rows) + "\n")
    return folder


# --- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [False, True])
def test_minari_and_back_is_the_same_bit_for_bit(tmp_path: Path, minari_home: Path, box: bool) -> None:
    store = counting_store(tmp_path / "store", box)
    folder = export_minari(store, "counting/all-v0", progress=False)
    sources: tuple[str | Path, ...] = ("counting/all-v0", folder, folder / "data")
    for k, source in enumerate(sources):
        back = imported(source, tmp_path / f"back{k}")
        assert back.spec == store.spec
        assert len(back) == len(store)
        for first, second in zip(store, back, strict=True):
            assert_same(first, second)


@pytest.mark.parametrize("box", [False, True])
def test_npz_and_back_is_the_same_bit_for_bit(tmp_path: Path, box: bool) -> None:
    store = counting_store(tmp_path / "store", box)
    back = imported(export_npz(store, tmp_path / "npz", progress=False), tmp_path / "back")
    assert back.spec == store.spec
    for first, second in zip(store, back, strict=True):
        assert_same(first, second)


def test_minari_shows_what_the_store_holds(tmp_path: Path, minari_home: Path) -> None:
    import minari

    store = counting_store(tmp_path / "store")
    export_minari(store, "counting-v3", progress=False)
    dataset = minari.load_dataset("counting-v3")
    assert dataset.total_episodes == len(store)
    assert dataset.total_steps == int(store.lengths.sum())
    for k, one in enumerate(dataset.iterate_episodes()):
        numbers, steps = read_picture(one.observations)
        assert set(numbers.tolist()) == {k}
        assert steps.tolist() == list(range(len(one.actions) + 1))
        assert one.actions.tolist() == [action_of(k, t) for t in range(len(one.actions))]
        assert one.rewards.tolist() == [reward_of(k, t) for t in range(len(one.actions))]


def test_a_minari_data_set_of_others(tmp_path: Path, minari_home: Path) -> None:
    import minari
    from minari.data_collector import EpisodeBuffer

    buffers = [
        EpisodeBuffer(
            seed=40 + number,
            observations={"screen": one.frames, "health": np.zeros(len(one.frames), np.float32)},
            actions=one.actions + 2,  # of a Discrete space that starts at 2
            rewards=one.rewards,
            terminations=one.terminated,
            truncations=one.truncated,
        )
        for number, one in enumerate(episode(number, 6 + number) for number in range(3))
    ]
    screen = gym.spaces.Box(0, 255, spec().frame_shape, np.uint8)
    minari.create_dataset_from_buffers(
        "others-v0",
        buffers,
        observation_space=gym.spaces.Dict(screen=screen, health=gym.spaces.Box(0, 100, ())),
        action_space=gym.spaces.Discrete(5, start=2),
        data_format="hdf5",
        jpeg_encoding=False,
    )
    store = imported("others-v0", tmp_path / "store")
    assert [entry.seed for entry in store.entries] == [40, 41, 42]
    assert store.splits == ["train", "held_out", "train"]
    assert store.spec.max_episode_steps == 8
    for number, one in enumerate(store):
        assert read_picture(one.frames)[1].tolist() == list(range(7 + number))
        assert one.actions.tolist() == [action_of(number, t) for t in range(len(one))]


def test_videos_arrive_frame_by_frame(tmp_path: Path) -> None:
    store = imported(videos(tmp_path / "videos"), tmp_path / "store")
    assert store.spec.frames_per_second == RATE
    assert store.spec.action_space == {"type": "discrete", "n": 5}
    for number, one in enumerate(store):
        numbers, steps = read_picture(one.frames)
        assert set(numbers.tolist()) == {number}
        assert steps.tolist() == list(range(len(one) + 1))
        assert one.actions.tolist() == [action_of(number, t) for t in range(len(one))]
        assert one.rewards.tolist() == [reward_of(number, t) for t in range(len(one))]
        assert one.truncated[-1]
        assert not one.terminated.any()


def test_clips_of_imported_videos_are_aligned(tmp_path: Path) -> None:
    """From the video to what a model is shown: the action at a frame is the one that led to it."""
    store = imported(videos(tmp_path / "videos", (9, 14, 7)), tmp_path / "store")
    clip = ClipSampler(store, None, clip_frames=4).sample(64)
    assert clip.frames is not None
    numbers, steps = read_picture(clip.frames.numpy())
    for b in range(64):
        for t in range(4):
            if clip.has_action[b, t]:
                assert clip.actions[b, t] == action_of(int(numbers[b, t]), int(steps[b, t]) - 1)
                assert clip.rewards[b, t] == reward_of(int(numbers[b, t]), int(steps[b, t]) - 1)


def test_endings_and_other_columns_of_a_csv(tmp_path: Path) -> None:
    source = videos(
        tmp_path / "videos", (5, 9), terminated=lambda number, t: number == 0 and t == 4, gas=lambda n, t: t / 2
    )
    store = imported(source, tmp_path / "store")
    assert [bool(one.terminated[-1]) for one in store] == [True, False]
    assert not any(one.truncated.any() for one in store)
    assert store.spec.action_shape == (2,)
    assert store[1].actions[:, 1].tolist() == [t / 2 for t in range(9)]


def test_actions_in_npy_and_no_rewards(tmp_path: Path) -> None:
    source = videos(tmp_path / "videos", (5,))
    (source / "clip0.csv").unlink()
    np.save(source / "clip0.npy", episode(0, 5).actions)
    with pytest.raises(UserError, match="--without-rewards"):
        imported(source, tmp_path / "store")
    store = imported(source, tmp_path / "store", ImportSettings(without_rewards=True))
    assert store[0].actions.tolist() == episode(0, 5).actions.tolist()
    assert not store[0].rewards.any()


def test_true_and_false_without_a_header_are_actions(tmp_path: Path) -> None:
    source = videos(tmp_path / "videos", (5,))
    (source / "clip0.csv").write_text("True\nFalse\nTrue\nTrue\nFalse\n")
    store = imported(source, tmp_path / "store", ImportSettings(without_rewards=True))
    assert store[0].actions.tolist() == [1, 0, 1, 1, 0]


def test_a_folder_describes_its_environment(tmp_path: Path) -> None:
    source = videos(tmp_path / "videos")
    stated = {"id": "Counting", "action_space": {"type": "discrete", "n": 9}, "max_episode_steps": 77}
    (source / "env.json").write_text(json.dumps(stated))
    store = imported(source, tmp_path / "store")
    assert (store.spec.id, store.spec.action_space["n"], store.spec.max_episode_steps) == ("Counting", 9, 77)
    (source / "env.json").write_text('{"idd": 1}')
    with pytest.raises(UserError, match="idd"):
        imported(source, tmp_path / "other")


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"action_space": {"type": "discrete"}}, r"env\.json: KeyError: 'n'; expected such as"),
        ({"action_space": {"type": "discrete", "n": "three"}}, r"env\.json: ValueError"),
        ({"frame_shape": [12, 16]}, r"env\.json: ValueError"),
        ({"action_space": "discrete"}, r"env\.json: AttributeError"),
        ({"action_space": {"type": "foo"}}, r"env\.json: UserError: action space"),
        ({"frames_per_second": "thirty"}, r"env\.json: ValueError"),
        ({"max_episode_steps": "x"}, r"env\.json: ValueError"),
        ({"settings": [1]}, r"env\.json: TypeError"),
        ({"action_meanings": 3}, r"env\.json: TypeError"),
        ({"action_space": {"type": "multi_discrete", "nvec": [2, 2]}}, "1 for each step, expected 2"),
        (
            {"action_space": {"type": "discrete", "n": 1}},
            r"clip0.*: action 1 in step \d+, expected a whole number from 0 to 0",
        ),
    ],
)
def test_a_description_that_does_not_fit(stated: dict[str, Any], message: str, tmp_path: Path) -> None:
    source = videos(tmp_path / "videos")
    (source / "env.json").write_text(json.dumps(stated))
    with pytest.raises(UserError, match=message):
        imported(source, tmp_path / "store")


def test_half_an_action_is_refused(tmp_path: Path) -> None:
    source = videos(tmp_path / "videos", (5,))
    (source / "clip0.csv").write_text("0\n1\n1.5\n0\n1\n")
    (source / "env.json").write_text('{"action_space": {"type": "discrete", "n": 2}}')
    with pytest.raises(UserError, match=r"action 1\.5 in step 2, expected a whole number from 0 to 1"):
        imported(source, tmp_path / "store", ImportSettings(without_rewards=True))


def test_frames_are_scaled_by_averaging(tmp_path: Path) -> None:
    source = tmp_path / "npz"
    source.mkdir()
    frames = np.zeros((3, 8, 12), np.uint8)
    frames[:, ::2] = 100
    np.savez(source / "one.npz", frames=frames, actions=np.array([0, 1]), rewards=np.zeros(2))
    store = imported(source, tmp_path / "store", ImportSettings(size=(4, 6)))
    assert store.spec.frame_shape == (4, 6, 1)
    assert (store[0].frames == 50).all()


# --- what is refused -------------------------------------------------------------------------------------------------


def refuse(source: str | Path, folder: Path, *words: str) -> None:
    with pytest.raises(UserError) as error:
        imported(source, folder)
    for word in words:
        assert word in str(error.value)
    assert not folder.exists()
    assert not list(folder.parent.glob("*.importing"))


@pytest.mark.parametrize("kind", ["npz", "videos"])
def test_as_many_actions_as_frames(tmp_path: Path, kind: str) -> None:
    source, one = tmp_path / "source", episode(1, 8)
    actions = np.append(one.actions, 0)
    if kind == "npz":
        source.mkdir()
        np.savez(source / "b.npz", frames=one.frames, actions=actions, rewards=np.zeros(9))
        refuse(source, tmp_path / "store", "b.npz", "9 actions for 9 frames", "Drop the last action")
    else:
        videos(source)
        np.save(source / "clip1.npy", np.zeros(10, np.int64))
        (source / "clip1.csv").unlink()
        refuse(source, tmp_path / "store", "clip1.mkv", "10 actions for 10 frames", "Drop the last action")


def test_no_episodes(tmp_path: Path, minari_home: Path) -> None:
    (tmp_path / "source").mkdir()
    refuse(tmp_path / "source", tmp_path / "store", "0 episodes")
    refuse("nobody/nothing-v0", tmp_path / "store", "minari download nobody/nothing-v0")
    with pytest.raises(UserError, match="0 episodes"):
        export_npz(EpisodeStore.create(tmp_path / "empty", spec()), tmp_path / "npz")


def test_a_minari_data_set_without_episodes_or_pictures(tmp_path: Path, minari_home: Path) -> None:
    import minari
    from minari.data_collector import EpisodeBuffer

    vector = gym.spaces.Box(-1, 1, (4,))
    common: dict[str, Any] = {"action_space": gym.spaces.Discrete(2), "data_format": "hdf5"}
    minari.create_dataset_from_buffers("none-v0", [], observation_space=vector, **common)
    refuse("none-v0", tmp_path / "store", "0 episodes")
    steps = {"rewards": [0.0], "terminations": [True], "truncations": [False]}
    buffer = EpisodeBuffer(observations=np.zeros((2, 4), np.float32), actions=np.array([0]), **steps)
    minari.create_dataset_from_buffers("vector-v0", [buffer], observation_space=vector, **common)
    refuse("vector-v0", tmp_path / "store", "pictures")


@pytest.mark.parametrize("damage", ["cut off", "no video", "empty", "flipped"])
def test_a_broken_video(tmp_path: Path, damage: str) -> None:
    source = videos(tmp_path / "videos", (5, 60, 7))
    path = source / "clip1.mkv"
    whole = path.read_bytes()
    middle = len(whole) // 2
    damaged = {
        "cut off": whole[:middle],
        "no video": b"these are words" * 100,
        "empty": b"",
        "flipped": whole[:middle] + bytes(byte ^ 255 for byte in whole[middle : middle + 400]) + whole[middle + 400 :],
    }
    path.write_bytes(damaged[damage])
    refuse(source, tmp_path / "store", "clip1.mkv")


def test_videos_of_two_rates(tmp_path: Path) -> None:
    source = videos(tmp_path / "videos")
    write_lossless(source / "clip1.mkv", episode(1, 9).frames, rate=30)
    refuse(source, tmp_path / "store", "clip1.mkv", "rate")


@pytest.mark.parametrize(
    ("csv", "expected"),
    [
        (None, "neither"),
        ("action,reward\n1,0\n2,zero\n", "step 1"),
        ("action,reward\n1,0\n2\n", "step 1"),
        ("reward\n1\n", "column for the action"),
        ("action,reward\n-1,0\n", "-1"),
        ("action,reward\n", "no actions"),
        ("", "no actions"),
        (",action,reward\n0,1,0\n1,1,0\n", "has no name"),  # as a table is written with its row numbers
        ("action,reward\nnan,0\n1,0\n1,0\n1,0\n1,0\n", "not finite"),
        ("action,reward\n1,inf\n1,0\n1,0\n1,0\n1,0\n", "not finite"),
    ],
)
def test_a_csv_that_cannot_be_meant(tmp_path: Path, csv: str | None, expected: str) -> None:
    source = videos(tmp_path / "videos", (5,))
    (source / "clip0.csv").unlink()
    if csv is not None:
        (source / "clip0.csv").write_text(csv)
    refuse(source, tmp_path / "store", expected)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"frames": np.zeros((3, 4, 4, 3), np.uint8)}, "no actions"),
        ({"frames": np.zeros((3, 4, 4, 3), np.float32), "actions": np.zeros(2, int)}, "uint8"),
        ({"frames": np.zeros((3, 4, 4, 2), np.uint8), "actions": np.zeros(2, int)}, "C 1 or 3"),
        ({"frames": np.zeros((3, 4, 4, 3), np.uint8), "actions": np.zeros(2, int)}, "no rewards"),
        ({"frames": np.zeros((3, 4, 4, 3), np.uint8), "actions": np.zeros(2, int), "reward": np.zeros(2)}, "reward"),
        (
            {
                "frames": np.zeros((3, 4, 4, 3), np.uint8),
                "actions": np.zeros(2, int),
                "rewards": np.zeros(2),
                "terminated": np.array([True, False]),
            },
            "goes on after a step that ended it",
        ),
    ],
)
def test_npz_files_that_are_no_episodes(tmp_path: Path, arrays: dict[str, NDArray[Any]], expected: str) -> None:
    source = tmp_path / "npz"
    source.mkdir()
    np.savez(source / "one.npz", **arrays)  # type: ignore[arg-type]
    refuse(source, tmp_path / "store", expected)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    source = tmp_path / "npz"
    source.mkdir()
    np.savez(source / "one.npz", frames=np.zeros((3, 4, 4, 3), np.uint8), actions=np.array([{}, {}]))
    refuse(source, tmp_path / "store", "one.npz")


def test_nothing_is_overwritten(tmp_path: Path, minari_home: Path) -> None:
    store = counting_store(tmp_path / "store")
    export_minari(store, "taken-v0", progress=False)
    before = contents(tmp_path)
    for call in (
        lambda: export_minari(store, "taken-v0", progress=False),
        lambda: export_npz(store, tmp_path / "store", progress=False),
        lambda: imported("taken-v0", tmp_path / "store"),
        lambda: imported(tmp_path / "store", tmp_path / "new"),
        lambda: export_minari(store, "no id at all", progress=False),
    ):
        with pytest.raises(UserError):
            call()
    assert contents(tmp_path) == before


def test_lossy_videos_lose_no_frame(tmp_path: Path) -> None:
    from worldsim.rendering import write_video

    frames = np.repeat(np.arange(0, 250, 10, dtype=np.uint8), 16 * 16 * 3).reshape(25, 16, 16, 3)
    read = read_video(write_video(frames, tmp_path / "ramp.mp4", frames_per_second=RATE))
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).max() < 10


def test_a_recording_that_is_to_be_turned_is_turned(tmp_path: Path) -> None:
    """Telephones held upright write pictures that lie on their side, and say so."""
    from imageio_ffmpeg import get_ffmpeg_exe

    lying = np.zeros((3, 16, 32, 3), np.uint8)
    lying[:, :, :16] = 200  # its left half is bright
    write_lossless(tmp_path / "lying.mkv", lying)
    command = [get_ffmpeg_exe(), "-v", "error", "-display_rotation", "90", "-i", str(tmp_path / "lying.mkv")]
    subprocess.run([*command, "-c", "copy", str(tmp_path / "upright.mkv")], check=True)
    read = read_video(tmp_path / "upright.mkv")
    assert read.shape == (3, 32, 16, 3)
    halves = read[:, :16].mean(), read[:, 16:].mean()
    assert max(halves) > 190
    assert min(halves) < 10
