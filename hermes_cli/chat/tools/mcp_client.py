"""All MCP servers of a chat. They live in an event loop in a thread of its own; this is the way from one to the other.

with Servers(chosen) as servers:      they start, all at once, and nobody waits
    servers.ready()                   they have started
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

from hermes_cli.chat.tools.config import renamed
from hermes_cli.chat.tools.functions import Tool, ToolFailedError, outcome
from hermes_cli.errors import HermesError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import mcp_types
    from anyio.from_thread import BlockingPortal

    from hermes_cli.chat.tools.config import McpServer
    from hermes_cli.chat.tools.mcp_connection import McpConnection

STARTS_WITHIN = 30.0  # seconds, until its tools are known
LISTS_WITHIN = 5.0  # seconds, when its tools changed
ENDS_WITHIN = 8.0  # seconds; mcp_stdio.py takes less


class McpStatus(NamedTuple):
    """A server, whether it is there as far as is known, and how many tools it lists."""

    name: str
    state: str
    tools: str


class McpServers:
    """MCP servers. None of them, and nothing that they started, is left after `close`."""

    def __init__(self, *, seconds: float = STARTS_WITHIN) -> None:
        """Nothing is started yet.

        Args:
            seconds: that a server may take until it is known what it can do.
        """
        self._seconds = seconds
        self._connections: list[McpConnection] = []
        self._starting: list[tuple[McpConnection, Future[None]]] = []
        self._lives: list[Future[None]] = []
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None

    def begin(self, servers: Sequence[McpServer]) -> None:
        """Start servers, but for those that are there already."""
        if not servers:
            return
        from hermes_cli.chat.tools.mcp_connection import McpConnection  # noqa: PLC0415 - 0.5 s, only where there are servers

        for server in servers:
            same = (one for one in self._connections if replace(one.server, name=server.name) == server)
            connection = next(same, None)
            if connection is None:
                taken = [one.server.name for one in self._connections]
                connection = McpConnection(renamed(server, taken), self._seconds)
                self._connections.append(connection)
            elif connection.up or any(connection is one for one, _ in self._starting):
                continue
            self._starting.append((connection, self._start(connection)))

    def ready(self) -> None:
        """Wait until all that began have started.

        Raises:
            HermesError: one did not; the message names it, with the last of what it said. It is forgotten.
        """
        while self._starting:
            connection, started = self._starting[0]
            try:
                outcome(started, math.inf)  # it has a limit of its own
            except BaseException:  # Ctrl-C, too
                self._connections.remove(connection)
                self._loop.start_task_soon(connection.end)
                raise
            finally:
                self._starting.pop(0)

    def close(self) -> None:
        """End them all."""
        if self._portal is None:
            return
        try:
            for one in self._connections:
                self._portal.start_task_soon(one.end)
            wait(self._lives, ENDS_WITHIN)
        finally:  # after another Ctrl-C, too
            for one in self._connections:
                one.kill()
            for life in self._lives:
                life.cancel()
            self._portal = None
            self._stack.close()

    @property
    def statuses(self) -> list[McpStatus]:
        """What there is, in the order in which it was asked for."""
        return [
            McpStatus(one.server.name, f"{'connected' if one.up else 'gone'}: {one.server}", str(len(one.tools)))
            for one in self._connections
        ]

    @property
    def changed(self) -> bool:
        """Whether one has said that its tools are not what they were."""
        return any(one.changed for one in self._connections)

    def tools(self) -> list[Tool]:
        """What they offer, under the names that they use; two may use the same. Read again where it changed.

        Raises:
            HermesError: one does not tell any more; next time it counts as unchanged.
            TimeoutError: one takes too long.
        """
        for one in self._connections:
            if one.changed:
                outcome(self._loop.start_task_soon(one.list_again), LISTS_WITHIN)
        return [_tool(one, tool, self._call) for one in self._connections for tool in one.tools]

    @property
    def _loop(self) -> BlockingPortal:
        """The way into the event loop; it is started with the first server."""
        from anyio.from_thread import start_blocking_portal  # noqa: PLC0415 - as above

        if self._portal is None:
            self._portal = self._stack.enter_context(start_blocking_portal(name="mcp"))
        return self._portal

    def _start(self, connection: McpConnection) -> Future[None]:
        started: Future[None] = Future()
        started.set_running_or_notify_cancel()
        self._lives.append(self._loop.start_task_soon(connection.live, started))
        return started

    def _call(self, connection: McpConnection, name: str, arguments: Mapping[str, Any], seconds: float) -> str:
        """Call a tool; a server that is gone is started once more."""
        try:
            if not connection.up:
                outcome(self._start(connection), math.inf)
            result = outcome(self._loop.start_task_soon(connection.call, name, dict(arguments)), seconds)
        except TimeoutError:
            raise ToolFailedError(f"it did not answer within {seconds:g} s; it was told to stop") from None
        except HermesError as error:
            raise ToolFailedError(error.message) from error
        from hermes_cli.chat.tools.mcp_result import as_text  # noqa: PLC0415 - as above

        text = as_text(result)
        if result.is_error:
            raise ToolFailedError(text or "it failed without a word")
        return text


def _tool(connection: McpConnection, tool: mcp_types.Tool, call: Any) -> Tool:  # noqa: ANN401 - Servers._call
    description = cleandoc(tool.description or "")  # servers in Python send docstrings as they are indented
    declared = {"name": tool.name, "description": description, "parameters": tool.input_schema}
    schema = {"type": "function", "function": declared}
    return Tool(tool.name, schema, f"mcp: {connection.server.name}", partial(call, connection, tool.name))
