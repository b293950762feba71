"""The server, spoken to over real sockets."""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import logging
import os
import random
import string
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.play.serving import Page, Serving, serving
from tests.worlds import NoiseEnv
from worldsim.errors import UserError
from worldsim.model_folder import find_model
from worldsim.play.commands import LARGEST_MESSAGE
from worldsim.play.game import Game, load_game
from worldsim.play.server import LARGEST_FRAME, MOST_VIEWERS, Access, is_loopback, listen, page_address
from worldsim.play.session import Session
from worldsim.play.viewer import IN_FLIGHT, MESSAGES_PER_SECOND, MOST_REFUSED, Allowance


@pytest.fixture(scope="module")
def served(game: Game) -> Iterator[Serving]:
    with serving(game) as one:
        yield one


def get(served: Serving, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


# --- dreams ----------------------------------------------------------------------------------------------------------


def test_a_page_is_introduced_and_shown_the_start(served: Serving) -> None:
    with served.page() as page:
        assert page.hello["env"] == "Tiny-v0"
        assert [button["name"] for button in page.hello["controls"]["buttons"]] == ["left", "stay", "right"]
        assert page.header["step"] == 0
        assert len(page.pixels) == 16 * 16 * 3


def test_actions_move_the_dream(served: Serving) -> None:
    with served.page() as page:
        number = page.do("save")["points"][0]["number"]
        frames = []
        for action in (0, 2, 0):
            page.do("load", number)
            page.do("action", action)  # the first action begins the dream
            page.send("pause")
            while page.next_view()["playing"]:
                pass
            page.do("load", number)
            assert page.do("step")["action"] == action
            frames.append(page.pixels)
        assert frames[0] == frames[2] != frames[1]


def test_a_pause_pauses(served: Serving) -> None:
    with served.page() as page:
        page.send("speed", 100)
        page.send("play")
        while page.next_view()["step"] < 5:
            pass
        page.send("pause")
        while page.next_view()["playing"]:
            pass
        with pytest.raises(TimeoutError):
            page.receive(timeout=0.5)


def test_it_keeps_the_pace_of_the_env(served: Serving) -> None:
    """Ten steps a second, wherever a machine can."""
    with served.page() as page:
        page.send("play")
        page.next_view()
        begun, first = time.monotonic(), page.header["step"]
        while page.next_view()["step"] < first + 10:
            pass
        assert 0.8 < time.monotonic() - begun < 3.0


def test_viewers_do_not_mix(served: Serving) -> None:
    with served.page() as one, served.page() as other:
        before = other.pixels
        for _ in range(3):
            one.do("step")
        assert one.pixels != before
        with pytest.raises(TimeoutError):
            other.receive(timeout=0.2)
        assert other.do("save")["step"] == 0
        assert other.pixels == before


def test_a_slow_page_misses_frames_and_has_no_queue(served: Serving) -> None:
    with served.page() as page:
        page.send("speed", 100)
        page.send("play")
        received = []
        with contextlib.suppress(TimeoutError):
            while True:  # confirms nothing
                received.append(page.receive(timeout=0.5)[0])
        assert len(received) <= IN_FLIGHT + 1
        page.send("shown", received[-1]["view"])
        newest = page.receive()[0]
        assert newest["step"] > received[-1]["step"] + IN_FLIGHT, "the dream went on, and the frames between are gone"


def test_a_closed_tab_frees_its_dream(game: Game, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Session]] = []
    envs: list[NoiseEnv] = []
    closed: list[bool] = []

    class Closing(NoiseEnv):
        def close(self) -> None:
            closed.append(True)

    def new_env() -> NoiseEnv:
        envs.append(Closing(game.model))
        return envs[-1]

    watched = Game("tiny", game.model, make_real=new_env)
    original = Game.new_session

    def new_session(self: Game, seed: int) -> Session:
        session = original(self, seed)
        made.append(weakref.ref(session))
        return session

    monkeypatch.setattr(Game, "new_session", new_session)
    with serving(watched) as served:
        page = served.page()
        page.send("speed", 100)
        page.send("play")
        page.next_view()
        page.socket.socket.close()  # as when the browser is killed
        wait_until(lambda: served.viewers == 0 and closed == [True])

        def is_freed() -> bool:
            gc.collect()
            return made[0]() is None

        wait_until(is_freed)


def test_there_is_room_for_so_many_viewers(served: Serving) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MOST_VIEWERS):
            stack.enter_context(served.page())
        with pytest.raises(ConnectionClosed) as closed:
            served.page()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013
        assert "already" in closed.value.rcvd.reason
    wait_until(lambda: served.viewers == 0)
    served.page().close()


