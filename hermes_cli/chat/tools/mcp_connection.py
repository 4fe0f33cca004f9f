"""The connection to one MCP server, in the event loop of mcp_servers.py.

Nothing is offered to servers: no sampling, no questions to the user, no roots. What they log and how far they are is
ignored.
"""

from __future__ import annotations

import logging
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
import mcp_types
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from hermes_cli import __version__
from hermes_cli.chat.tools.config import McpAddress, McpServer
from hermes_cli.chat.tools.functions import ToolFailedError
from hermes_cli.chat.tools.mcp_stdio import MOST_BYTES, McpProcess
from hermes_cli.errors import HermesError, NetworkError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from concurrent.futures import Future

    from mcp.client._transport import TransportStreams
    from mcp.client.session import IncomingMessage

MOST_PAGES, MOST_TOOLS = 100, 512  # of a server's list; prompting/constrain.py takes no more tools either
LAST_WORDS = 5  # lines of standard error in a message
_SEEN_WITHIN = 1.0  # seconds in which a process that is gone is seen to be gone

for _name in ("mcp", "client"):  # the SDK's loggers; without a handler, warnings end up on the screen
    logging.getLogger(_name).addHandler(logging.NullHandler())


class McpConnection:
    """A server that was asked for.

    Attributes:
        server: which.
        tools: as it listed them last.
        changed: it said that its list is another one now.
        up: it answers, as far as is known.
    """

    def __init__(self, server: McpServer, seconds: float) -> None:
        self.server = server
        self.tools: list[mcp_types.Tool] = []
        self.changed = False
        self._seconds = seconds
        self._client: Client | None = None
        self._child: McpProcess | None = None
        self._limit: anyio.CancelScope | None = None
        self._alone = anyio.Lock()
        self._over = anyio.Event()
        self._status: str | None = None  # of the last answer over HTTP that was a refusal

    @property
    def up(self) -> bool:
        """Whether it was there when it was last asked for something."""
        return self._client is not None

    async def live(self, started: Future[None]) -> None:
        """Connect, and stay connected until `end`; if it was connected before, once that has ended.

        `started` gets None as soon as its tools are known, or the HermesError that says why they are not.
        """
        async with self._alone:
            self._over = anyio.Event()
            self._status = None
            try:
                await self._stay(started)
            except Exception as error:  # noqa: BLE001 - whatever a server does must not end more than its connection
                if not started.done():
                    started.set_exception(self._failure(error))
            finally:
                self._client = None

    async def _stay(self, started: Future[None]) -> None:
        with anyio.fail_after(self._seconds) as self._limit:
            async with self._new_client() as client:
                before, self.tools = self.tools, await _all_tools(client)
                self.changed = bool(before) and self.tools != before
                self._limit.deadline = math.inf
                self._client = client
                started.set_result(None)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._watch, client)
                    await self._over.wait()
                    tasks.cancel_scope.cancel()

    def end(self) -> None:
        """Have `live` end, whether it is connected or about to be."""
        if self.up:
            self._over.set()
        elif self._limit:
            self._limit.cancel()

    def kill(self) -> None:
        """End its process now, from any thread."""
        if self._child:
            self._child.kill()

    async def call(self, name: str, arguments: dict[str, Any]) -> mcp_types.CallToolResult:
        """Call one of its tools.

        Raises:
            ToolFailedError: it answers that it cannot.
            HermesError: it does not answer any more.
        """
        self._status = None
        try:
            if self._client is None:
                raise ConnectionError("the connection is closed")  # noqa: TRY301 - one end for all of them
            return await self._client.call_tool(name, arguments)
        except Exception as error:
            raise await self._wrong(error) from error

    async def list_again(self) -> None:
        """Read its list of tools again, if it is there.

        Raises:
            HermesError: it does not list them.
        """
        self.changed = False
        if self._client is None:
            return
        try:
            self.tools = await _all_tools(self._client)
        except Exception as error:
            raise await self._wrong(error) from error

    async def _wrong(self, error: Exception) -> HermesError:
        """What is wrong. A connection that is closed is given up, so that the next call makes another one."""
        gone = (self._status or "").startswith("404")  # a server that was started anew knows no session of before
        if not gone and not _is_closed(error):
            return ToolFailedError(_reason(error))
        with anyio.move_on_after(_SEEN_WITHIN):
            while self._child and not self._child.ended:  # noqa: ASYNC110 - nothing tells
                await anyio.sleep(0.01)
        self._client = None
        self._over.set()
        return self._failure(error)

    def _new_client(self) -> Client:
        if isinstance(self.server, McpAddress):
            transport = _over_http(self.server, self._note)
        else:
            self._child = McpProcess(self.server)
            transport = self._child.messages()
        return Client(
            transport,
            cache=None,
            client_info=mcp_types.Implementation(name="hermes", version=__version__),
            message_handler=self._heard,
        )

    async def _note(self, answer: httpx2.Response) -> None:
        if answer.is_error:
            self._status = f"{answer.status_code} {answer.reason_phrase}"

    async def _heard(self, message: IncomingMessage) -> None:
        """How servers before protocol 2026-07-28 say that their list changed."""
        if isinstance(message, mcp_types.ToolListChangedNotification):
            self.changed = True

    async def _watch(self, client: Client) -> None:
        """How servers since then say so."""
        tools = client.server_capabilities.tools
        if client.protocol_version < "2026-07-28" or not (tools and tools.list_changed):
            return
        try:
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self.changed = True
        except Exception:  # noqa: BLE001, S110 - the list is what it was, then; a call tells if the server is gone
            pass

    def _failure(self, error: Exception) -> HermesError:
        """Why the server is of no use now, with its last words."""
        server, reason = self.server, _reason(error)
        late = f"it did not answer within {self._seconds:g} s" if isinstance(error, TimeoutError) else None
        if isinstance(server, McpAddress):
            refusal = f" ({self._status})" if self._status else ""
            return NetworkError(
                f"the MCP server {server.name} at {server}: {late or reason}{refusal}.",
                hint="check the address, and --mcp-header if it wants a key.",
            )
        if isinstance(error, FileNotFoundError):
            return NotFoundError(
                f"the MCP server {server.name}: there is no program {server.words[0]}.", hint="install it."
            )
        child = self._child
        said = [f"\n  | {line}" for line in child.said][-LAST_WORDS:] if child else []
        return HermesError(
            f"the MCP server {server.name}: {late or (child and child.ended) or reason}.{''.join(said)}",
            hint=f"run it by itself to see more: {server}",
        )


