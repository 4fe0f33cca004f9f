"""An MCP server as a child process: messages over its pipes, one a line, and its end, whatever it does.

In place of the SDK's `stdio_client`, which reads a long line in a time that grows with the square of its length (mcp
2.3, 50 MB: 18 s, measured; here 0.5 s), and puts what the server says on standard error on our screen.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TextIO

import anyio
import mcp_types
from anyio.abc import Process
from mcp.client.stdio import get_default_environment
from mcp.os.posix.utilities import terminate_posix_process_tree
from mcp.os.win32.utilities import (
    close_process_job,
    create_windows_process,
    get_windows_executable_command,
    terminate_windows_process_tree,
)
from mcp.shared.message import SessionMessage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp.client._transport import TransportStreams
    from mcp.os.win32.utilities import ServerProcess

    from hermes_cli.chat.tools.config import McpCommand

MOST_BYTES = 256 * 2**20  # of one message; more ends the connection
# Seconds. The MCP specification, "Lifecycle", section "Shutdown": close its input, wait, then SIGTERM, then SIGKILL.
LEAVES_WITHIN, ENDS_WITHIN = 2.0, 1.0
_POLL = 0.01


class McpProcess:
    """The process of a server.

    Attributes:
        said: the last lines that it wrote to standard error.
    """

    def __init__(self, command: McpCommand) -> None:
        self.said: deque[str] = deque(maxlen=20)
        self._command = command
        self._process: ServerProcess | None = None
        self._listener: threading.Thread | None = None
        self._fault: str | None = None

    @property
    def ended(self) -> str | None:
        """How it ended, or why it has to, in words; None if neither."""
        if self._fault:
            return self._fault
        code = self._process.returncode if self._process else None
        if code is None:
            return None
        with suppress(ValueError):
            return f"it was killed ({signal.Signals(-code).name})" if code < 0 else f"it ended with exit code {code}"
        return f"it ended with {code}"

    def kill(self) -> None:
        """End it and its children now, from any thread."""
        if self._process is None or self._process.returncode is not None:
            return
        with suppress(OSError):
            if sys.platform == "win32":
                self._process.kill()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)

    @asynccontextmanager
    async def messages(self) -> AsyncGenerator[TransportStreams, None]:
        """Start it, and exchange messages with it; it has ended when this ends.

        Raises:
            OSError: it cannot be started.
        """
        self._process = process = await self._start()
        # No waiting until it is certain that the process is looked after.
        incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read, process, incoming)
            tasks.start_soon(_write, process, outgoing, incoming)
            try:
                yield read, write
            finally:
                with anyio.CancelScope(shield=True):
                    await _stop(process)
                    for stream in (read, write, incoming, outgoing):
                        stream.close()
                    if self._listener:
                        self._listener.join(_POLL)  # for its last words; its own children may keep the pipe open
                tasks.cancel_scope.cancel()

    async def _read(self, process: ServerProcess, incoming: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        """Hand on what comes; what is no message is handed on as the error that it is."""
        assert process.stdout  # noqa: S101 - for types: it is a pipe
        pieces: list[bytes] = []
        size = 0
        with suppress(anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, OSError), incoming:
            while size <= MOST_BYTES:
                piece = await process.stdout.receive(2**20)
                first, *lines = piece.split(b"\n")
                pieces.append(first)
                size += len(first)
                for line in lines:
                    whole, pieces, size = b"".join(pieces), [line], len(line)
                    await incoming.send(_message(whole))
            self._fault = f"it sent a message of more than {MOST_BYTES:,} bytes"

    async def _start(self) -> ServerProcess:
        reading, writing = os.pipe()
        try:
            with open(writing, "w", encoding="utf-8") as errors:  # noqa: PTH123, ASYNC230 - a pipe, not a path
                process = await _spawn(self._command, errors)
        except BaseException:
            os.close(reading)
            raise
        self._listener = threading.Thread(target=self._listen, args=(reading,), name="mcp stderr", daemon=True)
        self._listener.start()
        return process

    def _listen(self, reading: int) -> None:
        with open(reading, "rb") as errors:
            while line := errors.readline(1000):
                if text := line.decode("utf-8", "replace").strip():
                    self.said.append(text)


async def _spawn(command: McpCommand, errors: TextIO) -> ServerProcess:
    program, *arguments = command.words
    environment = get_default_environment() | dict(command.env)
    if sys.platform == "win32":
        found = get_windows_executable_command(program)
        return await create_windows_process(found, arguments, environment, errors)
    else:  # noqa: RET505 - mypy tells platforms apart by this
        # A session of its own: Ctrl-C on our terminal is not for it, and its children end with it.
        return await anyio.open_process([program, *arguments], env=environment, stderr=errors, start_new_session=True)


async def _write(
    process: ServerProcess,
    outgoing: MemoryObjectReceiveStream[SessionMessage],
    incoming: MemoryObjectSendStream[SessionMessage | Exception],
) -> None:
    assert process.stdin  # noqa: S101 - for types: it is a pipe
    with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
        async for one in outgoing:
            text = one.message.model_dump_json(by_alias=True, exclude_unset=True)
            await process.stdin.send(text.encode() + b"\n")
    incoming.close()  # nobody waits for an answer to what could not be sent


def _message(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        return error


async def _stop(process: ServerProcess) -> None:
    """End it: politely, and if need be by force; and whatever it started."""
    assert process.stdin  # noqa: S101 - for types: they are pipes
    assert process.stdout  # noqa: S101
    await _closed(process.stdin)
    await _ended(process, LEAVES_WITHIN)
    if sys.platform == "win32":
        if process.returncode is None:
            await terminate_windows_process_tree(process)
        close_process_job(process)
    elif isinstance(process, Process):
        await terminate_posix_process_tree(process, ENDS_WITHIN)
    await _ended(process, ENDS_WITHIN)
    await _closed(process.stdout)
    # asyncio's transport stays open as long as any heir of the process holds a pipe, and nothing public closes it.
    transport = getattr(getattr(process, "_process", None), "_transport", None)
    if transport is not None:
        with suppress(PermissionError):
            transport.close()


async def _ended(process: ServerProcess, seconds: float) -> None:
    """Not by `wait`, which waits for its pipes, too, and its children may hold those."""
    with anyio.move_on_after(seconds):
        while process.returncode is None:  # noqa: ASYNC110 - nothing tells
            await anyio.sleep(_POLL)


async def _closed(stream: anyio.abc.AsyncResource) -> None:
    with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        await stream.aclose()
