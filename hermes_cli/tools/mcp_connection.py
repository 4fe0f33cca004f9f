"""The connection to an MCP server: its tools, calls of them, and what went wrong. Its methods run in an event loop."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
import mcp_types
from mcp import Client, MCPError
from mcp.client.auth import OAuthRegistrationError
from mcp.client.streamable_http import streamable_http_client

from hermes_cli import __version__
from hermes_cli.errors import HermesError, NetworkError, NotFoundError
from hermes_cli.process_guard import ProcessGuard
from hermes_cli.tools.config import McpAddress, McpServer
from hermes_cli.tools.elicitation import Questions
from hermes_cli.tools.functions import ToolFailedError
from hermes_cli.tools.mcp_login import BrowserLogin
from hermes_cli.tools.mcp_stdio import MAX_MESSAGE, McpProcess

if TYPE_CHECKING:
    from concurrent.futures import Future

    from mcp.client._transport import TransportStreams
    from mcp.client.session import IncomingMessage

LIST_TIMEOUT = 10.0  # seconds, when the tools changed or a call was given up
MAX_PAGES, MAX_TOOLS = 100, 512  # of a server's list; prompting/structured_output.py takes no more tools either
SHOWN_LINES = 5  # of standard error in a message
_EXIT_SEEN_WITHIN = 1.0  # seconds

for _name in ("mcp", "client"):  # the SDK's loggers; without a handler, warnings end up on the screen
    logging.getLogger(_name).addHandler(logging.NullHandler())


class McpConnection:
    """A server, its tools as it listed them last, and whether they are to be listed again."""

    def __init__(self, server: McpServer, start_timeout: float, guard: ProcessGuard, questions: Questions) -> None:
        self.server, self._guard, self._questions = server, guard, questions
        self.tools: list[mcp_types.Tool] = []
        self.changed = False
        self.starting: Future[None] | None = None  # done as soon as the server has started or failed
        self._start_timeout = start_timeout
        self._client: Client | None = None
        self._process: McpProcess | None = None
        self._start_scope: anyio.CancelScope | None = None
        self._lock = anyio.Lock()
        self._end = anyio.Event()
        self._ended_for_good = False
        self._refusal: httpx2.Response | None = None  # last error response over HTTP

    @property
    def is_up(self) -> bool:
        """Return whether the server was connected when it was last used."""
        return self._client is not None

    async def run(self, started: Future[None]) -> None:
        """Connect, and stay connected until `end`; if it was connected before, once that has ended.

        `started` gets None as soon as the tools are known, or the HermesError that says why they are not.
        """
        async with self._lock:
            if self._ended_for_good:
                return
            self._end, self._refusal = anyio.Event(), None
            try:
                with anyio.fail_after(self._start_timeout) as self._start_scope:
                    async with self._new_client() as client:
                        before, self.tools = self.tools, await _list_tools(client)
                        self.changed = bool(before) and self.tools != before
                        self._start_scope.deadline = math.inf
                        self._client = client
                        started.set_result(None)
                        async with anyio.create_task_group() as tasks:
                            tasks.start_soon(self._watch_tools, client)
                            await self._end.wait()
                            tasks.cancel_scope.cancel()
            except Exception as error:  # noqa: BLE001 - whatever a server does must not end more than its connection
                if not started.done():
                    started.set_exception(self._failure(error))
            finally:
                self._client = None

    def end(self) -> None:
        """End `run` for good, whether it is connected, about to be, or has not begun."""
        self._ended_for_good = True
        if self.is_up:
            self._end.set()
        elif self._start_scope:
            self._start_scope.cancel()

    def kill(self) -> None:
        """Kill the server's process, from any thread."""
        if self._process:
            self._process.kill()

    async def call(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        """Call a tool; return its result as text, and whether the server marks it as an error.

        ToolFailedError means that the server refuses the call, another HermesError that it does not answer any more.
        """
        self._refusal = None
        try:
            if self._client is None:
                raise ConnectionError("the connection is closed")  # noqa: TRY301 - handled like any lost connection
            result = await self._client.call_tool(name, arguments)
        except Exception as error:
            raise await self._error_of(error) from error
        has_text = any(isinstance(block, mcp_types.TextContent) for block in result.content)
        if not has_text and result.structured_content is not None:
            return json.dumps(result.structured_content, ensure_ascii=False), bool(result.is_error)
        return "\n".join(map(_block_text, result.content)), bool(result.is_error)

    async def list_again(self) -> None:
        """Read the list of tools again, if the server is connected. One that does not answer is ended."""
        self.changed = False
        if self._client is None:
            return
        try:
            with anyio.fail_after(LIST_TIMEOUT):
                self.tools = await _list_tools(self._client)
        except TimeoutError:
            self._give_up()
            reason = f"it did not list its tools within {LIST_TIMEOUT:g} s, and was ended; a call starts it again"
            raise HermesError(f"the MCP server {self.server.name}: {reason}.", hint="see /mcp.") from None
        except Exception as error:
            raise await self._error_of(error) from error

    async def _error_of(self, error: Exception) -> HermesError:
        """Return the error for the user. A closed connection is given up."""
        closed = isinstance(error, ConnectionError | anyio.ClosedResourceError | anyio.BrokenResourceError)
        closed = closed or (isinstance(error, MCPError) and error.code == mcp_types.CONNECTION_CLOSED)
        # A server that was started anew does not know the session of before.
        session_lost = self._refusal is not None and self._refusal.status_code == HTTPStatus.NOT_FOUND
        if not closed and not session_lost:
            return ToolFailedError(_reason(error))
        with anyio.move_on_after(_EXIT_SEEN_WITHIN):
            while self._process and not self._process.exit_reason:  # noqa: ASYNC110 - nothing tells
                await anyio.sleep(0.01)
        self._give_up()
        return self._failure(error)

    def _give_up(self) -> None:
        """End the connection; the next call makes another one."""
        self._client = None
        self._end.set()

    def _new_client(self) -> Client:
        if isinstance(self.server, McpAddress):
            transport = self._http_transport(self.server)
        else:
            self._process = McpProcess(self.server, self._guard)
            transport = self._process.transport()
        return Client(
            transport,
            cache=None,
            client_info=mcp_types.Implementation(name="hermes", version=__version__),
            message_handler=self._handle_message,
            elicitation_callback=lambda _, params: self._questions.put(self.server.name, params),
        )

    @asynccontextmanager
    async def _http_transport(self, server: McpAddress) -> AsyncGenerator[TransportStreams, None]:
        """Exchange messages with an address. Reading has no timeout: that of a call is elsewhere."""

        async def keep_refusal(response: httpx2.Response) -> None:
            if response.is_error:
                self._refusal = response

        timeout = httpx2.Timeout(30, read=None)  # seconds
        hooks = {"response": [keep_refusal]}
        proxied = not server.is_local  # no proxy of the environment reaches this machine, or sees its headers
        login = BrowserLogin(server, self._questions.tell, self._wait_for_user)
        has_key = any(name.lower() == "authorization" for name in server.headers)
        async with (
            aclosing(login),
            httpx2.AsyncClient(
                auth=None if has_key else login.provider,
                headers=dict(server.headers),
                timeout=timeout,
                event_hooks=hooks,
                trust_env=proxied,
            ) as client,
            streamable_http_client(server.url, http_client=client, max_sse_event_size=MAX_MESSAGE) as streams,
        ):
            yield streams

    def _wait_for_user(self) -> None:
        """Give the user time to log in, which has a limit of its own."""
        if self._start_scope:
            self._start_scope.deadline = math.inf

    async def _handle_message(self, message: IncomingMessage) -> None:
        """Note a changed list, as servers before protocol 2026-07-28 announce it."""
        if isinstance(message, mcp_types.ToolListChangedNotification):
            self.changed = True

    async def _watch_tools(self, client: Client) -> None:
        """Note a changed list, as servers since protocol 2026-07-28 announce it."""
        tools = client.server_capabilities.tools
        if client.protocol_version < "2026-07-28" or not (tools and tools.list_changed):
            return
        try:
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self.changed = True
        except Exception:  # noqa: BLE001, S110 - the list stays as it was; a call tells if the server is gone
            pass

    def _failure(self, error: BaseException) -> HermesError:
        """Return the error for a server that is of no use now, with its last output."""
        error = _innermost(error)
        if isinstance(error, NetworkError):  # of a login
            return error
        server, reason = self.server, _reason(error)
        if isinstance(error, TimeoutError):
            reason = f"it did not answer within {self._start_timeout:g} s"
        if isinstance(server, McpAddress):
            if isinstance(error, OAuthRegistrationError):
                reason = "it wants a key, and offers no login that hermes can do"
            refusal = self._refusal
            status = f" ({refusal.status_code} {refusal.reason_phrase})" if refusal is not None else ""
            hint = "check the address, and --mcp-header if it wants a key."
            if refusal is not None and refusal.status_code in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
                hint = "give its address for streamable HTTP, often /mcp; the older HTTP+SSE (/sse) is not supported."
            return NetworkError(f"the MCP server {server.name} at {server}: {reason}{status}.", hint=hint)
        if isinstance(error, FileNotFoundError):
            return NotFoundError(
                f"the MCP server {server.name}: there is no program {server.words[0]}.", hint="install it."
            )
        lines: list[str] = []
        if self._process:
            lines = [f"\n  | {line}" for line in self._process.stderr_lines][-SHOWN_LINES:]
            if not isinstance(error, TimeoutError | HermesError):
                reason = self._process.exit_reason or reason
        return HermesError(
            f"the MCP server {server.name}: {reason}.{''.join(lines)}", hint=f"run it by itself to see more: {server}"
        )


async def _list_tools(client: Client) -> list[mcp_types.Tool]:
    """Return every page of the server's list; raise ToolFailedError if it does not end."""
    tools: list[mcp_types.Tool] = []
    cursor: str | None = None
    if client.server_capabilities.tools is None:
        return tools
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        if len(tools) > MAX_TOOLS:
            break
        if not (cursor := page.next_cursor):
            return tools
    raise ToolFailedError(f"it lists {len(tools):,} tools; at most {MAX_TOOLS:,} are taken")


def _innermost(error: BaseException) -> BaseException:
    while inner := getattr(error, "exceptions", None):  # of an exception group
        error = inner[0]
    return error


def _reason(error: BaseException) -> str:
    error = _innermost(error)
    if isinstance(error, HermesError | MCPError):
        return error.message
    return str(error) or type(error).__name__


def _block_text(block: mcp_types.ContentBlock) -> str:
    """Return the text of a part of a result, a line in its place for an image or a file."""
    if isinstance(block, mcp_types.TextContent):
        return block.text
    if isinstance(block, mcp_types.ImageContent | mcp_types.AudioContent):
        return f"[{block.type}, {block.mime_type}, {_size(block.data)}]"
    if isinstance(block, mcp_types.ResourceLink):
        return f"[link to {block.uri}: {block.title or block.name}]"
    if isinstance(block.resource, mcp_types.TextResourceContents):
        return f"[{block.resource.uri}]\n{block.resource.text}"
    return f"[{block.resource.uri}, {block.resource.mime_type or 'of unknown type'}, {_size(block.resource.blob)}]"


def _size(base64: str) -> str:
    return f"{len(base64) * 3 // 4 - base64.count('=', -2):,} bytes"
