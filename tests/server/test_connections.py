"""Clients that are slow or greedy, one by one; test_raw_socket.py has what is broken, and many at once."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from conftest import HANG
from server_rig import Running, read_all, served
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse

from hermes_cli.server.routing import ApiRoute
from hermes_cli.server.settings import ServerSettings
from hermes_cli.server.sockets import listen

HEAD, BODY, WRITE = 0.3, 0.4, 0.5  # seconds
QUICK = ServerSettings(header_timeout=HEAD, body_timeout=BODY, write_timeout=WRITE, max_body=1, max_connections=50)
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNK = b"x" * 65_536


class Flood:
    """A route that never stops writing."""

    def __init__(self) -> None:
        self.ended = 0

    def add(self, app: Starlette) -> None:
        app.router.routes.append(ApiRoute("GET", "/flood", self.endless))

    async def endless(self, request: Request) -> StreamingResponse:  # noqa: ARG002 - every endpoint gets one
        async def lines() -> AsyncIterator[bytes]:
            try:
                while True:
                    await asyncio.sleep(0)  # as every answer of a model waits for something
                    yield CHUNK
            finally:
                self.ended += 1

        return StreamingResponse(lines())


@pytest.fixture(scope="module")
def flood() -> Flood:
    return Flood()


@pytest.fixture(scope="module")
def quick(flood: Flood) -> Iterator[Running]:
    with served(QUICK, prepare=flood.add) as running:
        yield running


@pytest.fixture(autouse=True)
def _healthy_after_each(quick: Running) -> Iterator[None]:
    yield
    assert quick.healthy()


def answered(line: socket.socket) -> bytes:
    """One whole answer, on a connection that stays open."""
    found = b""
    while b"\r\n\r\n" not in found or not found.endswith(b"}"):
        part = line.recv(65_536)
        assert part
        found += part
    return found


def test_a_connection_that_says_nothing_is_closed(quick: Running) -> None:
    started = time.monotonic()
    with quick.connect() as line:
        assert read_all(line) == b""
    assert time.monotonic() - started > HEAD * 0.9


def test_slow_headers(quick: Running) -> None:
    """slowloris: a byte now and then keeps no connection open."""
    with quick.connect() as line:
        line.settimeout(0.05)
        line.sendall(GET[:-2] + b"X: ")
        end = time.monotonic() + HANG
        while True:
            assert time.monotonic() < end
            try:
                line.sendall(b"a")
                if line.recv(1) in {b"", b"H"}:
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break


def test_slow_headers_of_the_second_request(quick: Running) -> None:
    with quick.connect() as line:
        line.sendall(GET)
        assert answered(line).startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        line.sendall(GET[:10])
        assert read_all(line) == b""
        assert time.monotonic() - started > HEAD * 0.9


def test_short_answers_wait_for_no_acknowledgement() -> None:
    """Nagle's algorithm would hold the body back until the client's kernel has acknowledged the head, after 40 ms."""

    async def accepted() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def look(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        (listening,) = listen("127.0.0.1", 0)
        async with await asyncio.start_server(look, sock=listening):
            with socket.create_connection(listening.getsockname()):
                return await found

    assert asyncio.run(accepted())


def test_a_quick_client_keeps_its_connection_longer_than_a_head_may_take(quick: Running) -> None:
    with quick.connect() as line:
        for _ in range(3):
            line.sendall(GET)
            assert answered(line).startswith(b"HTTP/1.1 200")
            line.settimeout(HEAD * 1.5)
            with pytest.raises(TimeoutError):
                line.recv(1)
            line.settimeout(HANG)


def test_slow_body(quick: Running) -> None:
    with quick.connect() as line:
        line.sendall(POST + b"Content-Length: 100\r\n\r\n{")
        answer = read_all(line)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"after 0.4 seconds" in answer


def test_dripping_body(quick: Running) -> None:
    with quick.connect() as line:
        line.settimeout(0.05)
        line.sendall(POST + b"Content-Length: 1000000\r\n\r\n")
        end, answer = time.monotonic() + HANG, b""
        while not answer and time.monotonic() < end:
            line.sendall(b" ")
            try:
                answer = line.recv(4096)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408")


def test_an_upgrade_is_not_made(quick: Running) -> None:
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n"
    assert quick.raw(head).startswith(b"HTTP/1.1 200")


def test_a_body_that_says_it_is_too_long(quick: Running) -> None:
    answer = quick.post("/tokenize", {"content": "x" * (1 << 20)})
    assert answer.status == 413
    assert answer.error["code"] == "body_too_large"
    assert "longer than 1 MiB" in answer.error["message"]


def test_a_body_in_chunks_that_never_ends(quick: Running) -> None:
    """No more than the limit is held, and the connection does not stay open for the rest."""
    with quick.connect() as line:
        line.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        end, ended = time.monotonic() + HANG, False
        while not ended:
            assert time.monotonic() < end
            try:
                line.sendall(b"10000\r\n" + CHUNK + b"\r\n")
            except ConnectionError:
                ended = True
    assert quick.logged("POST /tokenize 413")


def test_a_body_in_chunks_within_the_limit_is_read(quick: Running) -> None:
    body = json.dumps({"content": "x" * 200_000}).encode()
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:100_000], body[100_000:]))
    answer = quick.raw(POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert len(json.loads(answer.split(b"\r\n\r\n")[1])["tokens"]) == 200_000


def test_a_client_that_reads_nothing_is_dropped(quick: Running, flood: Flood) -> None:
    before = flood.ended
    with quick.connect() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.sendall(b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert quick.logged("GET /flood 499")
        assert flood.ended == before + 1


def test_more_connections_than_are_allowed(quick: Running) -> None:
    lines = [quick.connect() for _ in range(60)]
    try:
        assert read_all(lines[-1]) == b""
    finally:
        for line in lines:
            line.close()


def test_head_has_no_body(quick: Running) -> None:
    answer = quick.raw(b"HEAD /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405")
    assert body == b""
