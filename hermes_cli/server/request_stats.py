"""Counters of one request, the access log that writes them, and the count of running requests."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from msgspec import UNSET, UnsetType
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hermes_cli.engine.protocol import Done, Embeddings, Engine, Event
from hermes_cli.engine.request import EmbeddingRequest, GenerationRequest
from hermes_cli.errors import NotReadyError
from hermes_cli.interruption import Interruption
from hermes_cli.prompting.normalize import repaired
from hermes_cli.server.metrics import Metrics
from hermes_cli.server.streaming_reply import CLIENT_LEFT
from hermes_cli.threads import LARGE, in_turn

T = TypeVar("T")


@dataclass
class RequestStats:
    """One request. Counts are tokens, times seconds; `started` and `deadline` are on the monotonic clock."""

    deadline: float
    started: float = field(default_factory=time.monotonic)
    size: int = 0  # bytes of its body, and of what that refers to
    model: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    first_token: float | None = None
    warnings: list[str] = field(default_factory=list)


CURRENT: ContextVar[RequestStats | None] = ContextVar("request_stats", default=None)
MOST_WARNINGS = 50  # of one request
LONGEST_WARNING = 300  # characters: clients choose the names in them


def warn(*warnings: str) -> None:
    """Tell the client and the log what of the current request is relaxed or left out."""
    if (stats := CURRENT.get()) and len(stats.warnings) < MOST_WARNINGS:
        new = (
            text if len(text) <= LONGEST_WARNING else f"{text[:LONGEST_WARNING]}…" for text in map(repaired, warnings)
        )
        stats.warnings = [*dict.fromkeys((*stats.warnings, *new))][:MOST_WARNINGS]


def current_warnings() -> list[str] | UnsetType:
    """Return the warnings of the current request for its reply, UNSET if there are none."""
    stats = CURRENT.get()
    return stats.warnings if stats and stats.warnings else UNSET


async def aside(client: str, work: Callable[[], T]) -> T:
    """Return the result of work that takes as long as the current request's body is: of a large one in a thread."""
    stats = CURRENT.get()
    return await in_turn(client, work, size=stats.size) if stats and stats.size >= LARGE else work()


class CountedEngine:
    """An engine that counts its work for the request at hand, and stops at its deadline."""

    def __init__(self, engine: Engine, model: str, metrics: Metrics) -> None:
        self._engine, self._model, self._metrics = engine, model, metrics
        self.load, self.unload, self.close, self.stats = engine.load, engine.unload, engine.close, engine.stats
        self.tokenize, self.detokenize = engine.tokenize, engine.detokenize

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Generate, and count; raise NotReadyError if the request took longer than the server allows."""
        stats = CURRENT.get() or RequestStats(float("inf"))
        stats.model = self._model
        began = time.monotonic()
        is_first = True
        deadline = Interruption()
        left = stats.deadline - time.monotonic()
        timer = None
        if not math.isinf(left):  # one for all tokens
            timer = asyncio.get_running_loop().call_later(max(left, 0), deadline.interrupt, _too_slow())
        try:
            async with aclosing(self._engine.generate(request)) as events:
                while event := await deadline.next(events):
                    if is_first:
                        is_first, now = False, time.monotonic()
                        stats.first_token = stats.first_token or now - stats.started
                        self._metrics.first_token(self._model, now - began)
                    if isinstance(event, Done):
                        stats.prompt_tokens += event.prompt_tokens
                        stats.cached_tokens += event.cached_tokens
                        stats.completion_tokens += event.completion_tokens
                        self._metrics.generated(self._model, event)
                    yield event
        finally:
            if timer:
                timer.cancel()

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Embed, and count; raise NotReadyError if the request took longer than the server allows."""
        stats = CURRENT.get() or RequestStats(float("inf"))
        stats.model = self._model
        try:
            async with asyncio.timeout(None if math.isinf(stats.deadline) else stats.deadline - time.monotonic()):
                embeddings = await self._engine.embed(request)
        except TimeoutError:
            raise _too_slow() from None
        stats.prompt_tokens += sum(embeddings.tokens)
        return embeddings


