"""As much of the Hugging Face hub as pulling and pushing a model needs, on loopback, in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "a" * 40


class FakeHub:
    """repositories: files by name. private: which were made so. unknown: requests that nobody answers."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.tokens: set[str] = set()
        self.unknown: list[str] = []
        self.url = ""


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """A hub that answers at its `url` until the end."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *arguments: _Handler(hub, *arguments))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _is_private(asked: dict[str, Any]) -> bool:
    """As older and as newer clients say it."""
    return bool(asked.get("private")) or asked.get("visibility") == "private"


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, hub: FakeHub, *arguments: Any) -> None:
        self.hub = hub
        super().__init__(*arguments)

    def log_message(self, *arguments: Any) -> None:
        """Nothing on stderr."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+)?", path):
            files = self.hub.repositories.get(found[1])
            if files is None:
                return self._missing("RepoNotFound")
            names = [{"rfilename": name} for name in files]
            return self._json({"id": found[1], "sha": COMMIT, "siblings": names, "private": False, "tags": []})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
            files = self.hub.repositories.get(found[1], {})
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            return self._json(entries)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            data = self.hub.repositories.get(found[1], {}).get(found[2])
            if data is None:
                return self._missing("EntryNotFound")
            tag = hashlib.sha1(data).hexdigest()
            return self._answer(200, data, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})
        return self._unknown()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        if self.headers.get("Authorization") == "Bearer hf_wrong":
            return self._answer(401, b'{"error": "Invalid credentials"}', {"X-Error-Message": "Invalid credentials"})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if name in self.hub.repositories:
                taken = {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}
                return self._answer(409, json.dumps(taken).encode(), {})
            self.hub.repositories[name], self.hub.private[name] = {}, _is_private(asked)
            return self._json({"url": f"{self.hub.url}/{name}"})
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", self.path):
            files = json.loads(body)["files"]
            modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
            return self._json({"files": modes})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path.partition("?")[0]):
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    data = base64.b64decode(entry["value"]["content"])
                    self.hub.repositories[found[1]][entry["value"]["path"]] = data
                elif entry["key"] == "deletedFile":
                    del self.hub.repositories[found[1]][entry["value"]["path"]]
            url = f"{self.hub.url}/{found[1]}/commit/{COMMIT}"
            return self._json({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})
        return self._unknown()

    def _unknown(self) -> None:
        if self.path != "/api/agent-harnesses":  # what newer clients would like to know of their user
            self.hub.unknown.append(f"{self.command} {self.path}")
        self._missing("EntryNotFound")

    def _missing(self, code: str) -> None:
        self._answer(404, b'{"error": "not found"}', {"X-Error-Code": code})

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
