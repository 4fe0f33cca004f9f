"""Requests over one connection to a server, and how their answers may end: for tools/server_load.py."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Body = dict[str, Any]

LATER = {429, 503}  # what has to come with Retry-After
TOO_LONG = "word " * 5000
CHAT, TEXT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
ENDS = {RESPONSES: (b"response.completed", b"response.incomplete"), MESSAGES: (b"message_stop",)}
ERRORS = {RESPONSES: (b"response.failed", b"error"), MESSAGES: (b"error",)}


class WrongError(Exception):
    """An answer that is neither an answer nor a proper error."""


@dataclass(frozen=True)
class Reply:
    """An HTTP answer that is here to its end."""

    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """One connection to the server, for one request after the other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, path: str, body: Body | None = None, *, pause: float = 0.0) -> Reply:
        """Send a request, and read the answer to its end, with so many seconds between its parts.

        Raises:
            OSError: the connection ended before.
            EOFError: the same.
        """
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        data = b"" if body is None else json.dumps(body).encode()
        method = "GET" if body is None else "POST"
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
        self._writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + data)
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "content-length" in headers:
            said = await self._reader.readexactly(int(headers["content-length"]))
        else:
            said = await self._chunks(pause)
        if headers.get("connection") == "close":
            self.leave()
        return Reply(int(first.split()[1]), headers, said)

    async def _chunks(self, pause: float) -> bytes:
        parts = []
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            parts.append((await self._reader.readexactly(size + 2))[:-2])
            if pause:
                await asyncio.sleep(pause)
        await self._reader.readexactly(2)
        return b"".join(parts)

    def leave(self, *, rudely: bool = False) -> None:
        """Close it; rudely is without a word (RST)."""
        writer, self._writer = self._writer, None
        if writer and rudely:
            writer.transport.abort()
        elif writer:
            writer.close()


def ended(path: str, body: Body, reply: Reply) -> str:
    """How a request ended, if that is a way in which it may.

    Raises:
        WrongError: it is none.
    """
    if reply.status != 200:  # noqa: PLR2004 - OK
        return _refused(body, reply)
    if not body.get("stream"):
        return _whole(reply)
    *_, last, rest = (b"", *reply.body.split(b"\n\n"))
    if rest or not last:
        raise WrongError(f"a stream ends with {reply.body[-200:]!r}")
    if path not in ENDS:
        if last == b"data: [DONE]":
            finished = reply.body.count(b'"finish_reason":"')
            if finished != body.get("n", 1):
                raise WrongError(f"[DONE] after {finished} reasons")
            return "answered"
        return _failed(_data(last))
    kind = last.partition(b"\n")[0].removeprefix(b"event: ")
    if kind in ENDS[path]:
        return "answered"
    if kind in ERRORS[path]:
        said = _data(last)
        return _failed(said.get("response", said))
    raise WrongError(f"a stream ends with {last!r}")


def _whole(reply: Reply) -> str:
    said = json.loads(reply.body)
    if not all(choice["finish_reason"] for choice in said["choices"]):
        raise WrongError(f"an answer without an end: {reply.body!r}")
    return "answered"


def _refused(body: Body, reply: Reply) -> str:
    error = _error(json.loads(reply.body))
    if reply.status in LATER and int(reply.headers.get("retry-after", 0)) < 1:
        raise WrongError(f"{reply.status} without Retry-After: {error}")
    too_long = error.get("code") == "context_length_exceeded" and TOO_LONG in str(body)
    if reply.status not in LATER and not too_long:
        raise WrongError(f"{reply.status}: {error}")
    return f"HTTP {reply.status}, {error.get('code') or error['type']}"


def _failed(said: Body) -> str:
    error = _error(said)
    return f"error in the stream, {error.get('code') or error['type']}"


def _error(said: Body) -> Body:
    """What is told of an error: a message, and what kind it is."""
    error = said.get("error")
    if not isinstance(error, dict) or not error.get("message") or not (error.get("type") or error.get("code")):
        raise WrongError(f"no error: {said}")
    return error


def _data(event: bytes) -> Body:
    told: Body = json.loads(event.rpartition(b"data: ")[2])
    return told
