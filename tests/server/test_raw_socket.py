"""What can be sent to a socket, against a real process: after each of it the server is well and answers a chat."""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import psutil
import pytest
from conftest import HANG, eventually
from server_rig import Process, Running, hermes_serve, log_of, read_all

HEAD, BODY, WRITE = 0.5, 0.6, 0.7  # seconds
CONFIG = f"header_timeout: {HEAD}\nbody_timeout: {BODY}\nwrite_timeout: {WRITE}\nmax_connections: 200\n"
HUGE = 100 * 2**20  # bytes
MOST_KEPT = 80 * 2**20  # bytes that the process may grow by: one body of the largest allowed, 32 MiB, and what reads it
LONGEST_LINE = 400  # letters of the log, however long what was sent is
CHUNK = b"x" * 2**16
CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
LONG = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 900, "ignore_eos": True}
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def post(body: bytes, *headers: str, length: object = None, path: str = "/v1/chat/completions") -> bytes:
    """A request, with a length that need not be right."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    lines += [f"Content-Length: {len(body) if length is None else length}"] if length != "" else []
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def asked(body: object) -> bytes:
    return post(json.dumps(body).encode())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("raw")
    config = folder / "short.yaml"
    config.write_text(CONFIG)
    with hermes_serve("demo", "--config", str(config), cwd=folder) as process:
        with log_of(process) as log:
            yield process
        said = log.result()
    assert "Traceback" not in said
    assert " 500," not in said
    assert max(map(len, said.splitlines())) < LONGEST_LINE


@pytest.fixture(autouse=True)
def _well_after_each(server: Running) -> Iterator[None]:
    yield
    assert server.healthy()
    answer = server.post("/v1/chat/completions", CHAT)
    assert answer.status == 200
    assert answer.json["choices"][0]["message"]["content"]


def sent(server: Running, data: bytes) -> list[int]:
    """The statuses that come back, up to the end of the connection."""
    with server.connect() as line:
        with suppress(ConnectionError):
            line.sendall(data)
        answers = read_all(line)
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


@contextmanager
def connections(server: Running, number: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(server.connect()) for _ in range(number)]


# Broken HTTP

JUNK = {
    "zeros": b"\x00" * 100,
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "short": b"GET\r\n\r\n",
    "blank": b"\r\n\r\n\r\n\r\nGET",
    "no-colon": b"GET / HTTP/1.1\r\nHost: localhost\r\nx\r\n\r\n",
    "utf-8": "GET /\u00e9 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
    "nul": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
    "nul-name": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX\x00: a\r\n\r\n",
    "line-ends": b"GET /health HTTP/1.1\rHost: localhost\r\r",
    "letters": b"A" * 200_000,
    "long-path": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "long-method": b"G" * 300_000 + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 30_000 + b"\r\n",
    "long-header": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
    "long-name": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"y" * 200_000 + b": x\r\n\r\n",
    "folded": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n" + b" b\r\n" * 100_000 + b"\r\n",
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_broken_http_and_giant_heads(server: Running, junk: bytes) -> None:
    assert sent(server, junk) in ([400], [])


def test_many_small_headers_are_no_fault(server: Running) -> None:
    assert sent(server, LAST[:-2] + b"X: y\r\n" * 1000 + b"\r\n") == [200]


def test_a_head_that_comes_at_once_has_the_same_limit(server: Running) -> None:
    assert sent(server, LAST[:-2] + b"X: " + b"y" * 70_000 + b"\r\n\r\n") in ([431], [400], [])


def test_chunks_of_one_byte(server: Running) -> None:
    body = json.dumps(CHAT).encode()
    few = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    kind = "Transfer-Encoding: chunked"
    assert sent(server, post(few + b"0\r\n\r\n", kind, "Connection: close", length="")) == [200]
    assert sent(server, post(b"1\r\n \r\n" * 3000 + few + b"0\r\n\r\n", kind, length="")) in ([400], [])


def test_what_has_no_limit_of_its_own_is_not_logged_whole(server: Running) -> None:
    """The log of this server has no long lines in the end."""
    for data in (LAST.replace(b"GET", b"G" * 60_000), LAST.replace(b"/health", b"/" + b"a" * 60_000)):
        assert sent(server, data) in ([404], [405])


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (post(b"{}", length=-1), [400]),
        (post(b"{}\r\n\r\n", length=""), [400, 400]),  # none at all is an empty body, and the rest another request
        (post(b"{}", length="1e1"), [400]),
        (post(b"{}", length="2 2"), [400]),
        (post(b"{}", length="2, 3"), [400]),
        (post(b"{}", length="\u0662"), [400]),
        (post(b"{}", "Connection: close", length=10**19), [413]),
        (post(b"{}", length=10**30), [400]),
        (post(b"{}", length=100), [408]),
        (post(b"{}" + LAST, length=2), [400, 200]),
        (post(b"{}{}\r\n\r\n", length=2), [400, 400]),
        (post(b"zz\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=""), [400]),
        (post(b"-2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=""), [400]),
        (post(b"2\r\n{}{}{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=""), [400]),
        (post(b"f" * 30 + b"\r\n{}", "Transfer-Encoding: chunked", length=""), [400]),
        (post(b"2;" + b"x" * 200_000 + b"\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=""), [400]),
        (post(b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 30_000, "Transfer-Encoding: chunked", length=""), [400]),
    ],
)
def test_wrong_lengths(server: Running, data: bytes, statuses: list[int]) -> None:
    found = sent(server, data)
    assert found == statuses or (found == [] and statuses == [400]), found


# Requests that are not finished, or not soon


@pytest.mark.parametrize(
    "half",
    [
        b"",
        b"G",
        GET[:-2],
        post(b"{", length=100),
        post(b"5\r\n12", "Transfer-Encoding: chunked", length=""),
        GET + b"GET",
        asked(CHAT)[:-1],
    ],
)
@pytest.mark.parametrize("rudely", [False, True])
def test_half_a_request_then_nobody(server: Running, half: bytes, *, rudely: bool) -> None:
    with server.connect() as line:
        line.sendall(half)
        if rudely:
            reset_on_close(line)
    assert server.healthy()


@pytest.mark.parametrize("start", [GET[:4], post(b"", length=10**6)], ids=["heads", "bodies"])
def test_slowloris(server: Running, start: bytes) -> None:
    """Many connections, a byte now and then from each: others are served meanwhile, and all of them are ended."""
    with connections(server, 100) as lines:
        end = time.monotonic() + HANG
        for line in lines:
            line.sendall(start)
        slow = {line.fileno(): line for line in lines}
        while slow:
            assert server.healthy()
            for line in slow.values():
                with suppress(ConnectionError):
                    line.sendall(b" ")
            ended, _, _ = select.select(slow.values(), [], [], 0.05)
            for line in ended:
                assert last_words(line)[:12] in {b"", b"HTTP/1.1 408"}
                del slow[line.fileno()]
            assert time.monotonic() < end


def last_words(line: socket.socket) -> bytes:
    """What has come, of a connection that has something or has ended."""
    try:
        return line.recv(65_536)
    except ConnectionError:
        return b""


# A body of 100 MB


@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_hundred_megabytes(server: Process, *, in_chunks: bool) -> None:
    """The limit is 32 MiB: no more is kept, and not all of it is even taken off the line."""
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    kind = "Transfer-Encoding: chunked"
    head = post(b"", kind, length="") if in_chunks else post(b"", length=HUGE)
    piece = b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK) if in_chunks else CHUNK
    highest, answer = before, b""
    with server.connect() as line:
        line.sendall(head)
        with suppress(ConnectionError):
            for _ in range(HUGE // len(CHUNK)):
                line.sendall(piece)
                highest = max(highest, process.memory_info().rss)
        with suppress(ConnectionError):
            answer = line.recv(65_536)
    # A reset may overtake the answer, and the time for a body be over before the limit is reached.
    assert answer[:12] in {b"", b"HTTP/1.1 413", b"HTTP/1.1 408"}
    assert highest - before < MOST_KEPT


def test_a_hundred_megabytes_are_refused_before_they_are_sent(server: Running) -> None:
    with server.connect() as line:
        line.sendall(post(b"", "Expect: 100-continue", length=HUGE))
        assert line.recv(4096).startswith(b"HTTP/1.1 413")


# Bodies that are not JSON, or odd JSON


def chat(content: str) -> bytes:
    """A chat with this JSON in the place of its content."""
    return b'{"max_tokens": 2, "messages": [{"role": "user", "content": %b}]}' % content.encode()


ODD: dict[str, tuple[bytes, set[int]]] = {
    "empty": (b"", {400}),
    "half": (b"{", {400}),
    "null": (b"null", {400}),
    "list": (b"[]", {400}),
    "text": (b'"x"', {400}),
    "bytes": (b"\xff\xfe", {400}),
    "utf-16": (json.dumps(CHAT).encode("utf-16"), {200, 400}),
    "bom": (b"\xef\xbb\xbf" + json.dumps(CHAT).encode(), {200, 400}),
    "not-utf-8": (b'{"messages": [{"role": "user", "content": "\xff"}]}', {400}),
    "overlong-utf-8": (b'{"messages": [{"role": "user", "content": "\xc0\xaf"}]}', {400}),
    "nul": (b"\x00" + json.dumps(CHAT).encode(), {400}),
    "nul-in-text": (chat('"a\x00b"'), {400}),
    "nul-escaped": (chat(r'"a\u0000b"'), {200}),
    "half-character": (chat(r'"\ud800"'), {200, 400}),
    "lists": (b"[" * 100_000, {400}),
    "objects": (b'{"a":' * 50_000, {400}),
    "closed-lists": (chat("[" * 50_000 + "]" * 50_000), {400}),
    "nested-within-limits": (chat("[" * 900 + "]" * 900), {400}),
    "nested-schema": (
        b'{"max_tokens": 2, "messages": [{"role": "user", "content": "Hi"}], "json_schema": %b}'
        % (b'{"items":' * 900 + b"{}" + b"}" * 900),
        {400},
    ),
    "nested-extra": (chat('"Hi"')[:-1] + b', "more": ' + b"[" * 900 + b"]" * 900 + b"}", {200, 400}),
    "giant-number": (chat("9" * 100_000), {400}),
    "giant-seed": (chat('"Hi"')[:-1] + b', "seed": ' + b"9" * 4000 + b"}", {200, 400}),
    "giant-keep-alive": (chat('"Hi"')[:-1] + b', "keep_alive": ' + b"9" * 4000 + b"}", {200, 400}),
    "giant-temperature": (chat('"Hi"')[:-1] + b', "temperature": ' + b"9" * 4000 + b"}", {400}),
    "infinite": (chat('"Hi"')[:-1] + b', "temperature": 1e400}', {400}),
    "minus-infinite": (chat('"Hi"')[:-1] + b', "top_p": -1e400}', {400}),
    "nan": (chat('"Hi"')[:-1] + b', "temperature": NaN}', {400}),
    "infinity": (chat('"Hi"')[:-1] + b', "max_tokens": Infinity}', {400}),
    "nan-bias": (chat('"Hi"')[:-1] + b', "logit_bias": {"1": NaN}}', {400}),
    "tiny": (chat('"Hi"')[:-1] + b', "temperature": 1e-400}', {200}),
    "same-key-twice": (chat('"Hi"')[:-1] + b', "max_tokens": 1, "max_tokens": 2}', {200}),
    "same-key-often": (b'{"messages": 1, ' * 1 + b'"x": 1, ' * 100_000 + chat('"Hi"')[1:], {200}),
    "many-keys": (b"{" + b"".join(b'"k%d": 0, ' % n for n in range(100_000)) + chat('"Hi"')[1:], {200}),
}


@pytest.mark.parametrize(("body", "statuses"), ODD.values(), ids=ODD)
def test_odd_json(server: Running, body: bytes, statuses: set[int]) -> None:
    answer = server.ask("POST", "/v1/chat/completions", body)
    assert answer.status in statuses, answer.body[:500]
    assert answer.json


def test_the_last_of_two_keys_counts_everywhere(server: Running) -> None:
    """What a proxy in front has checked must not be another value than what is used; nearly all take the last one."""
    for path, body in (("/tokenize", b'{"content": "a b c", "content": "a"}'), ("/tokenize", b'{"content": "a"}')):
        assert len(server.ask("POST", path, body).json["tokens"]) == 1


# Pipelines


def test_pipelined_chats_are_answered_in_order(server: Running) -> None:
    lengths = [3, 1, 2]
    data = b"".join(asked({**LONG, "max_tokens": length}) for length in lengths) + LAST
    with server.connect() as line:
        line.sendall(data)
        answers = read_all(line).split(b"HTTP/1.1 200 OK\r\n")[1:]
    bodies = [json.loads(answer.partition(b"\r\n\r\n")[2]) for answer in answers]
    assert [body["usage"]["completion_tokens"] for body in bodies[:-1]] == lengths
    assert bodies[-1] == {"status": "ok"}


def test_a_pipeline_that_breaks(server: Running) -> None:
    assert sent(server, GET * 50 + b"\x00\r\n\r\n" + GET) == [200] * 50 + [400]


# Clients that do not read, or leave


def test_clients_that_never_read(server: Process) -> None:
    """Answers of 100 kB, far more of them than any buffer takes: the connections are ended, and nobody waits for them."""
    with connections(server, 5) as lines:
        for line in lines:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
        for line in lines:
            assert line.recv(1) == b"H"  # and nothing more
        eventually(lambda: server.healthy() and not open_connections(server))


def open_connections(server: Process) -> int:
    """Of clients, as the server has them."""
    found = psutil.Process(server.process.pid).net_connections("tcp")
    return sum(one.laddr.port == server.port and one.status == psutil.CONN_ESTABLISHED for one in found)


def test_many_leave_at_once(server: Running) -> None:
    with connections(server, 60) as lines:
        for at, line in enumerate(lines):
            line.sendall(asked({**LONG, "stream": True}))
            if at % 2:
                reset_on_close(line)


def reset_on_close(line: socket.socket) -> None:
    """Have the connection end by RST, as when a machine is switched off behind a firewall."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
