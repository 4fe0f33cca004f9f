"""The MCP servers of a chat. Importing this takes 0.5 s: only where there are servers.

Connections live in an event loop in a thread of its own; McpServers is the way into it. Servers may ask the user
(elicitation.py); sampling and roots are not offered to them. Their logs and progress are ignored.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from anyio.from_thread import start_blocking_portal

from hermes_cli.errors import HermesError
from hermes_cli.process_guard import ProcessGuard
from hermes_cli.tools.config import McpServer, with_free_name
from hermes_cli.tools.elicitation import Questions
from hermes_cli.tools.functions import Tool, ToolFailedError, wait_for
from hermes_cli.tools.mcp_connection import McpConnection

if TYPE_CHECKING:
    import mcp_types

T = TypeVar("T")

START_TIMEOUT = 30.0  # seconds, until the tools are known
END_TIMEOUT = 8.0  # seconds; mcp_stdio.py takes less


class McpServers:
    """MCP servers. None of them, and no process that they started, is left after `close`."""

    def __init__(
        self,
        tell: Callable[[str], None],
        ask: Callable[[str], str] | None = None,
        *,
        start_timeout: float = START_TIMEOUT,
    ) -> None:
        """Begin without servers; `tell` is called with what a user has to do, such as a login, `ask` with questions."""
        self._questions, self._start_timeout = Questions(ask, tell), start_timeout
        self._connections: list[McpConnection] = []
        self._tasks: list[Future[None]] = []
        self._stack = ExitStack()
        self._guard = ProcessGuard()
        self._stack.callback(self._guard.close)
        self._portal = self._stack.enter_context(start_blocking_portal(name="mcp"))
        self._stack.callback(self._end_all)

    def begin(self, servers: Sequence[McpServer]) -> None:
        """Start servers, except those that run already."""
        for server in servers:
            same = (other for other in self._connections if replace(other.server, name=server.name) == server)
            connection = next(same, None)
            if connection is None:
                taken = [other.server.name for other in self._connections]
                named = with_free_name(server, taken)
                connection = McpConnection(named, self._start_timeout, self._guard, self._questions)
                self._connections.append(connection)
            elif connection.is_up or connection.starting:
                continue
            connection.starting = self._start(connection)

    def ready(self) -> None:
        """Wait until all servers have started; remove one that did not, and raise HermesError with its last output."""
        for connection in list(self._connections):
            if not connection.starting:
                continue
            try:
                wait_for(connection.starting, math.inf)  # it has a timeout of its own
            except BaseException:  # Ctrl-C, too
                self._connections.remove(connection)
                self._portal.start_task_soon(connection.end)
                raise
            finally:
                connection.starting = None

    def close(self) -> None:
        """End all servers."""
        self._stack.close()

    def _end_all(self) -> None:
        try:
            for connection in self._connections:
                self._portal.start_task_soon(connection.end)
            wait(self._tasks, END_TIMEOUT)
        finally:  # after another Ctrl-C, too
            for connection in self._connections:
                connection.kill()
            for task in self._tasks:
                task.cancel()

    @property
    def statuses(self) -> list[list[str]]:
        """Rows for /mcp, in the order in which the servers were added: name, connection, number of tools."""
        states = ((each, "connected" if each.is_up else "gone") for each in self._connections)
        return [[each.server.name, f"{state}: {each.server}", str(len(each.tools))] for each, state in states]

    @property
    def changed(self) -> bool:
        """Return whether a server has announced another list of tools, or did not end a call."""
        return any(connection.changed for connection in self._connections)

    def tools(self) -> list[Tool]:
        """Return all tools under their own names, which may repeat. Lists that changed are read again.

        Raise HermesError if a server does not list its tools; next time it counts as unchanged.
        """
        for connection in self._connections:
            if connection.changed:
                self._run(math.inf, connection.list_again)  # it has a timeout of its own
        return [self._tool(connection, tool) for connection in self._connections for tool in connection.tools]

    def _start(self, connection: McpConnection) -> Future[None]:
        started: Future[None] = Future()
        started.set_running_or_notify_cancel()
        self._tasks.append(self._portal.start_task_soon(connection.run, started))
        return started

    def _run(self, timeout: float, function: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """Return the result of a coroutine in the event loop; it is cancelled if this ends earlier, as by Ctrl-C."""
        # Made before the work begins, so that a Ctrl-C at any moment has something to cancel. On a busy machine the
        # server may be at work before `start_task_soon` has returned.
        future: Future[T] = Future()
        try:
            self._portal.start_task_soon(_fill, future, function, arguments)
            return wait_for(future, timeout, self._questions.answer_all)
        finally:
            future.cancel()  # changes nothing if it is done

    def _tool(self, connection: McpConnection, tool: mcp_types.Tool) -> Tool:
        description = cleandoc(tool.description or "")  # servers in Python send docstrings as they are indented
        declared = {"name": tool.name, "description": description, "parameters": tool.input_schema}
        schema = {"type": "function", "function": declared}
        return Tool(tool.name, schema, f"mcp: {connection.server.name}", partial(self._call, connection, tool.name))

    def _call(self, connection: McpConnection, name: str, arguments: Mapping[str, Any], timeout: float) -> str:
        """Call a tool; a server that is gone is started once more."""
        try:
            if not connection.is_up:
                wait_for(self._start(connection), math.inf)
            try:
                with self._questions.open():
                    text, failed = self._run(timeout, connection.call, name, dict(arguments))
            except (TimeoutError, KeyboardInterrupt):
                connection.changed = True  # reading the list again tells whether the server still answers
                raise
        except TimeoutError:
            raise ToolFailedError(f"it did not answer within {timeout:g} s; it was told to stop") from None
        except HermesError as error:
            raise ToolFailedError(error.message) from error
        if failed:
            raise ToolFailedError(text or "it failed without a word")
        return text


async def _fill(future: Future[T], function: Callable[..., Awaitable[T]], arguments: Sequence[object]) -> None:
    """Give a future the outcome of a coroutine, which is cancelled when the future is, from any thread."""
    loop = asyncio.get_running_loop()
    with anyio.CancelScope() as scope:
        future.add_done_callback(lambda done: done.cancelled() and loop.call_soon_threadsafe(scope.cancel))
        try:
            result = await function(*arguments)
        except Exception as error:  # noqa: BLE001 - whoever waits for the future gets it
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
        else:
            if future.set_running_or_notify_cancel():
                future.set_result(result)
