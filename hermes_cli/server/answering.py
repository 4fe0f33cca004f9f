"""Answers that take a while: whole or as Server-Sent Events, ended when their client leaves.

One coroutine does the work and hands bytes to an `Outlet`, one write for each event; nothing stands between it and the
server. Beside it one task waits for the client to leave, and sends comments while nothing else is sent, so that proxies
do not take a long prompt for a dead connection.

The status of a stream is decided late, by its first event: what goes wrong before that is an ordinary error.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import Response

from hermes_cli.errors import HermesError
from hermes_cli.server.errors import problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from starlette.types import Receive, Scope, Send

    from hermes_cli.server.errors import Shape

    Work = Callable[["Outlet"], Awaitable[None]]
    ErrorEvent = Callable[[HermesError], bytes]

SILENCE = 15.0  # seconds without a byte; proxies close connections after 30 and more
PING = b": keep-alive\n\n"
# X-Accel-Buffering: nginx holds streams back otherwise.
_STREAM = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_JSON = b"application/json"


class Outlet:
    """Where the work puts its answer: `whole`, or any number of `write`."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = asyncio.Lock()
        self.started = False
        self.silent = True  # since somebody looked

    async def write(self, data: bytes) -> None:
        """A part of a stream; the first one decides that all is well."""
        self.silent = False
        if not self.started:
            async with self._begun:
                if not self.started:
                    await self._send({"type": "http.response.start", "status": 200, "headers": list(_STREAM)})
                    self.started = True
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def whole(self, body: bytes) -> None:
        """All of an answer, as JSON."""
        self.started = True
        headers = [(b"content-type", _JSON), (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def end(self) -> None:
        """The end of a stream."""
        await self._send({"type": "http.response.body", "body": b""})


class Answering(Response):
    """A response that is worked on while it is sent."""

    def __init__(
        self,
        work: Work,
        *,
        stream: bool,
        shape: Shape = "openai",
        error_event: ErrorEvent,
        ping: bytes = PING,
        silence: float = SILENCE,
    ) -> None:
        """Nothing happens until the server asks for it.

        Args:
            work: writes the answer; it is cancelled when the client leaves.
            stream: whether it writes a stream.
            shape: of errors before the first byte.
            error_event: what to send of an error after it.
            ping: what to send into a silent stream.
            silence: seconds until then.
        """
        super().__init__()
        self._work, self._stream = work, stream
        self._shape, self._error_event = shape, error_event
        self._ping, self._silence = ping, silence

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Work, and look after the client meanwhile."""
        outlet = Outlet(send)
        work = asyncio.create_task(self._answer(outlet, scope, receive, send))
        client = asyncio.create_task(_left(receive, work))
        try:
            while not work.done() and not client.done():
                outlet.silent = True
                await asyncio.wait({work, client}, timeout=self._silence, return_when=asyncio.FIRST_COMPLETED)
                if self._stream and outlet.silent and not work.done() and not client.done():
                    await outlet.write(self._ping)
        finally:
            await _end(work)
            await _end(client)
        if not work.cancelled() and (error := work.exception()):
            raise error

    async def _answer(self, outlet: Outlet, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._work(outlet)
        except HermesError as error:
            if not outlet.started:
                await problem(error).response(self._shape)(scope, receive, send)
                return
            await outlet.write(self._error_event(error))
        if self._stream:
            await outlet.end()


async def together(works: Sequence[Coroutine[object, object, None]]) -> None:
    """Do several things at once; the first error ends them all.

    Raises:
        HermesError: that error.
    """
    if len(works) == 1:
        await works[0]
        return
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        await _end(*tasks)


async def _left(receive: Receive, work: asyncio.Task[None]) -> None:
    """Wait until the client has closed the connection, or the work is done.

    To cancel this is not enough: until Python 3.12 `asyncio.wait_for`, which may stand behind `receive`, can lose that.
    """
    while not work.done() and (await receive())["type"] != "http.disconnect":
        pass


async def _end(*tasks: asyncio.Task[None]) -> None:
    """Cancel what still runs, and wait until it has cleaned up."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
