"""Writing files so that a crash leaves something whole, and saying in plain words why one could not be written."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from worldsim.errors import UserError


@contextmanager
def explained(what: str, folder: Path) -> Iterator[None]:
    """Turns the operating system's errors into the user's."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "the disk is full; free some space and run the same command again (stored episodes are whole)"
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            remedy = "choose a folder that may be written, or change its permissions"
        else:
            remedy = "check the disk and the path"
        raise UserError(f"cannot {what} in {folder}: {error.strerror or error}; {remedy}") from error


def write_json(path: Path, value: Any) -> None:
    """Writes all of it or nothing: a crash leaves the old file."""
    write_whole(path, json.dumps(value, indent=2).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Writes all of it or nothing: a crash or a full disk leaves the old file."""
    with whole_file(path) as file:
        file.write(content)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write into, which takes the place of `path` when all is written: before, the old one stays."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_synced(file: IO[bytes], parts: Sequence[bytes]) -> None:
    """Appends the parts and waits until they are on the disk."""
    # Straight to the file descriptor: nothing may wait in a buffer and be written after a failure was cut back.
    for part in parts:
        rest = memoryview(part)
        while rest:
            rest = rest[os.write(file.fileno(), rest) :]
    os.fsync(file.fileno())


def sync_folders(*folders: Path) -> None:
    """Makes the names of new files durable."""
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """While entered, no other process is inside for this path: waits for its turn. The file `path` stays, empty."""
    with open(path, "ab") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        yield


def lock(file: IO[bytes], folder: Path) -> None:
    """Takes the file for this process until it is closed. Raises UserError if another one has it."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"{folder} is being written by another process; wait for it or stop it") from error