def _too_slow() -> NotReadyError:
    return NotReadyError(
        "the request took longer than the server allows (--timeout).",
        hint="ask for less at once, or start the server with a longer --timeout.",
    )


MOST_LOGGED_BYTES = 64 << 10  # of a body
LONGEST_METHOD = 20  # logged characters; it can be as long as a head
NO_ROUTE = "none"
_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}


class Traffic:
    """The number of running requests, and whether more are accepted."""

    def __init__(self) -> None:
        self.running = 0
        self.stopping = False
        self._quiet = asyncio.Event()
        self._quiet.set()

    def let_in(self) -> None:
        """Check before a request begins."""
        if self.stopping:
            raise NotReadyError("the server is about to stop.", hint="ask again when it is back.")

    def begin(self) -> None:
        """Count a request that begins."""
        self.running += 1
        self._quiet.clear()

    def end(self) -> None:
        """Count a request that ends."""
        self.running -= 1
        if not self.running:
            self._quiet.set()

    async def quiet(self, seconds: float) -> bool:
        """Wait until no request runs; return false if some still do after so many seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._quiet.wait(), seconds)
        return not self.running


class AccessLog:
    """ASGI middleware that logs every request when it is over, however it ended."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        traffic: Traffic,
        write: Callable[[str], None],
        timeout: float,
        as_json: bool = False,
        bodies: bool = False,
    ) -> None:
        """Wrap an application, outermost.

        `write` takes a line; a request may take `timeout` seconds; `bodies` logs the bodies of requests, too.
        """
        self._app, self._metrics, self._traffic, self._write = app, metrics, traffic, write
        self._timeout, self._as_json, self._bodies = timeout, as_json, bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stats = RequestStats(time.monotonic() + self._timeout)
        status, whole = CLIENT_LEFT, False
        body = bytearray()

        async def watched_send(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body", False):
                whole = True
            await send(message)

        async def watched_receive() -> Message:
            message = await receive()
            body.extend(message.get("body", b"")[: MOST_LOGGED_BYTES - len(body)])
            return message

        token = CURRENT.set(stats)
        self._traffic.begin()
        try:
            await self._app(scope, watched_receive if self._bodies else receive, watched_send)
        except Exception:  # ServerErrorMiddleware answers
            status, whole = 500, True
            raise
        finally:
            self._traffic.end()
            CURRENT.reset(token)
            self._log(scope, status if whole else CLIENT_LEFT, stats, bytes(body))

    def _log(self, scope: Scope, status: int, stats: RequestStats, body: bytes) -> None:
        route = getattr(scope.get("route"), "path", None)
        seconds = time.monotonic() - stats.started
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        self._metrics.answered(method, route or NO_ROUTE, status, seconds)
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "client": scope.get("state", {}).get("client") or (scope["client"] or ("",))[0],
            "method": scope["method"][:LONGEST_METHOD],
            "route": route,
            "path": None if route else ascii(scope["path"])[1:-1][:200],
            "status": status,
            "ms": round(seconds * 1000, 1),
        }
        if stats.model:
            line |= {
                "model": stats.model,
                "prompt_tokens": stats.prompt_tokens,
                "cached_tokens": stats.cached_tokens,
                "completion_tokens": stats.completion_tokens,
                "first_token_ms": None if stats.first_token is None else round(stats.first_token * 1000, 1),
            }
        if stats.warnings:
            line["warnings"] = stats.warnings
        if self._bodies and body:
            line["body"] = body.decode("utf-8", "replace")
        self._write(json.dumps(line) if self._as_json else _as_text(line))


def _as_text(line: dict[str, Any]) -> str:
    clock = datetime.fromisoformat(line["time"]).astimezone().strftime("%H:%M:%S")
    path = line["route"] or line["path"]
    tokens = f", {line['prompt_tokens']}+{line['completion_tokens']} tokens" if "model" in line else ""
    # Indented, so that no line of a body or a warning passes for one of the log's.
    more = "".join(f"\n  warning: {ascii(text)[1:-1]}" for text in line.get("warnings", ()))
    more += "".join(f"\n  {part}" for part in line["body"].splitlines()) if "body" in line else ""
    return f"{clock} {line['client']} {line['method']} {path} {line['status']}, {line['ms']:.0f} ms{tokens}{more}"
