"""Worker processes that report to the process that started them, and never outlive it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection, get_all_start_methods, get_context, parent_process
from typing import Any

from worldsim.errors import UserError

Send = Callable[[Any], None]

LAST_SECONDS = 5.0  # that an orphaned worker has for closing what it opened

PRELOADED = ["torch", "gymnasium", "worldsim.workers"]


def run_workers(
    task: Callable[..., None], arguments: Sequence[Mapping[str, Any]], on_message: Callable[[int, Any], None]
) -> None:
    """Runs `task(send, **arguments[w])` for each w in a process of its own, until all have returned.

    What worker w sends arrives as `on_message(w, message)` here. A single worker runs in this process. Task and
    arguments must be picklable (made at the top level of a module). When a worker fails or this process is
    interrupted, all workers are stopped; a failure is raised as UserError with its message, its trace as the cause.
    """
    if len(arguments) == 1:
        try:
            task(lambda message: on_message(0, message), **arguments[0])
        except Exception as error:
            raise UserError(_message(error)) from error
        return
    context = _context()
    pipes: dict[connection.Connection, int] = {}
    processes = []
    try:
        for worker, values in enumerate(arguments):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(sender, task, values), name=f"worker-{worker}", daemon=True)
            processes.append(process)
            try:
                process.start()
            except (AttributeError, TypeError) as error:
                raise UserError(f"cannot send the work to a worker process: {error}; use one worker") from error
            sender.close()  # so that the worker's death ends the pipe
            pipes[receiver] = worker
        while pipes:
            for pipe in connection.wait(list(pipes)):
                assert isinstance(pipe, connection.Connection)
                _receive(pipe, pipes, on_message)
    finally:
        for process in processes:
            if process.pid is not None:
                process.terminate()
        for process in processes:
            if process.pid is not None:
                process.join(LAST_SECONDS)
                process.kill()  # one that hangs
                process.join()


def _context() -> Any:
    """A start method that shares neither threads nor locks with this process, which has used torch.

    Where there is a fork server, it imports torch and the rest once; every worker after that starts in milliseconds.
    """
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _receive(
    pipe: connection.Connection, pipes: dict[connection.Connection, int], on_message: Callable[[int, Any], None]
) -> None:
    worker = pipes[pipe]
    try:
        kind, content = pipe.recv()
    except (EOFError, OSError) as error:
        raise UserError(
            f"worker {worker} died without a word; it may have run out of memory, or the program that started it lacks "
            'an `if __name__ == "__main__":` around what it does (workers import it)'
        ) from error
    if kind == "message":
        on_message(worker, content)
        return
    del pipes[pipe]
    if kind == "failed":
        message, trace = content
        raise UserError(f"worker {worker} failed: {message}") from RuntimeError(trace)


def _work(sender: connection.Connection, task: Callable[..., None], values: Mapping[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C and stops us
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if "torch" in sys.modules:  # many processes: one thread each
        sys.modules["torch"].set_num_threads(1)
    try:
        task(lambda message: sender.send(("message", message)), **values)
    except Exception as error:
        sender.send(("failed", (_message(error), traceback.format_exc())))
    else:
        sender.send(("done", None))


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def _leave(number: int, frame: object) -> None:
    """Unwinds the task, so that it closes what it opened: an environment's engine may be a process of its own."""
    raise SystemExit(1)


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LAST_SECONDS)  # a task that hangs does not hear it
        os._exit(1)