def test_a_recording_arrives_as_a_file(served: Serving) -> None:
    with served.page() as page:
        page.do("record", True)
        for _ in range(3):
            page.do("step")
        page.send("record", False)
        header: dict[str, Any] = {}
        while header.get("type") != "video":
            header, content = page.receive()
        assert header["frames"] == 4
        assert header["name"] == "tiny-dream.mp4"
        assert content[4:8] == b"ftyp"


def test_a_dream_that_breaks_is_told_and_the_others_go_on(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    with served.page() as page, served.page() as other:
        original = Session.step

        def broken(self: Session) -> None:
            raise RuntimeError("the simulator is gone")

        monkeypatch.setattr(Session, "step", broken)
        page.send("step")
        with pytest.raises(ConnectionClosed) as closed:
            page.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
        monkeypatch.setattr(Session, "step", original)
        assert other.do("step")["step"] == 1


# --- who may connect -------------------------------------------------------------------------------------------------


def test_the_page_comes_with_strict_headers(served: Serving) -> None:
    for path, kind in (("/", "text/html"), ("/play.css", "text/css"), ("/play.js", "javascript")):
        answer = get(served, path)
        assert answer.status == 200
        assert kind in (answer.headers["content-type"] or "")
        assert "default-src 'none'" in (answer.headers["content-security-policy"] or "")
        assert answer.headers["x-content-type-options"] == "nosniff"
    for path in ("/docs", "/openapi.json", "/../server.py", "/%2e%2e/server.py", "/page/index.html"):
        assert get(served, path).status == 404


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = Path(__file__).parents[2] / "worldsim" / "play" / "page"
    for path in page.iterdir():
        text = path.read_text(encoding="utf-8")
        assert "http" not in text.replace("https://", "http").replace("http-equiv", ""), path


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8765", "a@127.0.0.1", ""])
def test_a_foreign_host_is_refused(served: Serving, host: str) -> None:
    answer = get(served, "/", Host=host)
    assert answer.status == 403
    assert b"Host" in answer.read()
    with pytest.raises(InvalidStatus):
        served.page(host=host, origin=f"http://{host}")


@pytest.mark.parametrize("host", ["localhost:{}", "127.0.0.1:{}", "[::1]:{}", "localhost:9000"])
def test_names_of_this_machine_are_taken(served: Serving, host: str) -> None:
    assert get(served, "/", Host=host.format(served.port)).status == 200


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "https://127.0.0.1", "http://127.0.0.1:1"])
def test_a_foreign_page_is_refused(served: Serving, origin: str | None) -> None:
    with pytest.raises(InvalidStatus) as refused:
        served.page(origin=origin)
    assert refused.value.response.status_code == 403


def test_elsewhere_than_on_loopback_a_token_is_needed(game: Game) -> None:
    with serving(game, Access("0.0.0.0", "secret")) as served:
        for query in ("", "?token=", "?token=secreT", "?token=secret2", "?token=%C3%A4"):
            assert get(served, f"/{query}").status == 403
            with pytest.raises(InvalidStatus):
                served.page(query=query)
        assert get(served, "/?token=secret").status == 200
        served.page(query="?token=secret").close()


def test_which_hosts_are_ours() -> None:
    def answers(access: Access, host: str) -> bool:
        return access.refusal({"host": host}, "token=t", needs_origin=False, needs_token=True) is None

    assert answers(Access("192.168.1.5", "t"), "192.168.1.5:8765")
    assert answers(Access("0.0.0.0", "t"), "10.0.0.7:8765")
    assert answers(Access("my-machine", "t"), "My-Machine:8765")
    assert not answers(Access("0.0.0.0", "t"), "evil.example:8765")
    assert not answers(Access("127.0.0.1"), "192.168.1.5:8765")
    assert not answers(Access("127.0.0.1"), "127.0.0.1:port")


def test_only_loopback_needs_no_token() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.5", "my-machine", "localhost.evil"))
    assert page_address(Access("::1"), 80) == "http://[::1]:80/"
    assert page_address(Access("10.0.0.7", "t"), 80) == "http://10.0.0.7:80/?token=t"


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_ten_thousand_bad_messages(served: Serving, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "worldsim.play")
    with served.page() as witness:
        random_numbers = random.Random(0)
        sent = 0
        while sent < 10_000:
            page = served.page()
            with contextlib.suppress(ConnectionClosed):
                for _ in range(MOST_REFUSED + 1):
                    page.socket.send(garbage(random_numbers, page))
                    sent += 1
                page.receive_to_the_end()
            page.close()
        assert witness.do("step")["step"] == 1
    wait_until(lambda: served.viewers == 0)
    lines = [record.getMessage() for record in caplog.records if record.name == "worldsim.play"]
    assert sum("refused" in line for line in lines) > 9_000
    assert all(len(line) < 400 and line.isprintable() for line in lines)
    assert not [record for record in caplog.records if record.exc_info]


