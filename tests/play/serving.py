"""A server in this process, and pages of it without a browser."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Self, cast

import uvicorn
from fastapi import FastAPI
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from worldsim.play.game import Game
from worldsim.play.server import Access, listen, make_server


@dataclass
class Serving:
    port: int
    server: uvicorn.Server

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def viewers(self) -> int:
        """How many pages the server dreams for."""
        return len(cast(FastAPI, self.server.config.app).state.viewers)

    def page(self, **options: Any) -> Page:
        return Page(self.port, **options)


@contextmanager
def serving(game: Game, access: Access | None = None) -> Iterator[Serving]:
    with listen("127.0.0.1", 0) as listening:
        server = make_server(game, access or Access("127.0.0.1"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Serving(listening.getsockname()[1], server)
        finally:
            server.should_exit = True
            thread.join(timeout=20)
            assert not thread.is_alive()


class Page:
    """What the page does, step by step. `header` and `pixels` are those of the newest view."""

    def __init__(self, port: int, *, query: str = "", origin: str | None = "own", host: str | None = None) -> None:
        own = f"http://127.0.0.1:{port}"
        self._open = ExitStack()
        opening = connect(
            f"ws://127.0.0.1:{port}/dream{query}",
            origin=None if origin is None else Origin(own if origin == "own" else origin),
            additional_headers=None if host is None else {"Host": host},
            compression=None,
            proxy=None,
            open_timeout=30,
        )
        self.socket: ClientConnection = self._open.enter_context(opening)
        self.hello, _ = self.receive()
        self.header: dict[str, Any] = {}
        self.pixels = b""
        self.next_view()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._open.close()

    def send(self, kind: str, value: Any = None) -> None:
        self.socket.send(json.dumps({"type": kind} if value is None else {"type": kind, "value": value}))

    def receive(self, timeout: float = 30) -> tuple[dict[str, Any], bytes]:
        data = self.socket.recv(timeout)
        assert isinstance(data, bytes)
        (length,) = struct.unpack_from("<I", data)
        return json.loads(data[4 : 4 + length]), data[4 + length :]

    def receive_to_the_end(self) -> None:
        """Until the server closes the connection; raises ConnectionClosed."""
        while True:
            self.receive()

    def next_view(self) -> dict[str, Any]:
        """The next view, confirmed."""
        header, pixels = self.receive()
        assert header["type"] == "view", header
        self.header, self.pixels = header, pixels
        self.send("shown", header["view"])
        return header

    def do(self, kind: str, value: Any = None) -> dict[str, Any]:
        """Ask for something while the dream stands still; the view that follows."""
        self.send(kind, value)
        return self.next_view()
