"""Server-sent events of one request, over a socket of its own: the hot path, on which each token of all answers comes.

A reader that has just read waits `pause` seconds before it reads again. What has arrived meanwhile comes at once, so
that many streams together cost little more than few: of 64 answers at once, each is read 30 times a second.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

MOST_HEADERS = 1 << 16  # bytes
READ = 1 << 18  # bytes at once
_END = b"\r\n\r\n"


class BrokenStreamError(Exception):
    """The connection ended too early, or what came is no HTTP."""


@dataclass
class Response:
    """A response whose body is still coming."""

    status: int
    content_type: str
    connection: StreamConnection
    chunked: bool
    rest: bytes  # of the body, read with the headers

    async def body(self, most: int) -> bytes:
        """Return all of the body, up to so many bytes."""
        data = b""
        async for part in self.parts(lambda: 0.0):
            data += part
            if len(data) > most:
                break
        return data

    async def parts(self, pause: Callable[[], float]) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes; raise BrokenStreamError if it does not end as it should."""
        decoder = _Chunked() if self.chunked else None
        data, read = self.rest, -inf  # what comes first is not waited for
        while True:
            if data:
                yield decoder.decode(data) if decoder else data
            if decoder and decoder.ended:
                return
            if (wait := read + pause() - monotonic()) > 0:
                await asyncio.sleep(wait)
            data, read = await self.connection.read(), monotonic()
            if not data:
                if decoder:
                    raise BrokenStreamError("it was closed")
                return

    async def events(self, pause: Callable[[], float], most: int) -> AsyncGenerator[list[bytes], None]:
        """Yield the data of the events that have come since, at least one; a comment or another field is none."""
        rest = b""
        async for part in self.parts(pause):
            *lines, rest = (rest + part).split(b"\n")
            if len(rest) > most:
                raise BrokenStreamError("an event is too long")
            if found := [line[5:].strip() for line in lines if line.startswith(b"data:")]:
                yield found


@dataclass
class StreamConnection:
    """A connected socket, to be closed."""

    socket: socket.socket
    silence: float  # seconds after which a read fails with TimeoutError
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    @classmethod
    async def open(cls, url: str, path: str, *, connect: float, silence: float) -> StreamConnection:
        """Connect to the host of a URL, or to a socket file; raises OSError or TimeoutError."""
        loop = asyncio.get_running_loop()
        addresses: Sequence[tuple[int, int, int, str, Any]]
        if path:
            addresses = [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", path)]
        else:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or 80
            addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        error: OSError = OSError("no address")
        for family, kind, protocol, _, address in addresses:
            made = socket.socket(family, kind, protocol)
            try:
                made.setblocking(False)  # noqa: FBT003 - as its signature has it
                async with asyncio.timeout(connect):
                    await loop.sock_connect(made, address)
            except OSError as failed:
                made.close()
                error = failed
            except BaseException:
                made.close()
                raise
            else:
                with suppress(OSError):
                    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return cls(made, silence)
        raise error

    async def post(self, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Send a request, and return its response once the headers are there."""
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        head = "\r\n".join((*lines, "Connection: close", f"Content-Length: {len(body)}")).encode("latin-1", "replace")
        await self._loop.sock_sendall(self.socket, head + _END + body)
        data = b""
        while _END not in data:
            part = await self.read()
            data += part
            if not part or (len(data) > MOST_HEADERS and _END not in data):
                raise BrokenStreamError("it answers with no HTTP" if data else "it was closed")
        start, _, rest = data.partition(_END)
        status, *lines = start.decode("latin-1").split("\r\n")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if not status.startswith("HTTP/1.") or not status[9:12].isdecimal():
            raise BrokenStreamError("it answers with no HTTP")
        chunked = "chunked" in fields.get("transfer-encoding", "").lower()
        return Response(int(status[9:12]), fields.get("content-type", ""), self, chunked, rest)

    async def read(self) -> bytes:
        """Return what has come, at least one byte; nothing at the end."""
        with suppress(BlockingIOError, InterruptedError):
            return self.socket.recv(READ)
        async with asyncio.timeout(self.silence):
            return await self._loop.sock_recv(self.socket, READ)

    def close(self) -> None:
        """Close it, which cancels what the server works on."""
        self.socket.close()


class _Chunked:
    """Takes the chunks of a body apart (RFC 9112, 7.1)."""

    def __init__(self) -> None:
        self.ended = False
        self._rest = b""
        self._left = 0  # bytes of the present chunk, with the line break behind it

    def decode(self, data: bytes) -> bytes:
        return b"".join(self._parts(self._rest + data))

    def _parts(self, data: bytes) -> Iterator[bytes]:
        at = 0
        while not self.ended:
            if self._left:
                part = data[at : at + self._left]
                at, self._left = at + len(part), self._left - len(part)
                yield part[: max(len(part) + self._left - 2, 0)] if self._left < 2 else part  # noqa: PLR2004 - \r\n
                if self._left:
                    break
            end = data.find(b"\r\n", at)
            if end < 0:
                break
            try:
                size = int(data[at:end].partition(b";")[0], 16)
            except ValueError:
                raise BrokenStreamError("it answers with no HTTP") from None
            at, self._left, self.ended = end + 2, size + 2, size == 0
        self._rest = b"" if self.ended else data[at:]
