"""A small Hub on loopback that speaks the API as huggingface_hub uses it, and does wrong what it is told to.

In this process (`serving`), or as a process of its own that can be killed and started again (`HubProcess`).
Model info with hashes, files with redirects to a storage server under another name and port, ranges, ETags, commit
headers, renamed, gated and private repositories, Xet tokens; faults one by one, for one request to a file each.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from http import HTTPStatus
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

REVISION = "0123456789abcdef0123456789abcdef01234567"
BLOCK = 1 << 16

Content = bytes | Path


@dataclass
class Fault:
    """What goes wrong with one answer that carries a file.

    Attributes:
        status: this status instead of the file, with `headers`.
        cut: the connection breaks after so many bytes of the body.
        short: the answer ends cleanly after so many bytes, and says that this is all.
        claim: so many bytes more (or fewer) than there are in Content-Length.
        flip: the byte at this offset of the file is altered.
        stall: after so many bytes nothing comes any more.
        drip: bytes at a time, ten times a second.
        ranges: whether it knows ranges.
        shift: it sends from so many bytes later on than asked for.
        etag: the hash that it states.
        at: "hub", "cdn", or empty for whoever sends the body.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    short: int | None = None
    claim: int = 0
    flip: int | None = None
    stall: int | None = None
    drip: int = 0
    ranges: bool = True
    shift: int = 0
    etag: str = ""
    at: str = ""


@dataclass
class Hub:
    """Repositories as name -> file -> content or where it is, and what the servers are to do wrong.

    Attributes:
        status: the answer to everything.
        renamed: old name -> name today.
        token: what a request must carry, if set.
        storage: files lie on another server, as they do on the Hub.
        portal: a page for every request, as a network does that wants a login first.
        stated: what it says of every file instead of the truth.
        described: repository -> what a search says of it besides its files.
        plain: files come without the Hub's own headers, as from a mirror that only passes on bodies.
        pace: bytes per second of each body, 0 for as fast as it goes.
        xet: file -> what Xet calls it; `cas` is Xet's address.
        requests: method, path and range of what was asked of the Hub; `log` has both servers and more.
    """

    repositories: dict[str, Mapping[str, Content]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)
    status: int | None = None
    ranges: bool = True
    token: str = ""
    storage: bool = False
    portal: bool = False
    stated: dict[str, Any] = field(default_factory=dict)
    described: dict[str, dict[str, Any]] = field(default_factory=dict)
    plain: bool = False
    pace: int = 0
    revision: str = REVISION
    xet: dict[str, str] = field(default_factory=dict)
    cas: str = ""
    faults: list[Fault] = field(default_factory=list)
    url: str = ""
    storage_url: str = ""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What makes huggingface_hub talk to this server."""
        return {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_TELEMETRY": "1"}

    @property
    def sent(self) -> int:
        """How many requests there were."""
        return len(self.requests)

    def fault(self, server: str, *, body: bool) -> Fault:
        """What goes wrong with this answer; faults are used up in order."""
        if self.faults and (self.faults[0].at == server or (body and not self.faults[0].at)):
            return self.faults.pop(0)
        return Fault(ranges=self.ranges)


@cache
def _hashes(content: Content) -> tuple[str, str, int]:
    """SHA-256, git's hash, size."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for at in range(0, size, BLOCK):
        piece = _part(content, at, at + BLOCK)
        sha256.update(piece)
        git.update(piece)
    return sha256.hexdigest(), git.hexdigest(), size


def _is_large(name: str) -> bool:
    return ".gguf" in name or name.endswith((".safetensors", "tokenizer.json"))


