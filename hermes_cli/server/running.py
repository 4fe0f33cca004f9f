"""Servers of this user that run now: a record of each in the data folder, and what a server says about itself.

A record is written when the first model is loaded, and removed when the server ends. One whose process is gone, since
it was killed or the machine restarted, is removed by whoever reads it.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
import psutil
from msgspec import Meta, Struct

from hermes_cli import paths
from hermes_cli.process_guard import started_at

TIMEOUT = 5.0  # seconds that a server on this machine has for an answer
MOST_BYTES = 16 << 20  # of an answer
_GONE = (psutil.Error, OSError)  # on Windows some calls for an ended process raise the bare OSError


class ListedModel(Struct, frozen=True):
    """A model in the list of a server; what others than hermes do not tell is empty."""

    id: Annotated[str, Meta(min_length=1)]
    aliases: tuple[str, ...] = ()
    state: str | None = None
    context_length: Annotated[int, Meta(ge=0)] | None = None
    capabilities: Any = None


class _Listing(Struct, frozen=True):
    data: list[ListedModel]


@dataclass(frozen=True)
class RunningServer:
    """A server that runs."""

    pid: Annotated[int, Meta(gt=0)]
    start: float  # identity of the process beside its number, which the system gives again; see `started_at`
    started: Annotated[float, Meta(ge=0, le=1e11)]  # seconds since 1970
    # URL without `/v1`
    address: Annotated[str, Meta(pattern=r"^http://(\[[0-9a-fA-F:.%]+\]|[^\s\x00-\x1f/:\[\]]+)(:[0-9]{1,5})?$")]
    models: tuple[Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]+$")], ...]  # names, the default first
    grace: Annotated[float, Meta(ge=0, le=86_400)] = 30.0  # seconds that running requests have when it is stopped
    # the API key that was made for this run, for commands of the same user; None if there is no such key
    key: str | None = None
    has_keys: bool = False  # True if requests need a key
    # file that a server in the background writes to; None if it writes to a terminal or to a service manager
    log: str | None = None

    @property
    def port(self) -> int:
        """Return the port that it listens on."""
        return urlsplit(self.address).port or 80

    @property
    def process(self) -> psutil.Process:
        """Return its process. Raise psutil.NoSuchProcess if it has ended."""
        return psutil.Process(self.pid)

    def runs(self) -> bool:
        """Return whether the process is there, and no other one with its number."""
        with suppress(*_GONE):
            return self.process.status() != psutil.STATUS_ZOMBIE and started_at(self.pid) == self.start
        return False

    def listens(self) -> bool:
        """Return whether it listens on its port: proof that the process is the server that the record tells of.

        Raise psutil.Error if the process has ended, or may not be looked at.
        """
        connections = self.process.net_connections("tcp")
        return any(each.laddr[1:2] == (self.port,) and each.status == psutil.CONN_LISTEN for each in connections)

    def memory(self) -> int:
        """Return the bytes of RAM of the process and its engines."""
        total = 0
        with suppress(*_GONE):
            for process in (self.process, *self.process.children(recursive=True)):
                with suppress(*_GONE):
                    total += process.memory_info().rss
        return total

    def get(self, route: str, key: str | None = None) -> Any:  # noqa: ANN401 - what JSON holds
        """Return the JSON of a route; None if the server does not answer, or wants another key."""
        return fetch_json(self.address, route, key or self.key)


def fetch_json(address: str, route: str, key: str | None = None) -> Any:  # noqa: ANN401 - what JSON holds
    """Return the JSON of a route of a server at `http://HOST:PORT`; None if there is no answer with status 200."""
    return _answer(address, route, key)[1]


def status_of(address: str, route: str, key: str | None = None) -> int | None:
    """Return the status that a server answers a route with; None if there is no answer."""
    return _answer(address, route, key)[0]


def _answer(address: str, route: str, key: str | None) -> tuple[int | None, Any]:
    """Return the status of an answer, None if there is none, and its JSON, None unless the status is 200."""
    status = None
    try:
        parts = urlsplit(address)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        with closing(kind(parts.hostname or "", parts.port, timeout=TIMEOUT)) as connection:
            connection.request("GET", route, headers={"Authorization": f"Bearer {key}"} if key else {})
            response = connection.getresponse()
            status = response.status
            return status, json.loads(response.read(MOST_BYTES)) if status == http.client.OK else None
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return status, None


def listed_models(address: str, key: str | None = None) -> list[ListedModel] | None:
    """Return the models that a server lists, one at least; None if it does not answer, or is no such server."""
    try:
        models = msgspec.convert(fetch_json(address, "/v1/models", key), _Listing).data
    except (msgspec.ValidationError, RecursionError):
        return None
    return models or None


@contextmanager
def recorded(address: str, models: tuple[str, ...], **more: Any) -> Iterator[None]:  # noqa: ANN401 - fields of the record
    """Keep a record of this process as a server while the context lasts; raise OSError if it cannot be written."""
    pid = os.getpid()
    server = RunningServer(pid, started_at(pid) or 0.0, time.time(), address, models, **more)
    path = _folder() / f"{pid}.json"
    paths.write_private(path, json.dumps(asdict(server)))  # it may hold a key
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def running_servers() -> list[RunningServer]:
    """Return the servers of this user that run, the oldest first, and remove the records of those that do not."""
    servers = []
    for path in _folder().glob("*.json"):
        try:
            if not path.is_file():
                continue
            server = msgspec.json.decode(path.read_bytes(), type=RunningServer)
            server.port  # noqa: B018 - ValueError beyond 65,535
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue  # of another version, or damaged
        except OSError:
            continue  # it ended meanwhile
        if server.runs():
            servers.append(server)
        else:
            with suppress(OSError):
                path.unlink(missing_ok=True)
    return sorted(servers, key=lambda server: server.started)


def key_of(address: str) -> str | None:
    """Return the key that was made for a running server of this user, by its address as people write it."""
    wanted = address.rpartition("://")[2].rstrip("/").removesuffix("/v1").replace("localhost", "127.0.0.1")
    servers = running_servers()
    return next((server.key for server in servers if server.address.removeprefix("http://") == wanted), None)


def _folder() -> Path:
    return paths.data_dir() / "servers"
