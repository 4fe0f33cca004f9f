"""A server from its start to its end: sockets, models, uvicorn, signals.

listen ──► plan ──► accept, load the first model ──► serve ──signal──► refuse, wait for what runs ──► end
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import uvicorn

from hermes_cli.platforms import ending_signals
from hermes_cli.server.app import make_app
from hermes_cli.server.connection import Patience, with_patience
from hermes_cli.server.listening import allow_files, listen, only_loopback, port_of
from hermes_cli.server.metrics import Metrics
from hermes_cli.server.pool import Pool
from hermes_cli.server.request_stats import CountedEngine
from hermes_cli.server.settings import Key

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence

    from fastapi import FastAPI

    from hermes_cli.engine.protocol import Engine
    from hermes_cli.server.planning import ServedModel
    from hermes_cli.server.pool import Room
    from hermes_cli.server.settings import ServerSettings

HEAD_BYTES = 64 << 10  # of a request's first line and headers together
IDLE_SECONDS = 75  # that a connection is kept for the next request, longer than clients keep it
LAST_SECONDS = 2  # for answers that end when the engines do


@dataclass(frozen=True)
class Running:
    """A server that takes requests.

    Attributes:
        port: the one that was bound.
        local: nobody but this machine can connect.
        settings: with the key that was made, if one was.
        offers: the models, the default first; it is loaded.
    """

    port: int
    local: bool
    settings: ServerSettings
    offers: tuple[ServedModel, ...]


@dataclass(frozen=True)
class Parts:
    """What a server is made of, apart from HTTP.

    Attributes:
        offers: plans the models; called when the port is known to be free.
        engine: makes the engine of one.
        room: whether there is memory for one more.
        started: is told when the default model is loaded.
        write: takes lines of the access log.
        say: takes what is said to people about the end.
    """

    offers: Callable[[], tuple[ServedModel, ...]]
    engine: Callable[[ServedModel], Engine]
    room: Room
    started: Callable[[Running], None]
    write: Callable[[str], None]
    say: Callable[[str], None]


def serve(settings: ServerSettings, parts: Parts) -> bool:
    """Serve until a signal comes; whether what ran could finish.

    Raises:
        HermesError: the port is in use, a model does not fit or cannot be loaded.
    """
    sockets = listen(settings.host, settings.port)
    allow_files(settings.max_connections)
    try:
        settings = with_key(settings, local=only_loopback(sockets))
        running = Running(port_of(sockets), only_loopback(sockets), settings, parts.offers())
        return asyncio.run(_Life(running, parts).live(sockets))
    finally:
        for one in sockets:
            one.close()


def with_key(settings: ServerSettings, *, local: bool) -> ServerSettings:
    """The settings, with a key where one is needed and none was given."""
    if settings.keys or local or settings.insecure:
        return settings
    made = Key("made", f"sk-{secrets.token_urlsafe(32)}")
    return msgspec.structs.replace(settings, keys=(made,), own_key=True)


class Server(uvicorn.Server):
    """uvicorn, with signals left to us: it would stop accepting before what runs is done, and die of the signal."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Not here."""
        yield


class _Life:
    """One run of a server, in one event loop."""

    def __init__(self, running: Running, parts: Parts) -> None:
        self._running, self._parts, self._settings = running, parts, running.settings
        self._signals = 0
        self._signalled = asyncio.Event()
        self._hurried = asyncio.Event()

    async def live(self, sockets: Sequence[socket.socket]) -> bool:
        """Serve until a signal comes, or something goes wrong."""
        settings, metrics = self._settings, Metrics()
        pool = Pool(
            self._running.offers,
            lambda offer: CountedEngine(self._parts.engine(offer), offer.name, metrics),
            self._parts.room,
            load_timeout=settings.load_timeout,
        )
        app = make_app(settings, pool, metrics, self._parts.write)
        server = Server(uvicorn_config(app, settings))
        with _signals(self._signal):
            serving = asyncio.ensure_future(server.serve(sockets=list(sockets)))
            loading = asyncio.ensure_future(pool.start())
            signalled = asyncio.ensure_future(self._signalled.wait())
            try:
                await asyncio.wait({serving, loading, signalled}, return_when=asyncio.FIRST_COMPLETED)
                if loading.done():
                    loading.result()
                    self._parts.started(self._running)
                    await asyncio.wait({serving, signalled}, return_when=asyncio.FIRST_COMPLETED)
                return await self._finish(app)
            finally:
                await pool.close()
                server.should_exit = True
                await _over(loading, signalled)
                await serving

    async def _finish(self, app: FastAPI) -> bool:
        """Let what runs come to its end, as long as the grace lasts or until the next signal."""
        traffic = app.state.traffic
        traffic.stopping = True
        if traffic.running:
            self._parts.say(f"stopping: {traffic.running} requests may finish within {self._settings.grace:g} seconds")
        quiet = asyncio.ensure_future(traffic.quiet(self._settings.grace))
        hurried = asyncio.ensure_future(self._hurried.wait())
        await asyncio.wait({quiet, hurried}, return_when=asyncio.FIRST_COMPLETED)
        await _over(quiet, hurried)
        return not self._hurried.is_set()

    def _signal(self) -> None:
        self._signals += 1
        self._signalled.set()
        if self._signals > 1:
            self._hurried.set()


async def _over(*futures: asyncio.Future[Any]) -> None:
    for one in futures:
        one.cancel()
    await asyncio.gather(*futures, return_exceptions=True)


@contextmanager
def _signals(handle: Callable[[], None]) -> Iterator[None]:
    """Call `handle` for each signal that asks to end."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in ending_signals()}
    for number in before:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(handle))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def uvicorn_config(app: FastAPI, settings: ServerSettings) -> uvicorn.Config:
    """How uvicorn serves the application."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # broken requests of strangers are no news
    patience = Patience(settings.header_timeout, settings.write_timeout, settings.max_connections)
    return uvicorn.Config(
        app,
        http=with_patience(patience),
        ws="none",
        lifespan="on",
        loop="asyncio",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # whoever connects is the client, whatever it claims
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=LAST_SECONDS,
        h11_max_incomplete_event_size=HEAD_BYTES,
    )
