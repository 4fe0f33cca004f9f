"""Access to the server: checks of a request's head, key and size before anything else reads it.

    Host      DNS rebinding: a page of a foreign name that resolves to this machine is refused by its own name
    Origin    a page of the web may not make a browser ask, unless it is this server's own, or allowed (CORS)
    framing   both a length and chunks, as only smugglers send them
    body      its size, also in chunks, and the time that it takes
    key       for each route (routing.py), before its body is read; only public routes go without

Nothing here decides by a URL: frameworks have been made to see another path than was routed (CVE-2026-48710).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from collections.abc import Collection, Sequence
from dataclasses import replace

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hermes_cli.server.errors import RETRY_AFTER, Problem, RefusedError, shape_of
from hermes_cli.server.settings import Key

AT_ONCE = 8  # bodies of the greatest length that may be on their way together
SMALL_BODY = 1 << 20  # bytes; up to here a body is let in, whatever others are on their way
HEAD_BYTES = 64 << 10  # of a request's first line and headers together
_CLOSE = {"Connection": "close"}  # what else is on the way belongs to the same attempt
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
ANYBODY = "*"


class Keys:
    """The keys of a server."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._digests = [(key.name, _digest(key.secret.encode())) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def holder(self, key: bytes) -> str | None:
        """Return the name of a key, or None; it takes as long for every key, right or wrong."""
        digest, holder = _digest(key), None
        for name, known in self._digests:
            if hmac.compare_digest(digest, known):
                holder = name
        return holder


def _digest(secret: bytes) -> bytes:
    """Hash a key, so that its length cannot be measured."""
    return hashlib.sha256(secret).digest()


def authenticate(request: Request) -> str:
    """Return the client of a request: the name of its key, or its address."""
    keys: Keys = request.app.state.keys
    if not keys:
        return request.client.host if request.client else ""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    sent = [token.strip()] if scheme.lower() == "bearer" else []
    sent += request.headers.getlist("x-api-key")  # as Anthropic's clients send it
    holders = [holder for key in sent if (holder := keys.holder(key.encode("latin-1")))]
    if not holders:
        reason = "the key is wrong" if sent else "a key is needed"
        raise RefusedError(
            401,
            f"{reason}: send it as `Authorization: Bearer KEY` or `x-api-key: KEY`.",
            "invalid_api_key",
            {"WWW-Authenticate": "Bearer"},
        )
    return holders[0]


class Gate:
    """ASGI middleware that refuses requests by their head: for another host, from a foreign page, or framed twice."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], any_address: bool, origins: Collection[str]) -> None:
        """Wrap an application.

        It answers to `hosts`, beside the names of loopback, with any port; with `any_address` to a bare IP address,
        too: no rebinding makes a page's name one. Pages of `origins` may ask beside the server's own, of all for `*`.
        """
        self._app = app
        self._hosts = {name.lower() for name in (*LOOPBACK_NAMES, *hosts)}
        self._any_address = any_address
        self._origins = {origin.lower().rstrip("/") for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "http" and (refused := self.refusal(scope["headers"]) or _too_long_a_head(scope)):
            await replace(refused, headers=_CLOSE).response(shape_of(scope["path"]))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def refusal(self, headers: Sequence[tuple[bytes, bytes]]) -> Problem | None:
        """Return why a request with this head is refused, or None."""
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1:
            return Problem(400, "a request needs one Host header.", code="bad_host")
        host = hosts[0].decode("latin-1")
        name = _without_port(host.lower())
        if name not in self._hosts and not (self._any_address and _is_address(name)):
            shown = ascii(host[:200])
            return Problem(
                403,
                f"this server does not answer to the name {shown}. If it should: hermes serve --allowed-host NAME",
                code="host_not_allowed",
            )
        if {name for name, _ in headers} >= {b"transfer-encoding", b"content-length"}:
            return Problem(400, "a request has either a length or chunks.", code="bad_framing")
        origins = [value.decode("latin-1").lower() for name, value in headers if name == b"origin"]
        # The page of this server; with https it comes through a proxy that adds TLS.
        own = {f"{scheme}://{host.lower()}" for scheme in ("http", "https")}
        if ANYBODY not in self._origins and not (self._origins | own).issuperset(origins):
            shown = ascii(next(origin for origin in origins if origin not in own)[:200])
            return Problem(
                403,
                f"pages of {shown} may not use this server. If they should: hermes serve --cors ORIGIN",
                code="origin_not_allowed",
            )
        return None


def _too_long_a_head(scope: Scope) -> Problem | None:
    """Return the refusal of a head that came whole, which h11 lets pass at up to twice its limit."""
    size = len(scope["raw_path"]) + len(scope["query_string"])
    size += sum(len(name) + len(value) for name, value in scope["headers"])
    if size <= HEAD_BYTES:
        return None
    return Problem(431, f"the head of the request is longer than {HEAD_BYTES >> 10} KiB.", code="head_too_large")


def _without_port(host: str) -> str:
    """Return the name of a Host header; empty if it is malformed."""
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        return host
    return name if port.isdecimal() and port.isascii() else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


class BodyLimit:
    """ASGI middleware that limits the size of bodies, and the time in which they arrive."""

    def __init__(self, app: ASGIApp, *, most: int, seconds: float) -> None:
        """Wrap an application; bodies have up to `most` bytes, and arrive within `seconds` from their first read."""
        self._app, self._most, self._seconds = app, most, seconds
        self._arriving = 0  # bytes of all bodies that are not whole, or not read yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if int(declared) > self._most:
            await self._too_long().problem.response(shape_of(scope["path"]))(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        received, whole, end = 0, False, loop.time() + self._seconds

        async def counted() -> Message:
            nonlocal received, whole
            if whole:  # the body is read; what may come now is the end of the connection
                self._arriving -= received
                received = 0
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(end - loop.time(), 0))
            except TimeoutError:
                late = f"the body of the request is not here after {self._seconds:g} seconds."
                raise RefusedError(408, late, "body_timeout", _CLOSE) from None
            received += len(message.get("body", b""))
            self._arriving += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > self._most:
                raise self._too_long()
            if received > SMALL_BODY and self._arriving > AT_ONCE * self._most:
                busy = "too many long requests arrive at once: send it again a little later."
                raise RefusedError(503, busy, "not_ready", {**_CLOSE, "Retry-After": str(RETRY_AFTER)})
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            self._arriving -= received

    def _too_long(self) -> RefusedError:
        most = f"{self._most / 2**20:g} MiB"
        return RefusedError(413, f"the body of the request is longer than {most} (--max-body).", "body_too_large")
