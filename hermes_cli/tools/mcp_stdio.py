"""An MCP server as a child process: messages over its pipes, one per line, and ending it whatever it does.

In place of the SDK's `stdio_client`, which reads a long line in a time that grows with the square of its length (mcp
2.3, 50 MB: 18 s, measured; here 0.5 s), and puts what the server says on standard error on our screen.
"""

from __future__ import annotations

import math
import os
import re
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
MAX_ERROR = 10_000  # characters of an error's message that are kept
MAX_NAME = 1_000  # characters of the id or the method of a message
MAX_SHOWN = 200  # characters of an answer that cannot be read
KILLED_TIMEOUT = 30.0  # seconds; a busy machine may be slow to tell the end of a process that was killed
_POLL = 0.01
_MEMBERS = ("jsonrpc", "id", "method", "params", "result", "error")  # of messages
_ID = re.compile(rb'"id"\s{0,9}:\s{0,9}"?([0-9]{1,18})')


class McpProcess:
    """The process of a server, and the last lines of its standard error."""

    def __init__(self, command: McpCommand, guard: ProcessGuard) -> None:
        """Prepare the start of the command; the guard is told of its process."""
        self.stderr_lines: deque[str] = deque(maxlen=20)
        self._command, self._guard = command, guard
        self._process: ServerProcess | None = None
        self._stderr_reader: threading.Thread | None = None
        self._fault: str | None = None
        self._waiting: set[mcp_types.RequestId] = set()  # ids of our requests that it has not answered

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
            tasks.start_soon(self._write, process, outgoing, incoming)
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
        """Send messages on; what is none and answers nothing is left out, as a line that a server prints."""
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
                        message = self._message(whole)
                    except TooManyValuesError:
                        self._fault = "it sent a message of too many values"
                        return
                    if message:
                        await incoming.send(SessionMessage(message))
            self._fault = f"it sent a message of more than {MAX_MESSAGE:,} bytes"

    def _message(self, line: bytes) -> mcp_types.JSONRPCMessage | None:
        """Return the message of a line; None if there is none, as in what a server prints.

        An answer that cannot be read is an error for the request whose id it has: nobody waits for another one.
        """
        try:
            message = _parsed(line)
        except TooManyValuesError:
            raise
        except (ValueError, RecursionError):
            if (answered := _id_in(line)) not in self._waiting:
                return None
            begin = line[:MAX_SHOWN].decode("utf-8", "replace")
            error = mcp_types.ErrorData(code=mcp_types.PARSE_ERROR, message=f"its answer cannot be read: {begin}")
            message = mcp_types.JSONRPCError(jsonrpc="2.0", id=answered, error=error)
        if isinstance(message, mcp_types.JSONRPCError) and message.id is None and len(self._waiting) == 1:
            (message.id,) = self._waiting  # the server could not read our request, which can only be this one
        if isinstance(message, mcp_types.JSONRPCResponse | mcp_types.JSONRPCError):
            self._waiting.discard(message.id)
        return message

    async def _write(
        self,
        process: ServerProcess,
        outgoing: MemoryObjectReceiveStream[SessionMessage],
        incoming: MemoryObjectSendStream[SessionMessage | Exception],
    ) -> None:
        assert process.stdin  # noqa: S101 - for types: it is a pipe
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
            async for sent in outgoing:
                message = sent.message
                if isinstance(message, mcp_types.JSONRPCRequest):
                    self._waiting.add(message.id)
                elif isinstance(message, mcp_types.JSONRPCNotification) and message.params:
                    self._waiting.discard(message.params.get("requestId"))  # it is cancelled
                text = message.model_dump_json(by_alias=True, exclude_unset=True)
                await process.stdin.send(text.encode() + b"\n")
        incoming.close()  # nobody waits for an answer to what could not be sent

    def _read_stderr(self, read_end: int) -> None:
        with open(read_end, "rb") as errors:
            while line := errors.readline(1000):
                if text := line.decode("utf-8", "replace").strip():
                    self.stderr_lines.append(text)


def _parsed(line: bytes) -> mcp_types.JSONRPCMessage:
    """Return the message of a line.

    A long one is read in pieces: nothing else in this process waits for it, which may be a server with other clients.
    Of its error only what is shown is kept.
    """
    if len(line) < LARGE:
        return mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False)
    value = large_json.read(line)
    message = {name: value[name] for name in _MEMBERS if name in value} if isinstance(value, dict) else {}
    result, error = message.get("result"), message.get("error")
    if isinstance(result, dict) and any(isinstance(part, list) and len(part) > MAX_PARTS for part in result.values()):
        raise TooManyValuesError
    if any(isinstance(name, str) and len(name) > MAX_NAME for name in (message.get("id"), message.get("method"))):
        raise ValueError("its id or its method is too long")
    if isinstance(error, dict):
        code, text = error.get("code"), error.get("message")
        text = text[:MAX_ERROR] if isinstance(text, str) else ""
        message["error"] = {"code": code if type(code) is int else 0, "message": text}
    return mcp_types.jsonrpc_message_adapter.validate_python(message, by_name=False)


def _id_in(line: bytes) -> int | None:
    """Return the id in what may be an answer that cannot be read."""
    ends = line[:MAX_NAME] + line[-MAX_NAME:]
    found = _ID.search(ends)
    return int(found[1]) if found and line.lstrip().startswith(b"{") and b'"method"' not in ends else None


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