def garbage(numbers: random.Random, page: Page) -> str | bytes:
    """A message that no page sends: bytes, text, JSON of another form, values out of range, sizes out of bounds."""
    types = ["action", "shown", "load", "policy", "record", "temperature", "speed", "sampling_steps", "nonsense", None]
    values: list[Any] = [-1, 3, 2**63, 10**300, -0.5, 1e308, float("nan"), float("inf"), "1", [], [1], {}, {"a": 1}, ""]
    kinds: list[Callable[[], str | bytes]] = [
        lambda: numbers.randbytes(numbers.randrange(200)),
        lambda: "".join(numbers.choices(string.printable, k=numbers.randrange(1, 80))) + "{",
        lambda: json.dumps({"type": numbers.choice(types), "value": numbers.choice(values), "extra": 0}),
        lambda: json.dumps({"type": numbers.choice(["action", "policy"]), "value": numbers.choice(values)}),
        lambda: json.dumps({"type": "shown", "value": page.header["view"] + numbers.randrange(10**4, 10**6)}),
        lambda: json.dumps(numbers.choice(values)),
        lambda: "[" * numbers.randrange(1, LARGEST_MESSAGE),
        lambda: " " * numbers.randrange(LARGEST_MESSAGE + 1, LARGEST_MESSAGE + 100),
    ]
    return numbers.choice(kinds)()


@pytest.mark.parametrize("content", ["x" * (LARGEST_FRAME + 1), b"x" * (4 * LARGEST_FRAME)])
def test_an_oversized_message_ends_only_its_own_connection(
    served: Serving, content: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "worldsim.play")
    with served.page() as other:
        page = served.page()
        with contextlib.suppress(ConnectionClosed):
            page.socket.send(content)
        with pytest.raises(ConnectionClosed):
            page.receive_to_the_end()
        wait_until(lambda: served.viewers == 1)
        assert other.do("step")["step"] == 1
    assert "too large" in caplog.text


def test_what_is_no_utf8_ends_only_its_own_connection(served: Serving, caplog: pytest.LogCaptureFixture) -> None:
    page = served.page()
    page.socket.send(b"\xff\xfe\xfa", text=True)
    with pytest.raises(ConnectionClosed):
        page.receive()
    served.page().close()
    assert not [record for record in caplog.records if record.exc_info]


def test_a_flood_ends_the_connection(served: Serving, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "worldsim.play")
    page = served.page()
    with contextlib.suppress(ConnectionClosed):
        for _ in range(20 * int(MESSAGES_PER_SECOND)):
            page.send("shown", 0)
    with pytest.raises(ConnectionClosed):
        page.receive_to_the_end()
    assert "messages a second" in caplog.text


def test_an_allowance() -> None:
    allowance = Allowance(10, now=0.0)
    assert [allowance.take(0.0) for _ in range(21)] == [True] * 20 + [False]
    assert not allowance.take(0.01)
    assert [allowance.take(100.0) for _ in range(21)] == [True] * 20 + [False]


# --- the command -----------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_or_none() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(UserError, match="another --port"):
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UserError, match="70000"):
        listen("127.0.0.1", 70000)


def test_a_real_env_that_is_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in find_model("quickstart").iterdir():
        (folder / path.name).symlink_to(path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    config["env"]["settings"]["id"] = "NoSuchGame-v0"
    (folder / "config.json").write_text(json.dumps(config))
    assert load_game(str(folder), beside_real=False).name == "model"
    with pytest.raises(UserError, match=r"--beside-real.*NoSuchGame-v0.*play without"):
        load_game(str(folder), beside_real=True)


def test_the_command_from_its_start_to_ctrl_c() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "worldsim", "play", "quickstart", "--no-browser", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    stop = threading.Timer(100, process.kill)
    stop.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("quickstart dreams at http://127.0.0.1:")
        port = int(line.split("127.0.0.1:")[1].split("/")[0])
        with Page(port) as page:
            assert page.hello["has_policy"]
            page.do("policy", True)
            while (view := page.next_view())["step"] < 10:
                if view["ended"] is not None:  # one real start in eight is about to fall over
                    page.send("restart", None)
            process.send_signal(2)
            with pytest.raises(ConnectionClosed):
                page.receive_to_the_end()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "Traceback" not in errors
        assert "viewer 1 came" in errors
    finally:
        stop.cancel()
        process.kill()