@asynccontextmanager
async def _over_http(
    server: McpAddress, note: Callable[[httpx2.Response], Awaitable[None]]
) -> AsyncGenerator[TransportStreams, None]:
    """Messages to and from an address; `note` sees every answer. How long a call may take is for others to say."""
    timeout = httpx2.Timeout(30, read=None)  # seconds
    async with (
        httpx2.AsyncClient(headers=dict(server.headers), timeout=timeout, event_hooks={"response": [note]}) as client,
        streamable_http_client(server.url, http_client=client, max_sse_event_size=MOST_BYTES) as streams,
    ):
        yield streams


async def _all_tools(client: Client) -> list[mcp_types.Tool]:
    """Every page of its list.

    Raises:
        ToolFailedError: the list does not end.
    """
    tools: list[mcp_types.Tool] = []
    cursor: str | None = None
    if client.server_capabilities.tools is None:
        return tools
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        if not (cursor := page.next_cursor):
            return tools
        if len(tools) > MOST_TOOLS:
            break
    raise ToolFailedError(f"it lists {len(tools):,} tools and goes on; at most {MOST_TOOLS:,} are taken")


def _is_closed(error: Exception) -> bool:
    closed = ConnectionError, anyio.ClosedResourceError, anyio.BrokenResourceError
    return isinstance(error, closed) or (isinstance(error, MCPError) and error.code == mcp_types.CONNECTION_CLOSED)


def _reason(error: BaseException) -> str:
    while several := getattr(error, "exceptions", None):  # of an exception group
        error = several[0]
    if isinstance(error, HermesError | MCPError):
        return error.message
    return str(error) or type(error).__name__
