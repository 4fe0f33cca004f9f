"""An endpoint on loopback that answers byte for byte as it is told to, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Literal

from conftest import HANG

from hermes_cli.chat.conversation import ChatOptions
from hermes_cli.chat.endpoint.address import read_address
from hermes_cli.chat.endpoint.endpoint_backend import connect
from hermes_cli.engine.protocol import Done
from hermes_cli.errors import HermesError
from hermes_cli.generation import Event
from hermes_cli.prompting.messages import CallFinished, Content, Message, Reasoning


@dataclass
class Reply:
    """What comes back.

    Attributes:
        parts: sent one by one, each as one chunk of HTTP.
        end: "whole" is as it should be; "cut" breaks the connection; "open" sends no more, and waits for the client.
    """

    parts: Sequence[bytes] = ()
    status: int = 200
    kind: str = "text/event-stream"
    headers: dict[str, str] = field(default_factory=dict)
    end: Literal["whole", "cut", "open"] = "whole"


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Endpoint:
    """`replies` are for the requests for answers, in their order; `routes` for all others."""

    port: int = 0
    replies: list[Reply] = field(default_factory=list)
    routes: dict[str, Reply] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)  # the client closed a connection that was open

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def last(self) -> Any:  # noqa: ANN401 - what JSON holds
        """The body of the last request."""
        return self.asked[-1].body

    def answers(self, *replies: Reply) -> Endpoint:
        self.replies += replies
        return self

    def lists(self, *models: dict[str, Any]) -> Endpoint:
        self.routes["/v1/models"] = of_json({"object": "list", "data": models})
        return self


def of_json(value: object, status: int = 200, **headers: str) -> Reply:
    return Reply([json.dumps(value).encode()], status, "application/json", headers)


def refusal(status: int, message: str, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return of_json({"error": {"message": message, "type": "x"}}, status, **named)


def event(value: object) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()) + b"\n\n"


def delta(finish: str | None = None, **fields: object) -> bytes:
    """A chunk."""
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]})


DONE = event(b"[DONE]")
STOP = delta("stop") + DONE


def stream(*parts: bytes, end: Literal["whole", "cut", "open"] = "whole") -> Reply:
    return Reply(parts, end=end)


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """With one model, `m`."""
    told = Endpoint().lists({"id": "m", "object": "model"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"told": told}))
    server.daemon_threads = True
    told.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join(HANG)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm: ClassVar[bool] = True
    told: ClassVar[Endpoint]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(self.told.routes.get(self.path.partition("?")[0]))

    def do_POST(self) -> None:
        chat = self.path.endswith("/chat/completions")
        self.answer(self.told.replies.pop(0) if chat else self.told.routes.get(self.path))

    def answer(self, reply: Reply | None) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = {name.lower(): value for name, value in self.headers.items()}
        self.told.asked.append(Asked(self.command, self.path, found, json.loads(raw) if raw else None))
        with suppress(ConnectionError):
            self.send(reply or refusal(404, "no such route"))

    def send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in {"Content-Type": reply.kind, "Transfer-Encoding": "chunked", **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        for part in reply.parts:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        if reply.end == "whole":
            self.wfile.write(b"0\r\n\r\n")
            return
        self.close_connection = True
        if reply.end == "cut":  # with a reset, not a clean end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        self.connection.settimeout(HANG)
        if not self.connection.recv(1):
            self.told.left.set()


HI = [Message("user", "Hi")]
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@dataclass
class Heard:
    """What came of a question."""

    events: list[Event] = field(default_factory=list)
    says: list[str] = field(default_factory=list)
    error: HermesError | None = None

    @property
    def text(self) -> str:
        return "".join(one.text for one in self.events if isinstance(one, Content))

    @property
    def thought(self) -> str:
        return "".join(one.text for one in self.events if isinstance(one, Reasoning))

    @property
    def calls(self) -> list[tuple[str, dict[str, Any]]]:
        return [(one.call.name, one.call.arguments) for one in self.finished if one.complete]

    @property
    def finished(self) -> list[CallFinished]:
        return [one for one in self.events if isinstance(one, CallFinished)]

    @property
    def done(self) -> Done:
        assert isinstance(self.events[-1], Done), self.error
        return self.events[-1]


def ask(
    url: str,
    model: str | None = None,
    *,
    messages: Sequence[Message] = HI,
    tools: Sequence[dict[str, Any]] = (),
    options: ChatOptions | None = None,
    environ: Mapping[str, str] | None = None,
) -> Heard:
    heard = Heard()

    async def answer() -> None:
        backend = await connect(read_address(url, environ or {}), model, heard.says.append, heard.says.append)
        try:
            async with aclosing(backend.generate(messages, tools, options or ChatOptions())) as events:
                async for one in events:
                    heard.events.append(one)
        finally:
            await backend.close()

    try:
        asyncio.run(answer())
    except HermesError as error:
        heard.error = error
    return heard
