"""All MCP servers of a chat. They live in an event loop in a thread of its own; this is the way from one to the other.

servers = McpServers()
servers.begin(chosen)      they start, all at once, and nobody waits
servers.ready()            they have started
servers.tools()
"""

from __future__ import annotations

import math
from concurrent.futures import Future, wait
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, NamedTuple

from hermes_cli.chat.tools.config import with_free_name
from hermes_cli.chat.tools.functions import Tool, ToolFailedError, wait_for
from hermes_cli.errors import HermesError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import mcp_types
    from anyio.from_thread import BlockingPortal

    from hermes_cli.chat.tools.config import McpServer
    from hermes_cli.chat.tools.mcp_connection import McpConnection

START_TIMEOUT = 30.0  # seconds, until the tools are known
LIST_TIMEOUT = 5.0  # seconds, when the tools changed
END_TIMEOUT = 8.0  # seconds; mcp_stdio.py takes less


class McpStatus(NamedTuple):
    """A row of /mcp: a server, whether it is connected, and the number of its tools."""

    name: str
    state: str
    tools: str


class McpServers:
    """MCP servers. None of them, and no process that they started, is left after `close`."""

    def __init__(self, *, start_timeout: float = START_TIMEOUT) -> None:
        self._start_timeout = start_timeout
        self._connections: list[McpConnection] = []
        self._starting: list[tuple[McpConnection, Future[None]]] = []
        self._tasks: list[Future[None]] = []
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None

    def begin(self, servers: Sequence[McpServer]) -> None:
        """Start servers, except those that run already."""
        if not servers:
            return
        from hermes_cli.chat.tools.mcp_connection import McpConnection  # noqa: PLC0415 - 0.5 s, only with servers

        for server in servers:
            same = (other for other in self._connections if replace(other.server, name=server.name) == server)
            connection = next(same, None)
            if connection is None:
                taken = [other.server.name for other in self._connections]
                connection = McpConnection(with_free_name(server, taken), self._start_timeout)
                self._connections.append(connection)
            elif connection.is_up or any(connection is other for other, _ in self._starting):
                continue
            self._starting.append((connection, self._start(connection)))

    def ready(self) -> None:
        """Wait until all servers have started.

        Raises:
            HermesError: a server did not start; the message has its last output. It is removed.
        """
        while self._starting:
            connection, started = self._starting[0]
            try:
                wait_for(started, math.inf)  # it has a timeout of its own
            except BaseException:  # Ctrl-C, too
                self._connections.remove(connection)
                self._running_portal.start_task_soon(connection.end)
                raise
            finally:
                self._starting.pop(0)

    def close(self) -> None:
        """End all servers."""
        if self._portal is None:
            return
        try:
            for connection in self._connections:
                self._portal.start_task_soon(connection.end)
            wait(self._tasks, END_TIMEOUT)
        finally:  # after another Ctrl-C, too
            for connection in self._connections:
                connection.kill()
            for task in self._tasks:
                task.cancel()
            self._portal = None
            self._stack.close()

    @property
    def statuses(self) -> list[McpStatus]:
        """Rows in the order in which the servers were added."""
        return [
            McpStatus(
                connection.server.name,
                f"{'connected' if connection.is_up else 'gone'}: {connection.server}",
                str(len(connection.tools)),
            )
            for connection in self._connections
        ]

    @property
    def changed(self) -> bool:
        """Whether a server has announced another list of tools."""
        return any(connection.changed for connection in self._connections)

    def tools(self) -> list[Tool]:
        """Return all tools under their own names, which may repeat. Lists that changed are read again.

        Raises:
            HermesError: a server does not list its tools; next time it counts as unchanged.
            TimeoutError: a server takes too long.
        """
        for connection in self._connections:
            if connection.changed:
                wait_for(self._running_portal.start_task_soon(connection.list_again), LIST_TIMEOUT)
        return [self._tool(connection, tool) for connection in self._connections for tool in connection.tools]

    @property
    def _running_portal(self) -> BlockingPortal:
        """Portal into the event loop; it is started with the first server."""
        from anyio.from_thread import start_blocking_portal  # noqa: PLC0415 - as above

        if self._portal is None:
            self._portal = self._stack.enter_context(start_blocking_portal(name="mcp"))
        return self._portal

    def _start(self, connection: McpConnection) -> Future[None]:
        started: Future[None] = Future()
        started.set_running_or_notify_cancel()
        self._tasks.append(self._running_portal.start_task_soon(connection.run, started))
        return started

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
            answer = self._running_portal.start_task_soon(connection.call, name, dict(arguments))
            result: tuple[str, bool] = wait_for(answer, timeout)
        except TimeoutError:
            raise ToolFailedError(f"it did not answer within {timeout:g} s; it was told to stop") from None
        except HermesError as error:
            raise ToolFailedError(error.message) from error
        text, failed = result
        if failed:
            raise ToolFailedError(text or "it failed without a word")
        return text