class Handler(BaseHTTPRequestHandler):
    """Answers for the hub that a subclass names; `server_name` is "hub" or "cdn"."""

    hub: ClassVar[Hub]
    role: ClassVar[str] = "hub"

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")
        if self.path != "/_control":
            self._answer(404, b"{}")
            return
        for key, value in said.items():
            setattr(self.hub, key, [Fault(**one) for one in value] if key == "faults" else value)
        self._answer(200, json.dumps({"log": self.hub.log, "faults": len(self.hub.faults)}).encode())

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.entry: dict[str, Any] = {
            "server": self.role,
            "method": self.command,
            "path": path,
            "range": self.headers.get("Range"),
            "authorization": self.headers.get("Authorization"),
            "sent": 0,
        }
        self.hub.log.append(self.entry)
        if self.role == "hub":
            self.hub.requests.append((self.command, path, self.headers.get("Range")))
            self._as_hub(path)
        elif match := re.match(r"^/([^/]+/[^/]+)/(.+)$", path):
            self._body(self.hub.repositories[match[1]][match[2]], {})

    def _as_hub(self, path: str) -> None:
        if self.hub.status:
            self._answer(self.hub.status, b"{}")
        elif self.hub.portal:
            self._answer(200, b"<html>Welcome! Please log in.</html>", {"Content-Type": "text/html"})
        elif self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._answer(401, b"{}", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif path == "/api/models":
            self._search(parse_qs(urlsplit(self.path).query))
        elif match := re.match(r"^/api/models/([^/]+/[^/]+)/xet-read-token/[^/]+$", path):
            access = {"X-Xet-Cas-Url": self.hub.cas, "X-Xet-Access-Token": "x"}
            self._answer(200, b"{}", {**access, "X-Xet-Token-Expiration": str(int(time.time()) + 3600)})
        elif match := re.match(r"^/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?$", path):
            self._info(match[1], match[2])
        elif match := re.match(r"^/([^/]+/[^/]+)/resolve/[^/]+/(.+)$", path):
            self._file(match[1], match[2])
        else:
            self._answer(404, b"{}")

    def _search(self, query: dict[str, list[str]]) -> None:
        words, limit = query["search"][0].lower().split(), int(query["limit"][0])
        found = [
            {"id": repo, "siblings": [{"rfilename": name} for name in files], **self.hub.described.get(repo, {})}
            for repo, files in self.hub.repositories.items()
            if all(word in repo.lower() for word in words) and any(name.endswith(".gguf") for name in files)
        ]
        found.sort(key=lambda info: -info.get("downloads", 0))
        self._answer(200, json.dumps(found[:limit]).encode())

    def _info(self, repo: str, revision: str | None) -> None:
        if repo in self.hub.renamed:
            self._answer(307, b"", {"Location": f"/api/models/{self.hub.renamed[repo]}?blobs=true"})
            return
        if repo in self.hub.gated:
            self._answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
            return
        files = self.hub.repositories.get(repo)
        if files is None:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        if revision not in {None, "main", self.hub.revision}:
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [{**self._sibling(name, content), **self.hub.stated} for name, content in files.items()]
        self._answer(200, json.dumps({"id": repo, "sha": self.hub.revision, "siblings": siblings}).encode())

    @staticmethod
    def _sibling(name: str, content: Content) -> dict[str, Any]:
        sha256, git, size = _hashes(content)
        sibling: dict[str, Any] = {"rfilename": name, "size": size, "blobId": git}
        if _is_large(name):
            sibling["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 134}
        return sibling

    def _file(self, repo: str, name: str) -> None:
        if repo in self.hub.renamed:
            self._answer(307, b"", {"Location": self.path.replace(repo, self.hub.renamed[repo])})
            return
        if repo in self.hub.gated:
            self._answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
            return
        content = self.hub.repositories.get(repo, {}).get(name)
        if content is None:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        sha256, git, size = _hashes(content)
        etag = sha256 if _is_large(name) else git
        if self.command == "GET" and self.hub.faults and self.hub.faults[0].etag:
            etag = self.hub.faults.pop(0).etag
        headers = {"X-Repo-Commit": self.hub.revision, "ETag": f'"{etag}"'}
        if _is_large(name):
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(size)}
        if name in self.hub.xet:
            headers["X-Xet-Hash"] = self.hub.xet[name]
            headers["X-Xet-Refresh-Route"] = f"{self.hub.url}/api/models/{repo}/xet-read-token/{self.hub.revision}"
        if self.hub.plain:
            headers = {}
        if self.hub.storage and _is_large(name):
            place = f"{self.hub.storage_url}/{repo}/{quote(name)}?signature=not-for-messages"
            fault = self.hub.fault("hub", body=False) if self.command == "GET" else Fault()
            self._answer(fault.status or 302, b"", fault.headers if fault.status else {**headers, "Location": place})
        else:
            self._body(content, headers)

    def _body(self, content: Content, headers: dict[str, str]) -> None:
        size = _hashes(content)[2]
        fault = self.hub.fault(self.role, body=True) if self.command == "GET" else Fault()
        if fault.status:
            self._answer(fault.status, b"{}", fault.headers)
            return
        asked = re.match(r"^bytes=(\d+)-(\d+)?$", self.headers.get("Range") or "")
        start, stop = 0, size
        status = 200
        if asked and fault.ranges:
            start, stop = int(asked[1]) + fault.shift, int(asked[2]) + 1 if asked[2] else size
            stop = min(stop, size)
            if start >= stop:
                self._answer(416, b"", {"Content-Range": f"bytes */{size}"})
                return
            status = 206
            headers = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"}
        if fault.short is not None:
            stop = min(stop, start + fault.short)
        self._head(status, stop - start + fault.claim, headers)
        if self.command == "GET":
            with suppress(OSError):
                self._send(content, start, stop, fault)
            if fault != Fault():
                self.close_connection = True

    def _send(self, content: Content, start: int, stop: int, fault: Fault) -> None:
        end = stop
        for limit in (fault.cut, fault.stall):
            end = end if limit is None else min(end, start + limit)
        if isinstance(content, Path) and fault.flip is None and not fault.drip and not self.hub.pace:
            with content.open("rb") as file:
                self.entry["sent"] += self.connection.sendfile(file, start, end - start) if end > start else 0
        else:
            self._send_blocks(content, start, end, fault)
        if fault.stall is not None:
            self._until_closed(60)
        if fault.cut is not None:
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send_blocks(self, content: Content, start: int, end: int, fault: Fault) -> None:
        block = fault.drip or BLOCK
        for at in range(start, end, block):
            piece = bytearray(_part(content, at, min(end, at + block)))
            if fault.flip is not None and at <= fault.flip < at + len(piece):
                piece[fault.flip - at] ^= 1
            self.wfile.write(piece)
            self.entry["sent"] += len(piece)
            if self.hub.pace:
                time.sleep(len(piece) / self.hub.pace)
            if fault.drip:
                self._until_closed(0.1)

    def _until_closed(self, seconds: float) -> None:
        readable, _, _ = select.select([self.connection], [], [], seconds)
        if readable and not self.connection.recv(1, socket.MSG_PEEK):
            raise OSError

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._head(status, len(body), headers or {})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status, HTTPStatus(status).phrase)
        for key, value in {**headers, "X-HF-Warning": f"{self.path}; this client is old"}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _part(content: Content, start: int, stop: int) -> bytes:
    if isinstance(content, bytes):
        return content[start:stop]
    with content.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)


