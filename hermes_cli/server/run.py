"""A server from its start to its end: sockets, models, uvicorn, signals.

listen ──► plan ──► accept, load the first model ──► serve ──signal──► refuse, wait for what runs ──► end
"""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import uvicorn
from starlette.applications import Starlette

from hermes_cli.engine.protocol import Engine
from hermes_cli.errors import UsageError
from hermes_cli.platforms import ending_signals
from hermes_cli.server.app import make_app
from hermes_cli.server.metrics import Metrics
from hermes_cli.server.pool import CheckRoom, Pool
from hermes_cli.server.request_stats import CountedEngine
from hermes_cli.server.security import HEAD_BYTES
from hermes_cli.server.settings import Key, ServerSettings
from hermes_cli.server.sockets import allow_files, limited_connection, listen, only_loopback, port_of
from hermes_cli.server.streaming_reply import cancel

if TYPE_CHECKING:
    import socket

    from hermes_cli.server.served_models import ServedModel
    from hermes_cli.server.server_tools import ServerTools

IDLE_SECONDS = 75  # that a connection is kept for the next request, longer than clients keep it
SWITCH_SECONDS = 0.0005  # that a thread may make the event loop wait, each time; Python's usual is 5 ms
LAST_SECONDS = 2  # for replies that end when the engines do


@dataclass(frozen=True)
class ServerInfo:
    """A server that takes requests."""

    port: int  # that was bound
    local: bool  # nobody but this machine can connect
    settings: ServerSettings  # with the key that was made, if one was
    models: tuple[ServedModel, ...]  # the default first; it is loaded


@dataclass(frozen=True)
class ServerParts:
    """The functions that a server calls."""

    models: Callable[[], tuple[ServedModel, ...]]  # plans the models; called when the port is known to be free
    engine: Callable[[ServedModel], Engine]  # makes the engine of a model
    check_room: CheckRoom  # as `Pool` takes it
    started: Callable[[ServerInfo], None]  # called when the default model is loaded
    log: Callable[[str], None]  # takes lines of the access log
    note: Callable[[str], None]  # takes messages for people
    tools: ServerTools | None = None  # that the server runs for clients that ask


def serve(settings: ServerSettings, parts: ServerParts) -> bool:
    """Serve until a signal comes; return whether running requests could finish.

    Raise HermesError if the port is in use, or a model does not fit or cannot be loaded.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    sockets = listen(settings.host, settings.port)
    allow_files(settings.max_connections)
    try:
        local = only_loopback(sockets)
        if settings.manage_models and settings.insecure and not (settings.keys or local):
            hint = "give keys, or leave --manage-models out: anybody could delete models from this disk."
            raise UsageError("--manage-models needs keys beyond this machine.", hint=hint)
        if not (settings.keys or local or settings.insecure):
            made = Key("made", f"sk-{secrets.token_urlsafe(32)}")
            settings = msgspec.structs.replace(settings, keys=(made,), own_key=True)
        info = ServerInfo(port_of(sockets), local, settings, parts.models())
        return asyncio.run(_run(info, parts, sockets))
    finally:
        for listening in sockets:
            listening.close()


class UvicornServer(uvicorn.Server):
    """uvicorn without its signal handlers: it would stop accepting before requests are done, and die of the signal."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


async def _run(info: ServerInfo, parts: ServerParts, sockets: Sequence[socket.socket]) -> bool:
    settings, metrics = info.settings, Metrics()
    pool = Pool(
        info.models,
        lambda model: CountedEngine(parts.engine(model), model.name, metrics),
        parts.check_room,
        load_timeout=settings.load_timeout,
        most_idle_seconds=settings.most_idle_seconds,
    )
    app = make_app(settings, pool, metrics, parts.log, parts.tools)
    server = UvicornServer(uvicorn_config(app, settings))
    signals: asyncio.Queue[None] = asyncio.Queue()
    with _signals(lambda: signals.put_nowait(None)):
        serving = asyncio.ensure_future(server.serve(sockets=list(sockets)))
        loading = asyncio.ensure_future(pool.start())
        signalled = asyncio.ensure_future(signals.get())
        try:
            await asyncio.wait({serving, loading, signalled}, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                loading.result()
                gc.collect()
                gc.freeze()  # what lasts as long as the server need not be looked through: that holds the event loop
                parts.started(info)
                await asyncio.wait({serving, signalled}, return_when=asyncio.FIRST_COMPLETED)
            # Running requests may finish, as long as the grace lasts or until the next signal.
            traffic = app.state.traffic
            traffic.stopping = True
            if traffic.running:
                parts.note(f"stopping: {traffic.running} requests may finish within {settings.grace:g} seconds")
            quiet = asyncio.ensure_future(traffic.quiet(settings.grace))
            hurried = asyncio.ensure_future(signals.get())
            await asyncio.wait({quiet, hurried}, return_when=asyncio.FIRST_COMPLETED)
            could_finish = not hurried.done()
            await cancel(quiet, hurried)
            return could_finish
        finally:
            await pool.close()
            server.should_exit = True
            await cancel(loading, signalled)
            await serving


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


def uvicorn_config(app: Starlette, settings: ServerSettings) -> uvicorn.Config:
    """Return uvicorn's configuration."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # broken requests of strangers are no news
    return uvicorn.Config(
        app,
        http=limited_connection(settings),
        ws="none",
        lifespan="on",
        loop="asyncio",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # who connects is the client, whatever its headers claim
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=LAST_SECONDS,
        h11_max_incomplete_event_size=HEAD_BYTES,
    )
