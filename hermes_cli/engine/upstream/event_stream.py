"""Server-sent events of one request, over a connection of its own: the hot path, on which all tokens come.

A reader that has just read is woken again after a pause, together with all others whose data came meanwhile. So many
streams together cost little more than few: of 64 answers at once, each is read 15 times a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

MOST_HEADERS = 1 << 16  # bytes
MOST_UNREAD = 1 << 20  # bytes; a server that sends more waits until they are read
_END = b"\r\n\r\n"


class BrokenStreamError(Exception):
    """The connection ended too early, or what came is no HTTP."""


class Pacer:
    """Wakes readers whose pause is over, all at once; `pause` returns the seconds between two reads of a stream."""

    def __init__(self, pause: Callable[[], float] = lambda: 0.0) -> None:
        self.pause = pause
        self._waiting: list[StreamConnection] = []
        self._timer: asyncio.TimerHandle | None = None

    def wake_after(self, seconds: float, connection: StreamConnection) -> None:
        """Wake a reader after so many seconds, or sooner if another one is woken then."""
        self._waiting.append(connection)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._wake)

    def _wake(self) -> None:
        waiting, self._waiting, self._timer = self._waiting, [], None
        for connection in waiting:
            connection.wake()


@dataclass
class Response:
    """A response whose body is still coming."""

    status: int
    content_type: str
    connection: StreamConnection
    chunked: bool
    length: int | None  # of the body in bytes; None if its chunks or the end of the connection tell
    rest: bytes  # of the body, read with the headers

    async def body(self, most: int) -> bytes:
        """Return all of the body, up to so many bytes."""
        data = b""
        async for part in self.parts():
            data += part
            if len(data) > most:
                break
        return data

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes; raise BrokenStreamError if it does not end as it should."""
        decoder = _Chunked() if self.chunked else None
        data, left = self.rest, self.length
        while True:
            if data:
                yield decoder.decode(data) if decoder else data
            if left is not None:
                left -= len(data)
            if (decoder and decoder.ended) or (left is not None and left <= 0):
                return
            data = await self.connection.read()
            if not data:
                if decoder or left:
                    raise BrokenStreamError("it was closed")
                return

    async def events(self, most: int) -> AsyncGenerator[list[bytes], None]:
        """Yield the data of the events that have come since, at least one; a comment or another field is none."""
        rest = b""
        self.connection.is_paced = True
        async for part in self.parts():
            *lines, rest = (rest + part).split(b"\n")
            if len(rest) > most:
                raise BrokenStreamError("an event is too long")
            if found := [line[5:].strip() for line in lines if line.startswith(b"data:")]:
                yield found


class StreamConnection(asyncio.Protocol):
    """A connection for one request, to be closed."""

    def __init__(self, silence: float, pacer: Pacer) -> None:
        """Take the seconds of silence after which a read fails with TimeoutError."""
        self.is_paced = False  # reads are at least a pause apart; the first one is not waited for
        self._loop = asyncio.get_running_loop()
        self._pacer, self._silence = pacer, silence
        self._unread = bytearray()
        self._reader: asyncio.Future[None] | None = None
        self._due, self._last = 0.0, self._loop.time()  # the next read, and when something came last
        self._is_waking = False  # by the pacer
        self._error: Exception | None = None
        self._ended = False
        self._timer = self._loop.call_later(silence, self._check)

    @classmethod
    async def open(
        cls, url: str, path: str, *, connect: float, silence: float, pacer: Pacer | None = None
    ) -> StreamConnection:
        """Connect to the host of a URL, or to a socket file; raises OSError or TimeoutError."""
        loop = asyncio.get_running_loop()

        def make() -> StreamConnection:
            return cls(silence, pacer or Pacer())

        async with asyncio.timeout(connect):
            if path:
                return (await loop.create_unix_connection(make, path))[1]
            parts = urlsplit(url)
            return (await loop.create_connection(make, parts.hostname or "", parts.port or 80))[1]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Keep what came for the reader, and wake it when it may read."""
        self._unread += data
        if len(self._unread) > MOST_UNREAD:
            self._transport.pause_reading()
        self._last = self._loop.time()
        if self._reader and not self._is_waking:
            if self._due <= self._last:
                self.wake()
            else:
                self._is_waking = True
                self._pacer.wake_after(self._due - self._last, self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the reading: nothing more is to be waited for."""
        self._error, self._ended = self._error or exc, True
        self._timer.cancel()
        self.wake()

    def wake(self) -> None:
        """Have the reader read what has come."""
        self._is_waking = False
        if self._reader and not self._reader.done() and (self._unread or self._ended):
            self._reader.set_result(None)

    async def post(self, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Send a request, and return its response once the headers are there."""
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        head = "\r\n".join((*lines, "Connection: close", f"Content-Length: {len(body)}")).encode("latin-1", "replace")
        self._transport.write(head + _END + body)
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
        length = fields.get("content-length", "")
        return Response(
            int(status[9:12]),
            fields.get("content-type", ""),
            self,
            chunked,
            int(length) if length.isdecimal() and not chunked else None,
            rest,
        )

    async def read(self) -> bytes:
        """Return what has come, at least one byte; nothing at the end. Raises OSError or TimeoutError."""
        now = self._loop.time()
        if not self._ended and (not self._unread or self._due > now):
            self._reader = self._loop.create_future()
            if self._unread and not self._is_waking:
                self._is_waking = True
                self._pacer.wake_after(self._due - now, self)
            try:
                await self._reader
            finally:
                self._reader = None
            now = self._loop.time()
        if self.is_paced:
            self._due = now + self._pacer.pause()
        if not self._unread and self._error:
            raise self._error
        data = bytes(self._unread)
        self._unread.clear()
        if len(data) > MOST_UNREAD:
            self._last = now  # nothing could come meanwhile
            self._transport.resume_reading()
        return data

    def close(self) -> None:
        """Close it, which cancels what the server works on."""
        self._timer.cancel()
        self._transport.abort()

    def _check(self) -> None:
        """Fail the read if nothing came for too long; a reader that has not come back yet is not waited for."""
        left = self._last + self._silence - self._loop.time()
        if left > 0 or not self._reader:
            self._timer = self._loop.call_later(left if left > 0 else self._silence, self._check)
            return
        self._error, self._ended = TimeoutError(), True
        self.wake()


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
