"""Sockets that a server listens on, and the limits of the connections to them.

Sockets are bound before anything is loaded, so that a port in use is reported at once.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from hermes_cli.errors import HermesError, UsageError
from hermes_cli.platforms import is_loopback
from hermes_cli.server.security import HEAD_BYTES
from hermes_cli.server.settings import ServerSettings

if TYPE_CHECKING:
    import asyncio

FREE_CHUNKS, LEAST_CHUNK = 1000, 64  # chunks of any size in one body; of the others, their mean size in bytes
OTHER_FILES = 256  # engines, logs, what Python opens
WAITING = 2048  # connections that may wait to be accepted; the kernel allows fewer
_ABSENT = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}  # such as ::1 where there is no IPv6


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on all addresses of a host; with port 0 on one that is free."""
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else "no name can be like this"
        raise UsageError(f"there is no host {host}: {reason}.", hint="check --host.") from None
    families = (socket.AF_INET, socket.AF_INET6)
    addresses = dict.fromkeys((family, str(address[0])) for family, _, _, _, address in infos if family in families)
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, address in addresses:
            try:
                sockets.append(_bound(family, address, port or (port_of(sockets) if sockets else 0)))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                absent = error
    except OSError as error:
        for bound in sockets:
            bound.close()
        raise _unavailable(host, port, error) from None
    if not sockets:
        raise UsageError(
            f"--host {host} is not an address of this machine ({_reason(absent)}).",
            hint="use 127.0.0.1 for this machine alone, 0.0.0.0 for all its addresses.",
        )
    return sockets


def allow_files(connections: int) -> None:
    """Raise the limit of open files to what so many connections take, as far as the system allows."""
    if sys.platform == "win32":  # it has no such limit
        return
    import resource  # noqa: PLC0415 - not everywhere

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def port_of(sockets: Sequence[socket.socket]) -> int:
    """Return the port that was bound."""
    port: int = sockets[0].getsockname()[1]
    return port


def only_loopback(sockets: Sequence[socket.socket]) -> bool:
    """Return whether nobody but this machine can connect."""
    return all(is_loopback(listening.getsockname()[0]) for listening in sockets)


def _bound(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    # asyncio turns Nagle's algorithm off only where the protocol is given; else short answers wait 40 ms for an ACK.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not to wait for connections that have ended
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # notices clients that vanished without a word
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # on Windows another program could take over the port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        if family == socket.AF_INET6:  # set in both cases: systems differ in their defaults
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address != "::")
        bound.bind((address, port))
        bound.listen(WAITING)
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)  # noqa: FBT003 - as the event loop needs it
    return bound


def _unavailable(host: str, port: int, error: OSError) -> HermesError:
    if error.errno == errno.EADDRINUSE:
        from hermes_cli.server.running import running_servers  # noqa: PLC0415 - only here

        if own := next((server for server in running_servers() if server.port == port), None):
            return HermesError(
                f"port {port} is in use by another hermes serve, of {', '.join(own.models)}.",
                hint=f"stop that one: hermes stop {port}; or take another port: --port 0 takes any that is free.",
            )
        return HermesError(
            f"port {port} of {host} is in use by another program.",
            hint="take another one: --port 0 takes any that is free.",
        )
    if error.errno == errno.EACCES:
        return HermesError(f"port {port} needs the rights of an administrator.", hint="take one from 1024 on.")
    return HermesError(f"nothing can listen on {host}, port {port}: {_reason(error)}.", hint="check --host and --port.")


def _reason(error: OSError | None) -> str:
    return (error.strerror if error else None) or str(error)


class ChunkLimit(h11.Connection):
    """HTTP that refuses bodies of very many tiny chunks: each takes 30 µs of the event loop, whatever its size."""

    _chunks = _bytes = 0  # of the body that is being read

    def next_event(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        """Return the next event, and count the chunks."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._bytes += len(event.data)
            if self._bytes < (self._chunks - FREE_CHUNKS) * LEAST_CHUNK:
                raise h11.RemoteProtocolError("too many tiny chunks")
        return event


class LimitedConnection(H11Protocol):
    """One connection of a client, held to time limits that uvicorn does not have.

    A head has to be whole soon after its first byte, or after the connection is made (slowloris); what a client does
    not read must not pile up here for ever; and there are only so many connections at once.
    """

    settings: ServerSettings
    _head_timer: asyncio.TimerHandle | None = None
    _reading_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a head, unless there are too many connections."""
        super().connection_made(transport)
        self.conn = ChunkLimit(h11.SERVER, HEAD_BYTES)
        if len(self.connections) > self.settings.max_connections:
            transport.abort()
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        for timer in (self._head_timer, self._reading_timer):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Stop the timer of the head once it is whole."""
        if self._between_requests and self._head_timer is None:
            self._expect_head()
        super().data_received(data)
        if not self._between_requests and self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None

    def pause_writing(self) -> None:
        """Limit the time in which the client reads nothing."""
        super().pause_writing()
        if self._reading_timer is None:
            self._reading_timer = self.loop.call_later(self.settings.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        if self._reading_timer:
            self._reading_timer.cancel()
            self._reading_timer = None

    def send_400_response(self, msg: str) -> None:
        """Answer to what is no HTTP; in the middle of a reply, hang up."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE} and self._between_requests:
            super().send_400_response(msg)
        else:
            self.transport.abort()

    @property
    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # None at first

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self.settings.header_timeout, self.transport.abort)


def limited_connection(settings: ServerSettings) -> type[LimitedConnection]:
    """Return the class of connections for uvicorn, with the limits of the settings."""
    return type("Connection", (LimitedConnection,), {"settings": settings})
