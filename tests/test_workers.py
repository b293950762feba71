from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from worldsim.errors import UserError
from worldsim.workers import Send, run_workers


def work(send: Send, first: int, count: int) -> None:
    for number in range(first, first + count):
        send((os.getpid(), number))


def fail(send: Send, *, error: Exception | None) -> None:
    if error is not None:
        raise error
    send("fine")


def vanish(send: Send, code: int) -> None:
    os._exit(code)


def test_messages_arrive_in_order_from_processes_of_their_own() -> None:
    received: dict[int, list[tuple[int, int]]] = {0: [], 1: []}
    run_workers(work, [{"first": 10, "count": 3}, {"first": 20, "count": 2}], lambda w, m: received[w].append(m))
    assert [number for _, number in received[0]] == [10, 11, 12]
    assert [number for _, number in received[1]] == [20, 21]
    assert len({os.getpid(), received[0][0][0], received[1][0][0]}) == 3


def test_one_worker_runs_here() -> None:
    received: list[Any] = []
    run_workers(work, [{"first": 1, "count": 1}], lambda worker, message: received.append((worker, message)))
    assert received == [(0, (os.getpid(), 1))]


def test_an_error_arrives_with_its_message_and_its_trace() -> None:
    arguments: list[dict[str, Exception | None]] = [{"error": None}, {"error": RuntimeError("no engine")}]
    with pytest.raises(UserError, match=r"^worker 1 failed: RuntimeError: no engine$") as caught:
        run_workers(fail, arguments, lambda worker, message: None)
    assert "in fail" in str(caught.value.__cause__)
    arguments = [{"error": None}, {"error": UserError("unknown environment")}]
    with pytest.raises(UserError, match=r"^worker 1 failed: unknown environment$"):
        run_workers(fail, arguments, lambda worker, message: None)


def test_an_error_of_the_one_worker_here_reads_the_same() -> None:
    with pytest.raises(UserError, match=r"^RuntimeError: no engine$") as caught:
        run_workers(fail, [{"error": RuntimeError("no engine")}], lambda worker, message: None)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_worker_that_vanishes_is_noticed() -> None:
    with pytest.raises(UserError, match="died without a word"):
        run_workers(vanish, [{"code": 0}, {"code": 0}], lambda worker, message: None)


def test_work_that_cannot_be_sent_is_a_user_error() -> None:
    with pytest.raises(UserError, match="cannot send the work"):
        run_workers(work, [{"first": lambda: 1, "count": 1}] * 2, lambda worker, message: None)


def keep_open(send: Send, path: Path) -> None:
    """Holds something open, as an environment holds its engine, until it is told to go."""
    path.touch()
    try:
        time.sleep(600)
    finally:
        path.unlink()


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_close_what_they_opened_when_their_parent_dies(tmp_path: Path, kind: signal.Signals) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    program = (
        "from pathlib import Path; from tests.test_workers import keep_open; from worldsim.workers import run_workers\n"
        f"run_workers(keep_open, [{{'path': Path({str(paths[0])!r})}}, {{'path': Path({str(paths[1])!r})}}], print)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)

    def comes_true(condition: Callable[[], bool]) -> bool:
        limit = time.monotonic() + 120
        while not (met := condition()) and time.monotonic() < limit:
            time.sleep(0.05)
        return met

    try:
        assert comes_true(lambda: all(path.exists() for path in paths))
        parent.send_signal(kind)
        assert parent.wait(120) != 0
        assert comes_true(lambda: not any(path.exists() for path in paths))
    finally:
        parent.kill()