class _Server(ThreadingHTTPServer):
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news here."""


@contextmanager
def _listening(hub: Hub, role: str, port: int = 0) -> Iterator[int]:
    server = _Server(("127.0.0.1", port), type("HubHandler", (Handler,), {"hub": hub, "role": role}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serving(hub: Hub, port: int = 0, storage_port: int = 0) -> Iterator[Hub]:
    """The hub on free ports of loopback; its storage goes by another host name, as far as a client can tell."""
    with ExitStack() as stack:
        hub.url = f"http://127.0.0.1:{stack.enter_context(_listening(hub, 'hub', port))}"
        if hub.storage:
            hub.storage_url = f"http://localhost:{stack.enter_context(_listening(hub, 'cdn', storage_port))}"
        yield hub


class HubProcess:
    """The hub as a process. Files are given by path; settings are those of `Hub`."""

    def __init__(self, repositories: dict[str, dict[str, Path]], **settings: Any) -> None:  # noqa: ANN401 - as the fields of Hub
        self.settings = {
            **settings,
            "repositories": {
                repo: {name: str(path) for name, path in files.items()} for repo, files in repositories.items()
            },
        }
        self._ports = (0, 0)
        self.start()

    def start(self) -> None:
        """Start it; again on the same ports."""
        self._process = subprocess.Popen(
            [sys.executable, __file__, *map(str, self._ports)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(self.settings) + "\n")
        self._process.stdin.flush()
        self.url, self.storage_url = json.loads(self._process.stdout.readline())
        self._ports = (urlsplit(self.url).port or 0, urlsplit(self.storage_url).port or 0)

    @property
    def environment(self) -> dict[str, str]:
        """What makes huggingface_hub talk to this server."""
        return {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_TELEMETRY": "1"}

    def tell(self, **settings: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - as above
        """Change settings of `Hub` (faults as `Fault`); returns the log of requests so far."""
        if "faults" in settings:
            settings["faults"] = [asdict(fault) for fault in settings["faults"]]
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=300)
        connection.request("POST", "/_control", json.dumps(settings))
        log: list[dict[str, Any]] = json.load(connection.getresponse())["log"]
        connection.close()
        return log

    def kill(self) -> None:
        """End it, in the middle of what it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def main() -> None:
    """Serve what standard input says until it ends."""
    settings = json.loads(sys.stdin.readline())
    repositories = settings.pop("repositories")
    hub = Hub(**settings)
    for repo, files in repositories.items():
        hub.repositories[repo] = {name: Path(path) for name, path in files.items()}
    port, storage_port = map(int, sys.argv[1:])
    with serving(hub, port, storage_port):
        print(json.dumps([hub.url, hub.storage_url]), flush=True)  # noqa: T201 - that is what the parent reads
        while os.read(0, 1):
            pass


if __name__ == "__main__":
    main()
