"""The access log, a line for each request, and the count of running requests that a stopping server waits for."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hermes_cli.errors import NotReadyError
from hermes_cli.server.request_stats import CURRENT, RequestStats

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from hermes_cli.server.metrics import Metrics

CLIENT_LEFT = 499  # nginx's status of a client that did not wait for the reply
MOST_LOGGED_BYTES = 64 << 10  # of a body
LONGEST_METHOD = 20  # logged characters; it can be as long as a head
NO_ROUTE = "none"


class Traffic:
    """The number of running requests, and whether more are accepted."""

    def __init__(self) -> None:
        self.running = 0
        self.stopping = False
        self._quiet = asyncio.Event()
        self._quiet.set()

    def let_in(self) -> None:
        """Check before a request begins.

        Raises:
            NotReadyError: the server is about to stop.
        """
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

        Args:
            app: the next one.
            metrics: count requests, too.
            traffic: counts running requests.
            write: takes a line.
            timeout: seconds that a request may take.
            as_json: write JSON.
            bodies: write the bodies of requests, too.
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
        route = getattr(scope.get("route"), "path", NO_ROUTE)
        seconds = time.monotonic() - stats.started
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        self._metrics.answered(method, route, status, seconds)
        facts = self._facts(scope, status, stats, seconds)
        if self._bodies and body:
            facts["body"] = body.decode("utf-8", "replace")
        self._write(json.dumps(facts) if self._as_json else _line(facts))

    @staticmethod
    def _facts(scope: Scope, status: int, stats: RequestStats, seconds: float) -> dict[str, Any]:
        """Return the fields of a line. Times are in milliseconds; the path is logged only if there is no such route."""
        route = getattr(scope.get("route"), "path", None)
        client = scope.get("state", {}).get("client") or (scope["client"] or ("",))[0]
        facts = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "client": client,
            "method": scope["method"][:LONGEST_METHOD],
            "route": route,
            "path": None if route else ascii(scope["path"])[1:-1][:200],
            "status": status,
            "ms": round(seconds * 1000, 1),
        }
        if stats.model:
            facts |= {
                "model": stats.model,
                "prompt_tokens": stats.prompt_tokens,
                "cached_tokens": stats.cached_tokens,
                "completion_tokens": stats.completion_tokens,
                "first_token_ms": None if stats.first_token is None else round(stats.first_token * 1000, 1),
            }
        return facts


_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}


def _line(facts: dict[str, Any]) -> str:
    """Return the fields as a line for people."""
    clock = datetime.fromisoformat(facts["time"]).astimezone().strftime("%H:%M:%S")
    place = facts["route"] or facts["path"]
    tokens = f", {facts['prompt_tokens']}+{facts['completion_tokens']} tokens" if "model" in facts else ""
    # Indented, so that no line of a body passes for one of the log's.
    body = "".join(f"\n  {line}" for line in facts["body"].splitlines()) if "body" in facts else ""
    return f"{clock} {facts['client']} {facts['method']} {place} {facts['status']}, {facts['ms']:.0f} ms{tokens}{body}"
