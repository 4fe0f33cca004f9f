"""Events over a socket, however their bytes are cut and whatever comes instead of HTTP."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

import pytest
from conftest import HANG

from hermes_cli.engine.upstream.event_stream import MOST_UNREAD, BrokenStreamError, StreamConnection

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = b"7;x=y\r\ndata: \xc3\r\n14\r\n\xa9\n\n: ping\n\ndata: b\n\n\r\n0\r\n\r\n"


async def events(answer: bytes, cut: int) -> list[bytes]:
    """What a client reads of an answer that comes in two parts."""

    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        with suppress(ConnectionError):  # the client has seen enough
            for part in (answer[:cut], answer[cut:]):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.001)
        writer.close()
        served.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = await StreamConnection.open(f"http://127.0.0.1:{port}", "", connect=HANG, silence=HANG)
    try:
        response = await connection.post("/x", {"Host": "x"}, b"{}")
        assert response.status == 200
        found = []
        async with aclosing(response.events(1 << 16)) as batches:
            async for batch in batches:
                found += batch
        return found
    finally:
        connection.close()
        await served.wait()
        server.close()


@pytest.mark.parametrize("cut", range(len(CHUNKED), len(CHUNKED + BODY)))
def test_chunks_may_be_cut_anywhere(cut: int) -> None:
    assert asyncio.run(events(CHUNKED + BODY, cut)) == ["é".encode(), b"b"]


def test_a_body_without_chunks_ends_with_the_connection() -> None:
    assert asyncio.run(events(HEAD + b"\r\ndata: a\n\ndata: b\n\n", 90)) == [b"a", b"b"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "closed"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\n", "no HTTP"),
        (CHUNKED + b"zz\r\n", "no HTTP"),
        (CHUNKED + BODY[:-3], "closed"),
        (CHUNKED + b"20000\r\n" + b"d" * 0x20000 + b"\r\n", "too long"),
    ],
)
def test_what_is_no_stream_is_said(answer: bytes, said: str) -> None:
    with pytest.raises(BrokenStreamError, match=said):
        asyncio.run(events(answer, len(answer) // 2))


def test_a_server_waits_until_what_it_sent_is_read() -> None:
    async def run() -> None:
        size = 64 << 20  # more than all buffers on the way
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"{}")
            writer.write(HEAD + f"Content-Length: {size}\r\n\r\n".encode() + bytes(size))
            await writer.drain()
            writer.close()
            sent.set_result(None)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connection = await StreamConnection.open(f"http://127.0.0.1:{port}", "", connect=HANG, silence=HANG)
        try:
            response = await connection.post("/x", {"Host": "x"}, b"{}")
            read, largest = 0, 0
            async with aclosing(response.parts()) as parts:
                async for part in parts:
                    read, largest = read + len(part), max(largest, len(part))
                    for _ in range(100):
                        await asyncio.sleep(0)  # more could come now
            assert read == size
            assert largest < 2 * MOST_UNREAD
            await sent
        finally:
            connection.close()
            server.close()

    asyncio.run(run())
