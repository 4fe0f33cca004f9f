"""The sockets of a server: bound before anything is loaded, so that a port in use is told at once."""

from __future__ import annotations

import errno
import os
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from hermes_cli.errors import HermesError, UsageError
from hermes_cli.server.security import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OTHER_FILES = 256  # engines, logs, what Python opens
WAITING = 2048  # connections that may wait to be accepted; the kernel allows fewer
_ABSENT = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}  # such as ::1 where there is no IPv6


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on all addresses of a host; with port 0 on one that is free.

    Raises:
        UsageError: there is no such host, or it is not this machine.
        HermesError: the port is in use or not allowed.
    """
    sockets: list[socket.socket] = []
    refused: OSError | None = None
    try:
        for family, address in _addresses(host, port):
            try:
                sockets.append(_bound(family, address, port or (port_of(sockets) if sockets else 0)))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                refused = error
        if not sockets:
            raise UsageError(
                f"--host {host} is no address of this machine ({_reason(refused)}).",
                hint="use 127.0.0.1 for this machine alone, 0.0.0.0 for all its addresses.",
            )
    except OSError as error:
        _close(sockets)
        raise _unavailable(host, port, error) from None
    return sockets


def allow_files(connections: int) -> None:
    """Have the system allow as many open files as so many connections take, as far as it lets us."""
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
    """The port that was bound."""
    port: int = sockets[0].getsockname()[1]
    return port


def only_loopback(sockets: Sequence[socket.socket]) -> bool:
    """Whether nobody but this machine can connect."""
    return all(is_loopback(one.getsockname()[0]) for one in sockets)


def _addresses(host: str, port: int) -> Iterator[tuple[socket.AddressFamily, str]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else "no name can be like this"
        raise UsageError(f"there is no host {host}: {reason}.", hint="check --host.") from None
    families = (socket.AF_INET, socket.AF_INET6)
    yield from dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found if family in families)


def _bound(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    # asyncio turns Nagle's algorithm off only where the protocol is said; else short answers wait 40 ms for an ACK.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not to wait for connections that have ended
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # notices clients that vanished without a word
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # on Windows another program could take over the port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        if family == socket.AF_INET6:  # said in both cases: systems differ in what they do by themselves
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address != "::")
        made.bind((address, port))
        made.listen(WAITING)
    except OSError:
        made.close()
        raise
    made.setblocking(False)  # noqa: FBT003 - as the event loop needs it
    return made


def _unavailable(host: str, port: int, error: OSError) -> HermesError:
    if error.errno == errno.EADDRINUSE:
        return HermesError(
            f"port {port} of {host} is in use by another program.",
            hint="take another one: --port 0 takes any that is free.",
        )
    if error.errno == errno.EACCES:
        return HermesError(f"port {port} needs the rights of an administrator.", hint="take one from 1024 on.")
    return HermesError(f"nothing can listen on {host}, port {port}: {_reason(error)}.", hint="check --host and --port.")


def _reason(error: OSError | None) -> str:
    return (error.strerror if error else None) or str(error)


def _close(sockets: Sequence[socket.socket]) -> None:
    for one in sockets:
        one.close()
