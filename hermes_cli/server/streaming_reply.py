"""Replies that take a while: whole or as Server-Sent Events, ended when their client leaves.

One coroutine generates and writes each event at once; nothing stands between it and the server. Beside it one task
waits for the client to leave, and sends comments while nothing else is sent, so that proxies do not take a long prompt
for a dead connection. The status of a stream is decided by its first event: an error before that is an ordinary error.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hermes_cli.errors import HermesError
from hermes_cli.server.errors import Problem, problem, shape_of

Work = Callable[["StreamingReply"], Awaitable[None]]

CLIENT_LEFT = 499  # nginx's status of a client that did not wait for the reply
SILENCE = 15.0  # seconds without a byte; proxies close connections after 30 and more
PIECE = 1 << 20  # bytes of a long reply that are sent together
PING = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
EVENT_STREAM = b"text/event-stream; charset=utf-8"
# X-Accel-Buffering: nginx holds streams back otherwise.
_STREAM = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
_LINE_ENDS = tuple((mark.encode(), rf"\u{ord(mark):04x}".encode()) for mark in "\u0085\u2028\u2029")


def encode(value: object) -> bytes:
    """Encode as JSON on one line, whatever a client takes for the end of a line."""
    try:
        data = msgspec.json.encode(value)
    except UnicodeEncodeError:  # a client sent half a surrogate pair, and gets it back as it spelled it
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode()
    if not data.isascii():
        for mark, escaped in _LINE_ENDS:
            data = data.replace(mark, escaped)
    return data


def event(value: object) -> bytes:
    """Encode an event without a name."""
    return b"data: " + encode(value) + b"\n\n"


def named_event(kind: str, /, **fields: object) -> bytes:
    """Encode an event whose name stands in its data, too."""
    return b"event: " + kind.encode() + b"\ndata: " + encode({"type": kind, **fields}) + b"\n\n"


def openai_error_event(error: Problem) -> bytes:
    """Encode the error that ends a stream, as OpenAI's clients understand it; no `[DONE]` follows."""
    return b"data: " + error.body() + b"\n\n"


def json_reply(value: object) -> Response:
    """Return a reply that is there already."""
    return Response(encode(value), media_type="application/json")


class StreamingReply(Response):
    """A reply that is generated while it is sent: by `write`, any number of times, or by one `whole`."""

    def __init__(
        self,
        work: Work,
        *,
        stream: bool,
        problem: Callable[[HermesError], Problem] = problem,
        error_event: Callable[[Problem], bytes] = openai_error_event,  # of errors after the first byte
        media_type: bytes = EVENT_STREAM,  # of a stream
        ping: bytes = PING,
        silence: float = SILENCE,  # seconds without a byte, after which a stream gets a ping
    ) -> None:
        """Describe the reply; `work` generates and writes it, and is cancelled when the client leaves."""
        super().__init__()
        self._work, self.stream = work, stream
        self._problem, self._error_event = problem, error_event
        self._ping, self._silence, self._stream_type = ping, silence, media_type
        self._send: Send
        self._starting = asyncio.Lock()
        self._started = False
        self._silent = True  # since the last look

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Generate, and look after the client meanwhile."""
        self._send = send
        work = asyncio.create_task(self._run(scope, receive))
        client = asyncio.create_task(_client_left(receive, work))
        try:
            while not work.done() and not client.done():
                self._silent = True
                await asyncio.wait({work, client}, timeout=self._silence, return_when=asyncio.FIRST_COMPLETED)
                if self.stream and self._silent and not work.done() and not client.done():
                    await self.write(self._ping)
        finally:
            await cancel(work)
            await cancel(client)
        if not work.cancelled() and (error := work.exception()):
            raise error

    async def write(self, data: bytes) -> None:
        """Send a part of a stream; the first one settles that the status is 200."""
        self._silent = False
        if not self._started:
            async with self._starting:
                if not self._started:
                    headers = [(b"content-type", self._stream_type), *_STREAM]
                    await self._send({"type": "http.response.start", "status": 200, "headers": headers})
                    self._started = True
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def whole(self, value: object) -> None:
        """Send all of a reply as JSON."""
        await self.whole_json(encode(value))

    async def whole_json(self, body: bytes) -> None:
        """Send all of a reply, which is JSON already."""
        self._started = True
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        for at in range(0, len(body), PIECE):  # the server copies what it sends
            more = at + PIECE < len(body)
            await self._send({"type": "http.response.body", "body": body[at : at + PIECE], "more_body": more})

    async def _run(self, scope: Scope, receive: Receive) -> None:
        try:
            await self._work(self)
        except HermesError as error:
            if not self._started:
                await self._problem(error).response(shape_of(scope["path"]))(scope, receive, self._send)
                return
            await self.write(self._error_event(self._problem(error)))
        if self.stream:
            await self._send({"type": "http.response.body", "body": b""})


async def unless_client_leaves(receive: Receive, work: Coroutine[object, object, Response]) -> Response:
    """Do work until there is a reply; cancel it when the client leaves."""
    task = asyncio.create_task(work)
    client = asyncio.create_task(_client_left(receive, task))
    try:
        await asyncio.wait({task, client}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else Response(status_code=CLIENT_LEFT)
    finally:
        await cancel(task, client)


async def together(works: Sequence[Coroutine[object, object, None]]) -> None:
    """Do several things at once; the first error cancels the others."""
    if len(works) == 1:
        await works[0]
        return
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        await cancel(*tasks)


async def _client_left(receive: Receive, work: asyncio.Task[Any]) -> None:
    """Wait until the client has closed the connection, or the work is done.

    To cancel this is not enough: until Python 3.12 `asyncio.wait_for`, which may stand behind `receive`, can lose that.
    """
    while not work.done() and (await receive())["type"] != "http.disconnect":
        pass


async def cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs, and wait until it has cleaned up."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
