"""A headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Space": 32, "Tab": 9}


def find_chromium() -> str:
    """Its path. Without one the test is skipped; in CI, or with WORLDSIM_REQUIRE_BROWSER, it fails."""
    for name in NAMES:
        path = shutil.which(name)
        if path is not None:
            return path
    missing = (
        f"none of {', '.join(NAMES)} is installed: the page is NOT TESTED in a browser (Debian: apt install chromium)"
    )
    warnings.warn(missing, stacklevel=1)  # pytest counts what was skipped, and shows warnings
    if os.environ.get("CI") or os.environ.get("WORLDSIM_REQUIRE_BROWSER"):
        pytest.fail(missing)
    pytest.skip(missing)


class Tab:
    """One page. `complaints` are the console's errors and warnings, and exceptions that nobody caught."""

    def __init__(self, address: str, downloads: Path) -> None:
        self._open = ExitStack()
        self._socket = self._open.enter_context(connect(address, max_size=None, compression=None, proxy=None))
        self._count = 0
        self.complaints: list[str] = []
        self.downloads = downloads
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == self._count:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        method, given = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(given["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(given["args"])[:500])
        elif method == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self, name: str) -> str:
        """What the element with this id shows."""
        return str(self.evaluate(f"document.getElementById({name!r}).innerText")).strip()

    def picture(self, name: str = "dream") -> str:
        """The pixels of a canvas, as a string to compare."""
        return str(self.evaluate(f"document.getElementById({name!r}).toDataURL()"))

    def wait(self, expression: str, seconds: float = 30) -> Any:
        """Until the expression is true."""
        ends = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < ends, f"still not true: {expression}; {self.complaints}"
            time.sleep(0.02)
        return value

    def wait_for_text(self, name: str, part: str) -> None:
        self.wait(f"document.getElementById({name!r})?.innerText.includes({part!r})")

    def key(self, code: str, *kinds: str) -> None:
        """Press a key and let it go, or only one of "keyDown" and "keyUp"."""
        letter = code.removeprefix("Key")
        text = letter.lower() if len(letter) == 1 else " " if code == "Space" else ""
        number = KEYS.get(code) or ord(letter)
        for kind in kinds or ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent", type=kind, code=code, key=text or code, windowsVirtualKeyCode=number, **typed
            )

    def middle(self, selector: str) -> tuple[float, float]:
        """Where to click on it, after scrolling there."""
        x, y = self.evaluate(
            f"(() => {{ const one = document.querySelector({selector!r}); one.scrollIntoView({{block: 'center'}});"
            " const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        return x, y

    def click(self, selector: str) -> None:
        x, y = self.middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def touch(self, selector: str) -> None:
        x, y = self.middle(selector)
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def resize(self, width: int, height: int, ratio: float = 1, *, mobile: bool = False, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=ratio, mobile=mobile
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        self.call("Page.close")
        self._open.close()


@contextmanager
def browser(folder: Path) -> Iterator[str]:
    """Starts Chromium with a profile below `folder`; gives the address of its DevTools protocol."""
    profile = folder / "profile"
    options = [
        "--headless=new",
        "--no-sandbox",  # for root, which continuous integration often is; it opens nothing but our own page
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-background-timer-throttling",
        "--disable-backgrounding-occluded-windows",
        "--disable-renderer-backgrounding",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "about:blank",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with (folder / "chromium.log").open("w") as output:
        process = subprocess.Popen([find_chromium(), *options], stdout=output, stderr=output, env=environment)
        try:
            yield _address(profile / "DevToolsActivePort", process)
        finally:
            process.terminate()
            process.wait(timeout=30)


def _address(file: Path, process: subprocess.Popen[bytes]) -> str:
    """Chromium writes its port and a path there, a line each, when it is ready."""
    ends = time.monotonic() + 60
    while not (file.exists() and len(file.read_text().split()) == 2):
        assert process.poll() is None, "Chromium ended at once"
        assert time.monotonic() < ends, "Chromium does not start"
        time.sleep(0.05)
    port, path = file.read_text().split()
    return f"ws://127.0.0.1:{port}{path}"


@contextmanager
def new_tab(browser_address: str, address: str, downloads: Path) -> Iterator[Tab]:
    """A tab at `address`; fails at the end if anything in it complained."""
    with connect(browser_address, compression=None, proxy=None) as control:
        control.send(json.dumps({"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}}))
        target = None
        while target is None:
            target = json.loads(control.recv(timeout=30)).get("result", {}).get("targetId")
    tab = Tab(f"{browser_address.partition('/devtools/')[0]}/devtools/page/{target}", downloads)
    tab.open(address)
    yield tab
    tab.evaluate("0")  # whatever it still has to say
    complaints = tab.complaints
    tab.close()
    assert not complaints
