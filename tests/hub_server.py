"""A small Hub on loopback that speaks the API as huggingface_hub uses it: model info, and files with ranges."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import unquote, urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories as name -> file -> content, and what the server is to do wrong."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    status: int | None = None
    ranges: bool = True
    url: str = ""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What makes huggingface_hub talk to this server."""
        return {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_TELEMETRY": "1"}

    @property
    def sent(self) -> int:
        """How many requests there were."""
        return len(self.requests)


class Handler(BaseHTTPRequestHandler):
    """Answers for the hub that a subclass names."""

    hub: ClassVar[Hub]

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if self.hub.status:
            self._answer(self.hub.status, b"{}")
        elif match := re.match(r"^/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?$", path):
            self._info(match[1])
        elif match := re.match(r"^/([^/]+/[^/]+)/resolve/[^/]+/(.+)$", path):
            self._file(match[1], match[2])
        else:
            self._answer(404, b"{}")

    def _info(self, repo: str) -> None:
        if repo in self.hub.gated:
            self._answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
            return
        files = self.hub.repositories.get(repo)
        if files is None:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        siblings = [
            {
                "rfilename": name,
                "size": len(content),
                "blobId": hashlib.sha1(content, usedforsecurity=False).hexdigest(),
                "lfs": {
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                    "pointerSize": 134,
                },
            }
            for name, content in files.items()
        ]
        self._answer(200, json.dumps({"id": repo, "sha": REVISION, "siblings": siblings}).encode())

    def _file(self, repo: str, name: str) -> None:
        content = self.hub.repositories.get(repo, {}).get(name)
        if content is None:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        asked = re.match(r"^bytes=(\d+)-(\d+)?$", self.headers.get("Range") or "")
        if not asked or not self.hub.ranges:
            self._answer(200, content)
            return
        start = int(asked[1])
        piece = content[start : int(asked[2]) + 1 if asked[2] else None]
        if not piece:
            self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        self._answer(206, piece, {"Content-Range": f"bytes {start}-{start + len(piece) - 1}/{len(content)}"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status, HTTPStatus(status).phrase)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub on a free port of loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
