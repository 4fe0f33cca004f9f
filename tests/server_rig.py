"""Servers for tests: in a thread on loopback, with fake engines, or real processes."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG, clean_environment, start_hermes
from fake_engine import FakeEngine
from hermes_zygote import ForkedProcess
from starlette.applications import Starlette

from hermes_cli.catalog.models import CatalogModel
from hermes_cli.engine.embedded.messages import EngineOptions
from hermes_cli.engine.protocol import Engine
from hermes_cli.errors import HermesError
from hermes_cli.generation import TAGS
from hermes_cli.models.planned import PlannedModel
from hermes_cli.models.resolve import ModelRequest, ResolvedModel
from hermes_cli.planning.fitted_plan import FittedPlan
from hermes_cli.planning.load_plan import LoadOverrides, LoadPlan
from hermes_cli.planning.memory import ContextSettings
from hermes_cli.server.app import make_app
from hermes_cli.server.metrics import Metrics
from hermes_cli.server.pool import Pool
from hermes_cli.server.request_stats import CountedEngine
from hermes_cli.server.run import UvicornServer, uvicorn_config
from hermes_cli.server.served_models import ServedModel
from hermes_cli.server.settings import ServerSettings
from hermes_cli.server.sockets import listen, port_of
from hermes_cli.store.library import ModelFile


def offer(
    name: str = "demo",
    *aliases: str,
    path: Path = Path("demo.gguf"),
    context: int = 1024,
    known: CatalogModel | None = None,
    options: EngineOptions | None = None,
    force: bool = False,
    **more: Any,  # noqa: ANN401 - any field of ServedModel
) -> ServedModel:
    overrides = LoadOverrides(context, force=force)
    resolved = ResolvedModel(ModelRequest(name, overrides), ModelFile(name, path), known, overrides)
    fitted = FittedPlan(LoadPlan(ContextSettings(context, 4), threads=1), ())
    return ServedModel(name, aliases, PlannedModel.of(resolved, fitted, options or EngineOptions(tags=TAGS)), **more)


def planned_of(served: ServedModel) -> PlannedModel:
    """The plan of a model that is loaded in this program."""
    assert isinstance(served.model, PlannedModel)
    return served.model


async def always(_: ServedModel) -> HermesError | None:
    return None


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - what JSON holds
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        return error


@dataclass
class Running:
    """A server on loopback; `lines` is its log."""

    port: int
    app: Starlette | None = None
    lines: list[str] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)

    def write(self, line: str) -> None:
        """Into the log."""
        with self._news:
            self.lines.append(line)
            self._news.notify_all()

    def logged(self, pattern: str) -> str:
        """The last line of the log that matches, once there is one: it is written after the answer."""

        def found() -> str | None:
            return next((line for line in reversed(self.lines) if re.search(pattern, line)), None)

        with self._news:
            assert self._news.wait_for(found, HANG), (pattern, self.lines)
            return found() or ""

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG)
        try:
            raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            kind = {"Content-Type": "application/json"} if raw is not None else {}
            connection.request(method, path, raw, {**kind, **(headers or {})})
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, path: str, body: object, **headers: str) -> Answer:
        return self.ask("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def raw(self, data: bytes) -> bytes:
        """What comes back when these bytes are sent, until the server closes the connection."""
        with self.connect() as line:
            line.sendall(data)
            return read_all(line)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), HANG)

    def healthy(self) -> bool:
        return self.get("/health").status == 200


def read_all(line: socket.socket) -> bytes:
    """Everything up to the end, however the other side ends it."""
    parts = []
    with suppress(ConnectionError):
        while part := line.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


@contextmanager
def served(
    settings: ServerSettings | None = None,
    offers: Sequence[ServedModel] = (),
    engine: Callable[[ServedModel], Engine] = lambda _: FakeEngine(["hi"]),
    room: Callable[..., Any] = always,
    prepare: Callable[[Starlette], None] = lambda _: None,
    *,
    loaded: bool = True,
) -> Iterator[Running]:
    """A server in a thread; `prepare` may add routes."""
    told = settings or ServerSettings()
    sockets = listen(told.host, 0)
    running = Running(port_of(sockets))
    up = threading.Event()
    server: list[UvicornServer] = []

    async def live() -> None:
        metrics = Metrics()
        pool = Pool(
            offers or [offer()],
            lambda one: CountedEngine(engine(one), one.name, metrics),
            room,
            load_timeout=told.load_timeout,
            most_idle_seconds=told.most_idle_seconds,
        )
        running.app = make_app(told, pool, metrics, running.write)
        prepare(running.app)
        if loaded:
            async with pool.use():
                pass
        server.append(UvicornServer(uvicorn_config(running.app, told)))
        up.set()
        await server[0].serve(sockets=sockets)

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    try:
        assert up.wait(HANG)
        yield running
    finally:
        if server:
            server[0].should_exit = True
        thread.join(HANG)
        for one in sockets:
            one.close()
    assert not thread.is_alive()


@dataclass
class Process(Running):
    """`hermes serve` as a process of its own."""

    process: ForkedProcess | subprocess.Popen[str] = field(kw_only=True)
    banner: str = ""
    key: str | None = None

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Its exit code and what it said on standard error."""
        _, said = self.process.communicate(timeout=HANG)
        assert self.process.returncode is not None
        return self.process.returncode, said


@contextmanager
def hermes_serve(
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    wait: bool = True,
    program: Sequence[str] = (),
) -> Iterator[Process]:
    """A real server on a free port; `wait` until its first model is loaded."""
    arguments = ("serve", "--port", "0", *arguments)
    environment = {
        **clean_environment(),
        **{f"HERMES_LLM_{name}_DIR": str(cwd) for name in ("CONFIG", "DATA")},
        **(env or {}),
    }
    process = start_hermes(arguments, cwd, environment, program=program)
    try:
        banner = _banner(process, arguments) if wait else ""
        port = re.search(r"http://[^/]+:([0-9]+)/v1", banner)
        key = re.search(r"OPENAI_API_KEY=(sk-[\w-]+)", banner)
        yield Process(int(port[1]) if port else 0, process=process, banner=banner, key=key[1] if key else None)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@contextmanager
def log_of(server: Process) -> Iterator[Future[str]]:
    """What a server says on standard error, read all the time, so that its pipe is never full; then it has to end."""
    assert server.process.stderr
    with ThreadPoolExecutor() as pool:
        try:
            yield pool.submit(server.process.stderr.read)
        finally:
            server.signal()


@pytest.fixture(name="server", scope="module")
def the_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The demo model, for all tests of a file."""
    with hermes_serve("demo", cwd=tmp_path_factory.mktemp("serve")) as process:
        yield process


def _banner(process: ForkedProcess | subprocess.Popen[str], arguments: Sequence[str]) -> str:
    """What it prints when it is ready."""
    last = "}\n" if "--json" in arguments else "/v1\n" if "--quiet" in arguments else "OPENAI_API_KEY="
    banner = ""
    assert process.stdout
    for line in process.stdout:
        banner += line
        if line == last or (last != "}\n" and last in line):
            break
    else:
        assert process.stderr
        raise AssertionError(banner + process.stderr.read())
    if last == "OPENAI_API_KEY=":
        banner += process.stdout.readline()
    return banner
