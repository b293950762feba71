"""Serves the page and its dreams: who may connect, what is sent, how much is taken."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import socket
import threading
import webbrowser
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, WebSocket
from fastapi.responses import FileResponse, PlainTextResponse, Response

from worldsim.errors import UserError
from worldsim.play.game import Game, load_game
from worldsim.play.viewer import POLICY_VIOLATION, Viewer

PAGE = Path(__file__).parent / "page"
FILES = {"/": "index.html", "/play.css": "play.css", "/play.js": "play.js"}
MOST_VIEWERS = 8
LARGEST_FRAME = 65_536  # bytes of a websocket message; what is larger ends the connection before it is read
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address may hold the token
    "Cache-Control": "no-store",
}

log = logging.getLogger("worldsim.play")


@dataclass(frozen=True)
class Access:
    """Who may connect. host: the address listened on. token: what the address of the page must carry, None for none."""

    host: str
    token: str | None = None

    def refusal(self, headers: Mapping[str, str], query: str, *, needs_origin: bool, needs_token: bool) -> str | None:
        """Why a request may not be answered; None if it may.

        Host: a foreign name that was made to lead here (DNS rebinding) is refused. Origin: only our own page.
        """
        host = headers.get("host", "")
        name = _host_name(host)
        if name is None or not self._is_ours(name):
            return f"Host {host[:80]!a} is not this server"
        origin = headers.get("origin")
        if origin is None and needs_origin:
            return "there is no Origin"
        if origin is not None and origin != f"http://{host}":
            return f"Origin {origin[:80]!a} is not this page"
        if needs_token and self.token is not None:
            given = parse_qs(query).get("token", [""])[0]
            if not secrets.compare_digest(given.encode(), self.token.encode()):
                return "the token is missing or wrong: open the address that was printed"
        return None

    def _is_ours(self, name: str) -> bool:
        if name in LOOPBACK_NAMES or name == self.host.lower():
            return True
        if is_loopback(self.host):
            return False
        # An address is no name that DNS could lead elsewhere.
        return _is_address(name) or (_is_any(self.host) and name == socket.gethostname().lower())


def create_app(game: Game, access: Access) -> FastAPI:
    """The application: a page, its style and script, and a websocket for each viewer."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    # One thread for all dreams: they take turns, and an env that is bound to its thread stays in it. At one row
    # a second thread of torch brings a fifth, and makes it ten times slower where other work wants the core.
    worker = ThreadPoolExecutor(1, "dreams", initializer=torch.set_num_threads, initargs=(1,))
    seeds = np.random.SeedSequence()
    viewers: set[int] = set()
    app.state.viewers = viewers

    @app.middleware("http")
    async def guard(request: Any, answer: Callable[[Any], Awaitable[Response]]) -> Response:
        path = request.url.path
        refusal = access.refusal(request.headers, request.url.query, needs_origin=False, needs_token=path == "/")
        if refusal is not None:
            log.warning("refused %s %s: %s", request.method, ascii(path[:80]), refusal)
            response: Response = PlainTextResponse(f"worldsim: {refusal}\n", 403)
        else:
            response = await answer(request)
        response.headers.update(HEADERS)
        return response

    for path, name in FILES.items():
        app.add_api_route(path, _file(PAGE / name), methods=["GET"])

    @app.websocket("/dream")
    async def dream(websocket: WebSocket) -> None:
        refusal = access.refusal(websocket.headers, websocket.url.query, needs_origin=True, needs_token=True)
        if refusal is not None:
            log.warning("refused a websocket: %s", refusal)
            await websocket.close(POLICY_VIOLATION)  # before it is accepted: the answer is 403
            return
        await websocket.accept()
        if len(viewers) >= MOST_VIEWERS:
            log.warning("refused a viewer: there are %d already", len(viewers))
            await websocket.close(1013, f"{MOST_VIEWERS} viewers are here already: try again later")
            return
        seed = seeds.spawn(1)[0]
        number = seed.spawn_key[-1] + 1
        viewers.add(number)
        log.info("viewer %d came", number)
        loop = asyncio.get_running_loop()
        session = None
        try:
            session = await loop.run_in_executor(worker, game.new_session, int(seed.generate_state(1)[0]))
            await Viewer(websocket, number, game, session, worker).serve()
        except Exception:
            log.exception("viewer %d: its dream broke", number)
            with contextlib.suppress(Exception):
                await websocket.close(1011, "the dream broke: see the terminal that worldsim runs in")
        finally:
            viewers.discard(number)
            if session is not None:
                await loop.run_in_executor(worker, session.close)

    return app


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections. port: 0 for any free one. Raises UserError where it cannot."""
    if not 0 <= port < 2**16:
        raise UserError(f"--port {port}: expected 0 (any free one) to 65535")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"cannot listen on {host} port {port} ({reason}): choose another --port, or a --host of this machine"
        ) from None


def make_server(game: Game, access: Access) -> uvicorn.Server:
    """The server; `run(sockets=[...])` serves until it is interrupted or `should_exit` is set."""
    config = uvicorn.Config(
        create_app(game, access),
        ws="websockets-sansio",
        ws_max_size=LARGEST_FRAME,
        ws_per_message_deflate=False,  # frames are small, and a compressed message could be larger than it looks
        log_config=None,
        log_level="warning",
        access_log=False,  # the address of the page may hold the token
        server_header=False,
        timeout_graceful_shutdown=10,  # viewers are told at once; a step may still be under way
    )
    logging.getLogger("uvicorn.error").addFilter(_without_traceback)
    return uvicorn.Server(config)


def play(
    name_or_folder: str, *, host: str, port: int, beside_real: bool, open_browser: bool, say: Callable[[str], None]
) -> None:
    """Load a model and serve its dreams until interrupted; `say` gets the address. Raises UserError."""
    listening = listen(host, port)
    with listening:
        game = load_game(name_or_folder, beside_real=beside_real)
        access = Access(host, None if is_loopback(host) else secrets.token_urlsafe(16))
        address = page_address(access, listening.getsockname()[1])
        say(f"{game.name} dreams at {address} (Ctrl-C ends it)")
        logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
        log.setLevel(logging.INFO)
        if open_browser:  # it connects when the server is ready: the socket listens already
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):
            make_server(game, access).run(sockets=[listening])


def page_address(access: Access, port: int) -> str:
    """What to type into a browser."""
    name = socket.gethostname() if _is_any(access.host) else access.host
    query = "" if access.token is None else f"?token={access.token}"
    return f"http://{f'[{name}]' if ':' in name else name}:{port}/{query}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to `host`."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_any(host: str) -> bool:
    return _is_address(host) and ipaddress.ip_address(host).is_unspecified


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _host_name(host: str) -> str | None:
    """The name in a Host header, without the port; None for what is no name."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # ValueError for what is no port
    except ValueError:
        return None
    return parts.hostname if parts.netloc == host and "@" not in host else None


def _file(path: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def file() -> FileResponse:
        return FileResponse(path)

    return file


def _without_traceback(record: logging.LogRecord) -> bool:
    """A broken message is the client's fault: one line, no traceback."""
    if "Invalid UTF-8" in record.msg:
        record.exc_info = None
    return True
