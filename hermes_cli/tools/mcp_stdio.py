"""An MCP server as a child process: messages over its pipes, one per line, and ending it whatever it does.

In place of the SDK's `stdio_client`, which reads a long line in a time that grows with the square of its length (mcp
2.3, 50 MB: 18 s, measured; here 0.5 s), and puts what the server says on standard error on our screen.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio
import mcp_types
from anyio.abc import Process
from mcp.client.stdio import get_default_environment
from mcp.os.posix.utilities import terminate_posix_process_tree
from mcp.os.win32.utilities import (
    ServerProcess,
    close_process_job,
    create_windows_process,
    get_windows_executable_command,
    terminate_windows_process_tree,
)
from mcp.shared.message import SessionMessage

from hermes_cli import large_json
from hermes_cli.large_json import TooManyValuesError
from hermes_cli.process_guard import EXIT_TIMEOUT, TERMINATE_TIMEOUT, ProcessGuard
from hermes_cli.threads import LARGE

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp.client._transport import TransportStreams

    from hermes_cli.tools.config import McpCommand

MAX_MESSAGE = 64 * 2**20  # bytes; more ends the connection
MAX_PARTS = 10_000  # tools of a page, or parts of a result
KILLED_TIMEOUT = 30.0  # seconds; a busy machine may be slow to tell the end of a process that was killed
_POLL = 0.01


class McpProcess:
    """The process of a server, and the last lines of its standard error."""

    def __init__(self, command: McpCommand, guard: ProcessGuard) -> None:
        """Prepare the start of the command; the guard is told of its process."""
        self.stderr_lines: deque[str] = deque(maxlen=20)
        self._command, self._guard = command, guard
        self._process: ServerProcess | None = None
        self._stderr_reader: threading.Thread | None = None
        self._fault: str | None = None

    @property
    def exit_reason(self) -> str | None:
        """Reason for which the process ended or has to end; None if neither."""
        if self._fault:
            return self._fault
        code = self._process.returncode if self._process else None
        if code is None:
            return None
        with suppress(ValueError):
            return f"it was killed ({signal.Signals(-code).name})" if code < 0 else f"it ended with exit code {code}"
        return f"it ended with {code}"

    def kill(self) -> None:
        """Kill the process and its children, from any thread."""
        if self._process is None or self._process.returncode is not None:
            return
        with suppress(OSError):
            if sys.platform == "win32":
                self._process.kill()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)

    @asynccontextmanager
    async def transport(self) -> AsyncGenerator[TransportStreams, None]:
        """Start the process, and exchange messages with it; it has ended when this ends. It may raise OSError."""
        with anyio.CancelScope(shield=True):  # a start that is cancelled leaves a process that nobody waits for
            self._process = process = await self._start()
        # No await from here until the `try` that ends the process.
        self._guard.tell(process.pid)
        incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        # Sending never waits: the SDK gives the notice that a call is cancelled 5 s, then drops it. So a server that
        # is slow to read is told, too.
        write, outgoing = anyio.create_memory_object_stream[SessionMessage](math.inf)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read, process, incoming)
            tasks.start_soon(_write, process, outgoing, incoming)
            try:
                yield read, write
            finally:
                with anyio.CancelScope(shield=True):
                    await _stop(process)
                    self._guard.tell(process.pid)
                    for stream in (read, write, incoming, outgoing):
                        stream.close()
                    if self._stderr_reader:
                        self._stderr_reader.join(_POLL)  # for its last words; its own children may keep the pipe open
                tasks.cancel_scope.cancel()

    async def _start(self) -> ServerProcess:
        program, *arguments = self._command.words
        environment = get_default_environment() | dict(self._command.env)
        read_end, write_end = os.pipe()
        try:
            with open(write_end, "w", encoding="utf-8") as errors:  # noqa: PTH123, ASYNC230 - a pipe, not a path
                if sys.platform == "win32":
                    executable = get_windows_executable_command(program)
                    process = await create_windows_process(executable, arguments, environment, errors)
                else:
                    # A session of its own: Ctrl-C on our terminal is not for it, and its children end with it.
                    process = await anyio.open_process(
                        [program, *arguments], env=environment, stderr=errors, start_new_session=True
                    )
        except BaseException:
            os.close(read_end)
            raise
        self._stderr_reader = threading.Thread(
            target=self._read_stderr, args=(read_end,), name="mcp stderr", daemon=True
        )
        self._stderr_reader.start()
        return process

    async def _read(self, process: ServerProcess, incoming: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        """Send messages on; what is not a message is sent on as an error."""
        assert process.stdout  # noqa: S101 - for types: it is a pipe
        pieces: list[bytes] = []
        size = 0
        with suppress(anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, OSError), incoming:
            while size <= MAX_MESSAGE:
                piece = await process.stdout.receive(2**20)
                first, *lines = piece.split(b"\n")
                pieces.append(first)
                size += len(first)
                for line in lines:
                    whole, pieces, size = b"".join(pieces), [line], len(line)
                    try:
                        await incoming.send(SessionMessage(_message(whole)))
                    except TooManyValuesError:
                        self._fault = "it sent a message of too many values"
                        return
                    except (ValueError, RecursionError) as error:
                        await incoming.send(ValueError("deeply nested") if isinstance(error, RecursionError) else error)
            self._fault = f"it sent a message of more than {MAX_MESSAGE:,} bytes"

    def _read_stderr(self, read_end: int) -> None:
        with open(read_end, "rb") as errors:
            while line := errors.readline(1000):
                if text := line.decode("utf-8", "replace").strip():
                    self.stderr_lines.append(text)


def _message(line: bytes) -> mcp_types.JSONRPCMessage:
    """Return the message of a line.

    A long one is read in pieces: nothing else in this process waits for it, which may be a server with other clients.

    Raises:
        TooManyValuesError: it has more values than a list of tools or a result needs.
        ValueError, RecursionError: it is no message.
    """
    if len(line) < LARGE:
        return mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False)
    value = large_json.read(line)
    result = value.get("result") if isinstance(value, dict) else None
    if isinstance(result, dict) and any(isinstance(part, list) and len(part) > MAX_PARTS for part in result.values()):
        raise TooManyValuesError
    return mcp_types.jsonrpc_message_adapter.validate_python(value, by_name=False)


async def _write(
    process: ServerProcess,
    outgoing: MemoryObjectReceiveStream[SessionMessage],
    incoming: MemoryObjectSendStream[SessionMessage | Exception],
) -> None:
    assert process.stdin  # noqa: S101 - for types: it is a pipe
    with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
        async for message in outgoing:
            text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            await process.stdin.send(text.encode() + b"\n")
    incoming.close()  # nobody waits for an answer to what could not be sent


async def _stop(process: ServerProcess) -> None:
    """End the process, if need be by force, and the processes that it started."""
    assert process.stdin  # noqa: S101 - for types: they are pipes
    assert process.stdout  # noqa: S101
    await _close(process.stdin)
    await _wait_for_exit(process, EXIT_TIMEOUT)
    if sys.platform == "win32":
        if process.returncode is None:
            await terminate_windows_process_tree(process)
        close_process_job(process)
    elif isinstance(process, Process):
        await terminate_posix_process_tree(process, TERMINATE_TIMEOUT)
    await _wait_for_exit(process, KILLED_TIMEOUT)
    await _close(process.stdout)
    # asyncio's transport stays open as long as any heir of the process holds a pipe, and nothing public closes it.
    transport = getattr(getattr(process, "_process", None), "_transport", None)
    if transport is not None:
        with suppress(PermissionError):
            transport.close()


async def _wait_for_exit(process: ServerProcess, seconds: float) -> None:
    """Wait for the exit code. `process.wait` waits for its pipes, too, and its children may hold those."""
    with anyio.move_on_after(seconds):
        while process.returncode is None:  # noqa: ASYNC110 - nothing tells
            await anyio.sleep(_POLL)


async def _close(stream: anyio.abc.AsyncResource) -> None:
    with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        await stream.aclose()
