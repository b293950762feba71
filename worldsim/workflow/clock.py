"""How long each stage of a run took, over all interruptions."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from worldsim.data.files import write_json

HEARTBEAT_SECONDS = 10.0


class StageClock:
    """Seconds by stage in `RUN/seconds.json`, written while the stage runs so that a killed process loses little.

    `seconds` is up to date whenever no stage runs; `now()` always.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seconds: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self._running: tuple[str, float] | None = None  # stage, and what to add to the clock for its seconds

    def now(self) -> dict[str, float]:
        """Seconds by stage, those of the running stage included."""
        if self._running is None:
            return dict(self.seconds)
        stage, offset = self._running
        return {**self.seconds, stage: offset + time.monotonic()}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time inside the block to `stage`."""
        self._running = stage, self.seconds.get(stage, 0.0) - time.monotonic()
        stop = threading.Event()

        def record() -> None:
            self.seconds = self.now()
            # Times are not worth a run, and a full disk is told by who needs it; the next beat writes them again.
            with suppress(OSError):
                write_json(self._path, {name: round(value, 2) for name, value in self.seconds.items()})

        def beat() -> None:
            while not stop.wait(HEARTBEAT_SECONDS):
                record()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            record()
            self._running = None
