"""The command line in a process of its own that can be stopped at a chosen moment.

Processes are forked from a server that has imported everything already, so that one costs no more than its work.
"""

from __future__ import annotations

import importlib
import os
import re
import resource
import signal
import sys
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

PRELOADED = (
    "worldsim.cli",
    "worldsim.workflow.run",
    "torch._dynamo",  # what the first optimizer of a process imports
    "torch.utils.tensorboard",
    "moviepy.video.io.ffmpeg_writer",
    "rich.console",
    "rich.table",
)


PROGRESS_BAR = re.compile(r"\d%\|")


def said(errors: str) -> list[str]:
    """The lines on stderr that are no progress bars."""
    lines = errors.replace("\r", "\n").splitlines()
    return [line for line in lines if line.strip() and not PROGRESS_BAR.search(line)]


@dataclass(frozen=True)
class Stop:
    """Send `number` at the `call`-th call of `function` ("module:name.name") whose arguments mention `mentioning`."""

    function: str
    call: int = 1
    mentioning: str = ""
    number: int = signal.SIGKILL

    def arm(self) -> None:
        """Put the trap in place, in this process."""
        module, _, path = self.function.partition(":")
        *parents, name = path.split(".")
        owner = importlib.import_module(module)
        for parent in parents:
            owner = getattr(owner, parent)
        original, calls = getattr(owner, name), 0

        def counted(*arguments: object, **named: object) -> object:
            nonlocal calls
            calls += self.mentioning in f"{arguments} {named}" if self.mentioning else 1
            if calls == self.call:
                calls += 1
                os.kill(os.getpid(), self.number)
            return original(*arguments, **named)

        setattr(owner, name, counted)


@dataclass(frozen=True)
class Outcome:
    """How a command ended. code: as the shell sees it, negative for the signal that killed it."""

    code: int
    output: str
    errors: str

    @property
    def message(self) -> str:
        """The last line on stderr."""
        return (said(self.errors) or [""])[-1]


def command(*arguments: object, log: Path, stop: Stop | None = None, file_kilobytes: int | None = None) -> Outcome:
    """Run `worldsim ARGUMENTS`; its output goes through files in the folder `log`.

    file_kilobytes: no file may grow beyond this.
    """
    log.mkdir(parents=True, exist_ok=True)
    context = get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    process = context.Process(target=_run, args=([str(argument) for argument in arguments], log, stop, file_kilobytes))
    process.start()
    process.join()
    code = process.exitcode
    assert code is not None
    texts = ((log / name).read_text(encoding="utf-8", errors="replace") for name in ("stdout", "stderr"))
    return Outcome(code, *texts)


def _run(arguments: list[str], log: Path, stop: Stop | None, file_kilobytes: int | None) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(log / name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(file, number)
        os.close(file)
    if stop is not None:
        stop.arm()
    if file_kilobytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing then fails with an error of its own, EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * file_kilobytes, resource.RLIM_INFINITY))
    import torch

    torch.seed()  # forked children would share the server's random state, as processes of their own do not
    from worldsim.cli import main

    sys.exit(main(arguments))
