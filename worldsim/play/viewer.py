"""Joins a session to a websocket. The dream runs in a worker thread, at its own pace, whatever the network does.

A frame goes out only while fewer than IN_FLIGHT are under way to the page, which confirms each; meanwhile newer frames
replace the one that waits. So a slow client misses frames, and never has a queue of old ones before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

from fastapi import WebSocket, WebSocketDisconnect

from worldsim.errors import UserError
from worldsim.play.commands import Command, RefusedMessage, read_command
from worldsim.play.game import Game
from worldsim.play.recording import Recording, mp4
from worldsim.play.session import Session, envelope

IN_FLIGHT = 2
MESSAGES_PER_SECOND = 400.0
MOST_REFUSED = 100  # messages of one viewer
TOO_LARGE, POLICY_VIOLATION = 1009, 1008  # codes with which a websocket is closed (RFC 6455, 7.4.1)

log = logging.getLogger("worldsim.play")
T = TypeVar("T")


class EnoughError(Exception):
    """A client that sends too much, or nonsense too often; the text says which."""


class Allowance:
    """How many messages may come: `per_second` on average, twice as many at once. Times in seconds."""

    def __init__(self, per_second: float, now: float) -> None:
        self._per_second, self._left, self._last = per_second, 2 * per_second, now

    def take(self, now: float) -> bool:
        """Whether one more may come now."""
        self._left = min(2 * self._per_second, self._left + (now - self._last) * self._per_second) - 1
        self._last = now
        return self._left >= 0


class Viewer:
    """One page, from its introduction to its end."""

    def __init__(self, websocket: WebSocket, number: int, game: Game, session: Session, worker: Executor) -> None:
        """worker: the one thread in which `session` lives."""
        self._websocket, self._number = websocket, number
        self._game, self._session, self._worker = game, session, worker
        self._plays = asyncio.Event()
        self._views = 0  # made so far
        self._waiting: tuple[int, bytes] | None = None  # the newest view, while it is not sent
        self._under_way: deque[int] = deque()  # numbers of the views that are sent and not confirmed
        self._may_send = asyncio.Event()
        self._refused = 0
        self._encoding: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Until the page goes, or sends too much."""
        try:
            await self._websocket.send_bytes(envelope(self._game.introduction(), b""))
            await self._show()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._receive(tasks))
                tasks.create_task(self._play())
                tasks.create_task(self._send())
        except* WebSocketDisconnect as left:
            codes = [error.code for error in left.exceptions if isinstance(error, WebSocketDisconnect)]
            why = "a message was too large" if TOO_LARGE in codes else f"code {codes[0]}"
            log.info("viewer %d left (%s)", self._number, why)
        except* EnoughError as enough:
            reason = str(enough.exceptions[0])
            log.warning("viewer %d is disconnected: %s", self._number, reason)
            with contextlib.suppress(WebSocketDisconnect):
                await self._websocket.close(POLICY_VIOLATION, reason)

    async def _play(self) -> None:
        """Steps at the session's pace while it plays."""
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            await self._plays.wait()
            await asyncio.sleep(due - clock())
            pace = self._session.seconds_per_step
            due = max(due, clock() - pace) + pace  # at most one step is caught up with
            await self._show(self._session.step, only_if_playing=True)  # a pause may come first

    async def _receive(self, tasks: asyncio.TaskGroup) -> None:
        clock = asyncio.get_running_loop().time
        allowance = Allowance(MESSAGES_PER_SECOND, clock())
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code") or 1005)
            if not allowance.take(clock()):
                raise EnoughError(f"more than {MESSAGES_PER_SECOND:g} messages a second")
            text = message.get("text")
            try:
                content = message["bytes"] if text is None else text
                command = read_command(content, self._game.model.spec, self._game.sampling_steps)
                await self._obey(command, tasks)
            except RefusedMessage as refused:
                self._refused += 1
                log.warning("viewer %d: refused %s", self._number, refused)
                if self._refused > MOST_REFUSED:
                    raise EnoughError(f"more than {MOST_REFUSED} refused messages") from None
                await self._tell_error(str(refused))

    async def _obey(self, command: Command, tasks: asyncio.TaskGroup) -> None:
        if command.type == "shown":
            if command.value > self._views:
                raise RefusedMessage(f"shown {command.value}: expected at most {self._views}")
            while self._under_way and self._under_way[0] <= command.value:
                self._under_way.popleft()
            self._may_send.set()
            return
        if command.type == "record" and self._encoding is not None and not self._encoding.done():
            raise RefusedMessage("record: the recording before is still being written")
        done = await self._show(self._session.apply, command)
        if done is not None:
            self._encoding = tasks.create_task(self._hand_over(done))

    async def _hand_over(self, recording: Recording) -> None:
        try:
            video = await asyncio.to_thread(mp4, recording, self._game.model.spec.frames_per_second)
        except UserError as error:
            log.warning("viewer %d: no video: %s", self._number, error)
            await self._tell_error(str(error))
            return
        header = {"type": "video", "name": f"{self._game.name}-dream.mp4", "frames": len(recording)}
        await self._websocket.send_bytes(envelope(header, video))

    async def _tell_error(self, text: str) -> None:
        await self._websocket.send_bytes(envelope({"type": "error", "text": text}, b""))

    async def _show(
        self, change: Callable[..., T] | None = None, *arguments: Any, only_if_playing: bool = False
    ) -> T | None:
        """Make a change in the session; then its view takes the place of the one that waits to be sent.

        only_if_playing: otherwise neither.
        """
        self._views += 1
        number = self._views

        def work() -> tuple[T | None, bytes | None]:
            if only_if_playing and not self._session.is_playing:
                return None, None
            result = None if change is None else change(*arguments)
            return result, self._session.view(number)

        result, view = await asyncio.get_running_loop().run_in_executor(self._worker, work)
        if view is not None:
            self._waiting = (number, view)
            self._may_send.set()
        if self._session.is_playing:
            self._plays.set()
        else:
            self._plays.clear()
        return result

    async def _send(self) -> None:
        while True:
            await self._may_send.wait()
            self._may_send.clear()
            if self._waiting is not None and len(self._under_way) < IN_FLIGHT:
                (number, view), self._waiting = self._waiting, None
                self._under_way.append(number)
                await self._websocket.send_bytes(view)
