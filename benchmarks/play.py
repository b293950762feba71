"""How fast a page of `worldsim play` gets its frames, and how soon they follow a key.

    python -m benchmarks.play take_cover quickstart --viewers 1 4

Starts the command itself and speaks to it as a page does, without a browser: each viewer dreams as fast as it goes and
confirms every frame. Printed for each model: frames a second of a viewer, the median time from a key to the first frame
that shows its action, and frames for each second of processor time that the server took, which depends less on what
else the machine does. Dreams that end begin anew.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

WARM_UP_SECONDS = 2.0
KEY_SECONDS = 0.5  # between two keys


@dataclass
class Measured:
    """frames: shown in all. rate: frames a second after the warm-up. key_seconds: of each key."""

    frames: int = 0
    rate: float = 0.0
    key_seconds: list[float] = field(default_factory=list)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--viewers", type=int, nargs="+", default=[1])
    parser.add_argument("--seconds", type=float, default=15.0)
    options = parser.parse_args()
    for model in options.models:
        for viewers in options.viewers:
            print(measure(model, viewers, options.seconds), flush=True)


def measure(model: str, viewers: int, seconds: float) -> str:
    """One line of figures."""
    server = subprocess.Popen(
        [sys.executable, "-m", "worldsim", "play", model, "--no-browser", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    address = server.stdout.readline().split(" at ")[1].split("/ ")[0]
    loaded = processor_seconds(server.pid)
    results = [Measured() for _ in range(viewers)]
    pages = [threading.Thread(target=watch, args=(address, seconds, result)) for result in results]
    for page in pages:
        page.start()
    for page in pages:
        page.join()
    processor = processor_seconds(server.pid) - loaded
    server.send_signal(signal.SIGINT)
    server.wait(timeout=60)
    keys = [key for result in results for key in result.key_seconds]
    return (
        f"{model}, {viewers} viewer(s): {statistics.mean(result.rate for result in results):.1f} frames/s each, "
        f"key to frame {1000 * statistics.median(keys):.0f} ms, "
        f"{sum(result.frames for result in results) / processor:.1f} frames a processor second"
    )


def processor_seconds(process: int) -> float:
    """What a process has used so far, as Linux tells it."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime; see proc(5)


def watch(address: str, seconds: float, result: Measured) -> None:
    """A page that presses the first and the last action in turn."""
    with connect(
        f"{address.replace('http', 'ws')}/dream", origin=Origin(address), compression=None, proxy=None
    ) as page:
        actions = [0, len(receive(page)["controls"]["buttons"]) - 1]
        tell(page, "speed", 100)
        begun = time.monotonic()
        counted, last_step, pressed, pressed_at = 0, 0, 0, begun
        waits_for: int | None = None
        while (now := time.monotonic()) < begun + seconds:
            if waits_for is None and now > pressed_at + KEY_SECONDS:
                pressed, pressed_at = 1 - pressed, now
                waits_for = actions[pressed]
                tell(page, "action", waits_for)
            view = receive(page)
            if view["type"] != "view":
                continue
            tell(page, "shown", view["view"])
            now = time.monotonic()
            if view["step"] != last_step:
                last_step = view["step"]
                result.frames += 1
                counted += now > begun + WARM_UP_SECONDS
            if waits_for is not None and view["action"] == waits_for:
                result.key_seconds.append(now - pressed_at)
                waits_for = None
            if view["ended"] is not None:
                tell(page, "restart")
            elif view["waits"]:
                tell(page, "play")
        result.rate = counted / (time.monotonic() - begun - WARM_UP_SECONDS)


def tell(page: ClientConnection, kind: str, value: Any = None) -> None:
    """Send a message of the page."""
    page.send(json.dumps({"type": kind} if value is None else {"type": kind, "value": value}))


def receive(page: ClientConnection) -> dict[str, Any]:
    """The header of the next message."""
    data = page.recv(timeout=60)
    assert isinstance(data, bytes)
    (length,) = struct.unpack_from("<I", data)
    header: dict[str, Any] = json.loads(data[4 : 4 + length])
    return header


if __name__ == "__main__":
    main()
