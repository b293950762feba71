"""A viewer's dream, without any network."""

from __future__ import annotations

import gc
import json
import struct
import weakref
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.play.conftest import endless_world, without_endings
from tests.videos import read_video
from tests.worlds import NoiseEnv, tiny_world
from worldsim.dream import DreamEnv
from worldsim.play.beside_real import BesideReal
from worldsim.play.commands import Command, RefusedMessage
from worldsim.play.recording import Recording, mp4
from worldsim.play.session import MOST_POINTS, REWIND_STEPS, Session
from worldsim.rendering import enlarged
from worldsim.world_model import WorldModel


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return endless_world()


def view(session: Session) -> tuple[dict[str, Any], bytes]:
    data = session.view(1)
    (length,) = struct.unpack_from("<I", data)
    return json.loads(data[4 : 4 + length]), data[4 + length :]


def do(session: Session, kind: str, value: Any = None) -> dict[str, Any]:
    session.apply(Command(kind, value))
    return view(session)[0]


def pixels(session: Session) -> bytes:
    return view(session)[1]


class Recorded(NoiseEnv):
    """Remembers the actions it was given."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__(model)
        self.actions: list[Any] = []
        self.closed = False

    def step(self, action: Any) -> Any:
        self.actions.append(action)
        return super().step(action)

    def close(self) -> None:
        self.closed = True


def test_it_dreams_what_the_dream_env_dreams(model: WorldModel) -> None:
    session = Session(model, seed=5)
    env = DreamEnv(model, observation="features", render_mode="rgb_array")
    env.reset(seed=5)
    env.reset()  # the session begins anew once
    for action in (0, 2, 1, 1):
        do(session, "action", action)
        header = do(session, "step")
        _, reward, _, _, info = env.step(action)
        frame = env.render()
        assert frame is not None
        assert pixels(session) == frame.tobytes()
        assert header["reward"] == pytest.approx(reward)
        assert header["survival"] == pytest.approx(1 - info["termination_probability"])
        assert header["uncertainty"] == pytest.approx(info["uncertainty"])
    assert header["step"] == 4


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [("box", [-1.0, 0.0], [1.0, 1.0]), ("multi_discrete", [2, 0], [0, 1]), ("multi_binary", [1, 0, 1], [0, 1, 0])],
)
def test_actions_of_several_numbers_reach_the_dream(kind: str, one: list[float], other: list[float]) -> None:
    session = Session(endless_world(kind), seed=0)
    do(session, "save")
    frames = []
    for action in (one, other, one):
        do(session, "load", view(session)[0]["points"][0]["number"])
        do(session, "action", action)
        assert do(session, "step")["action"] == action
        frames.append(pixels(session))
    assert frames[0] == frames[2] != frames[1]


def test_save_points_branch(model: WorldModel) -> None:
    session = Session(model, seed=1)
    do(session, "step")
    point = do(session, "save")["points"][0]
    assert point["step"] == 1
    saved = pixels(session)
    branches = []
    for action in (0, 2, 0):
        assert do(session, "load", point["number"])["step"] == 1
        assert pixels(session) == saved
        do(session, "action", action)
        do(session, "step")
        branches.append(pixels(session))
    assert branches[0] == branches[2] != branches[1]
    with pytest.raises(RefusedMessage, match="no such save point"):
        do(session, "load", 999)
    for _ in range(MOST_POINTS + 3):
        points = do(session, "save")["points"]
    assert len(points) == MOST_POINTS


def test_rewinding_goes_back_and_back(model: WorldModel) -> None:
    session = Session(model, seed=1)
    first = pixels(session)
    for _ in range(2 * REWIND_STEPS + 1):
        do(session, "step")
    assert [do(session, "rewind")["step"] for _ in range(3)] == [2 * REWIND_STEPS, REWIND_STEPS, 0]
    assert pixels(session) == first
    with pytest.raises(RefusedMessage, match="nothing before"):
        do(session, "rewind")


def test_a_key_pressed_between_two_steps_counts_once(model: WorldModel) -> None:
    session = Session(model, seed=1)  # its action 1, "stay", does nothing
    for action in (2, 1):
        do(session, "action", action)
    assert [do(session, "step")["action"] for _ in range(3)] == [2, 1, 1]
    do(session, "action", 0)
    assert [do(session, "step")["action"] for _ in range(2)] == [0, 0]
    do(session, "action", 1)
    assert do(session, "step")["action"] == 1


@pytest.mark.parametrize("leave", ["restart", "load"])
def test_a_key_pressed_in_one_dream_does_nothing_in_the_next(model: WorldModel, leave: str) -> None:
    session = Session(model, seed=1)
    point = do(session, "save")["points"][-1]["number"]
    do(session, "action", 2)
    do(session, "action", 1)  # so 2 was only tapped
    do(session, leave, point if leave == "load" else None)
    do(session, "action", 0)
    assert do(session, "step")["action"] == 0


def test_it_waits_for_the_first_action(model: WorldModel) -> None:
    session = Session(model, seed=1)
    header = view(session)[0]
    assert header["waits"]
    assert not header["playing"]
    assert not do(session, "action", 1)["playing"]
    assert do(session, "action", 2)["playing"]
    assert not do(session, "pause")["playing"]
    assert not do(session, "action", 0)["playing"], "a pause is a pause"
    assert do(session, "restart")["waits"]


def test_restarts_begin_elsewhere(model: WorldModel) -> None:
    session = Session(model, seed=1)
    starts = {pixels(session)}
    for _ in range(5):
        assert do(session, "restart")["step"] == 0
        starts.add(pixels(session))
    assert len(starts) > 1


def test_the_policy_plays_until_taken_over_from(model: WorldModel) -> None:
    def act(observations: NDArray[Any]) -> NDArray[Any]:
        assert observations.shape[0] == 1
        return np.array([2])

    session = Session(model, seed=1, act=act)
    assert do(session, "policy", True)["playing"]
    assert do(session, "step")["action"] == 2
    assert do(session, "restart")["playing"]
    do(session, "policy", False)
    assert do(session, "step")["action"] == 1
    with pytest.raises(RefusedMessage, match="none"):
        do(Session(model, seed=1), "policy", True)


def test_settings_reach_the_sampler(model: WorldModel) -> None:
    session = Session(model, seed=1)
    number = do(session, "save")["points"][0]["number"]
    shown = {}
    for kind, value in (("temperature", 0.0), ("temperature", 3.0), ("sampling_steps", 1), ("sampling_steps", 2)):
        do(session, "load", number)
        assert do(session, kind, value)[kind] == value
        do(session, "step")
        shown[kind, value] = pixels(session)
    assert len(set(shown.values())) == 4
    pace = session.seconds_per_step
    do(session, "speed", 2.0)
    assert session.seconds_per_step == pace / 2


def test_an_end_stops_the_dream() -> None:
    session = Session(without_endings(tiny_world(max_episode_steps=3)), seed=0)
    do(session, "play")
    for _ in range(5):
        session.step()
    header = view(session)[0]
    assert (header["step"], header["ended"], header["playing"]) == (3, "truncated", False)
    with pytest.raises(RefusedMessage, match="ended"):
        do(session, "play")
    assert do(session, "rewind")["ended"] is None


def test_dreams_of_several_viewers_do_not_mix(model: WorldModel) -> None:
    actions = [[0, 2, 1, 0, 2], [2, 2, 0, 1, 1]]

    def play(order: list[int]) -> list[list[bytes]]:
        sessions = [Session(model, seed=seed) for seed in (3, 4)]
        frames: list[list[bytes]] = [[], []]
        for which in order:
            do(sessions[which], "action", actions[which][len(frames[which])])
            do(sessions[which], "step")
            frames[which].append(pixels(sessions[which]))
        return frames

    assert play([0, 1, 1, 0, 0, 1, 0, 1, 1, 0]) == play([0] * 5 + [1] * 5)


def test_a_session_that_is_dropped_is_freed(model: WorldModel) -> None:
    session = Session(model, seed=1)
    session.step()
    do(session, "save")
    state = weakref.ref(session._env._state)
    del session
    gc.collect()
    assert state() is None


def test_the_real_env_gets_the_same_actions_and_the_dream_its_first_frame(model: WorldModel) -> None:
    env = Recorded(model)
    session = Session(model, seed=1, real=BesideReal(env))
    size = 16 * 16 * 3
    assert pixels(session)[:size] == pixels(session)[size:], "its tokenizer keeps every pixel"
    for action in (2, 0, 1):
        do(session, "action", action)
        header = do(session, "step")
    assert env.actions == [2, 0, 1][: header["real"]["step"]]
    for _ in range(12):
        header = do(session, "step")
    assert header["real"]["ended"] == "terminated"
    assert header["step"] == 15, "the dream goes on without it"
    assert do(session, "restart")["real"] == {"step": 0, "return": 0.0, "ended": None}
    do(session, "step")
    assert do(session, "rewind")["real"]["ended"] == "left behind"
    session.close()
    assert env.closed


def test_a_recording_holds_every_moment_once(model: WorldModel, tmp_path: Any) -> None:
    session = Session(model, seed=1, real=BesideReal(NoiseEnv(model)))
    assert session.apply(Command("record", True)) is None
    for _ in range(6):
        do(session, "step")
    with pytest.raises(RefusedMessage, match="already"):
        do(session, "record", True)
    recording = session.apply(Command("record", False))
    assert recording is not None
    assert len(recording) == 7
    path = tmp_path / "dream.mp4"
    path.write_bytes(mp4(recording, 10.0))
    frames = read_video(path)
    assert len(frames) == 7
    dream = frames[-1, -256:, -256:].reshape(16, 16, 16, 16, 3).mean((1, 3))
    assert np.abs(dream - recording.dream[-1]).mean() < 30, "reality left, dream right"
    assert view(session)[0]["recording"] is None


def test_a_recording_is_enlarged_picture_by_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def noted(frames: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
        sizes.append(frames.size)
        return enlarged(frames, scale)

    monkeypatch.setattr("worldsim.play.recording.enlarged", noted)
    frame = np.zeros((16, 16, 3), np.uint8)
    mp4(Recording([frame] * 9, [frame] * 9), 10.0)
    assert set(sizes) == {frame.size}, "two minutes of enlarged frames are gigabytes"


def test_a_recording_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldsim.play.recording.LARGEST_BYTES", 10 * 16 * 16 * 3)
    recording = Recording()
    for _ in range(20):
        recording.add(np.zeros((16, 16, 3), np.uint8), None)
    assert recording.is_full
    assert len(recording) == 10
