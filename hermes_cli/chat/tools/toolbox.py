"""The tools of a chat: whose they are, under which names the model calls them, and what comes of its calls."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from hermes_cli import paths
from hermes_cli.chat.tools.config import chosen_servers, read_file
from hermes_cli.chat.tools.functions import LIMIT, Tool, ToolFailedError, load_tools, run_tool
from hermes_cli.chat.tools.mcp_client import McpServers, McpStatus
from hermes_cli.chat.view import ToolResult
from hermes_cli.errors import HermesError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from hermes_cli.chat.tools.config import McpServer
    from hermes_cli.chat.tools.consent import Consent
    from hermes_cli.prompting.messages import ToolCall

MOST_CHARACTERS = 16_000  # of a result that the model reads: about 4,000 tokens of English
NAME_CHARACTERS = 64  # of a tool's name, as OpenAI's API has it


class ToolListing(NamedTuple):
    """A tool as it is listed: the first line of what it says it does, and whether its calls are asked for."""

    name: str
    origin: str
    does: str
    run: Literal["allowed", "asks"]


class Toolbox:
    """Runs the calls of a model (`talk.Runner`). It has to be closed."""

    def __init__(
        self,
        consent: Consent,
        warn: Callable[[str], None],
        *,
        seconds: float = LIMIT,
        most: int = MOST_CHARACTERS,
    ) -> None:
        """It is empty.

        Args:
            consent: decides about each call.
            warn: is told which tools of servers are left out, and why.
            seconds: that a call may take.
            most: characters of a result that the model reads.
        """
        self._consent, self._warn, self._seconds, self._most = consent, warn, seconds, most
        self._own: dict[str, Tool] = {}
        self._servers = McpServers()
        self._tools: dict[str, Tool] = {}
        self._warned: set[str] = set()

    def add(self, tools: Mapping[str, Tool]) -> None:
        """Add Python's tools. Those of a file that was there before take its place.

        Raises:
            UsageError: there is one of that name from another file.
        """
        for name, tool in tools.items():
            if name in self._own and self._own[name].origin != tool.origin:
                raise UsageError(
                    f"{tool.origin} and {self._own[name].origin} both have a tool {name}.", hint="rename one of them."
                )
        origins = {tool.origin for tool in tools.values()}
        self._own = {name: tool for name, tool in self._own.items() if tool.origin not in origins} | dict(tools)
        self._collect()

    def begin(self, servers: Sequence[McpServer]) -> None:
        """Start MCP servers; `ready` waits for them."""
        self._servers.begin(servers)

    def ready(self) -> None:
        """Wait until it is known what servers offer.

        Raises:
            HermesError: one did not start; it is left out.
        """
        try:
            self._servers.ready()
        finally:
            self._collect()

    def add_file(self, given: str) -> None:
        """Add the tools of a file; `demo` stands for the one that ships with hermes.

        Raises:
            HermesError: as `load_tools` and `add`.
        """
        self.add(load_tools(paths.asset("demo_tools.py") if given == "demo" else Path(given).expanduser()))

    def add_server(self, given: str) -> None:
        """Connect to one more MCP server, by a name in chat.yaml, an address or a command line.

        Raises:
            HermesError: it is none of these, or does not start.
        """
        self.begin(chosen_servers([given], [], read_file()))
        self.ready()

    def close(self) -> None:
        """End the servers."""
        self._servers.close()

    @property
    def schemas(self) -> Sequence[dict[str, Any]]:
        """Declarations of the tools in OpenAI's shape, as they are by now."""
        if self._servers.changed:
            try:
                self._collect()
            except (HermesError, TimeoutError) as error:
                self._warn(f"the tools of an MCP server changed, and cannot be read: {error}")
        return [tool.schema for tool in self._tools.values()]

    def described(self) -> list[ToolListing]:
        """What there is."""
        return [
            ToolListing(
                tool.name,
                tool.origin,
                tool.description.strip().partition("\n")[0],
                "allowed" if self._consent.allows(tool) else "asks",
            )
            for tool in self._tools.values()
        ]

    def servers(self) -> list[McpStatus]:
        """The MCP servers there are."""
        return self._servers.statuses

    def run(self, call: ToolCall) -> ToolResult:
        """What comes of a call. Seconds are those of the tool, not those in which the user decided.

        Raises:
            UsageError: the user has to be asked, and cannot be.
        """
        tool = self._tools.get(call.name)
        refusal = self._consent.refusal(tool, call) if tool else None
        began = time.monotonic()
        try:
            if refusal is not None:
                raise ToolFailedError(refusal)  # noqa: TRY301 - told like all that went wrong
            text, failed = run_tool(self._tools, call, self._seconds), False
        except ToolFailedError as error:
            text, failed = error.message, True
        seconds = time.monotonic() - began
        shown, cut = _shortened(text, self._most)
        if failed:
            shown = json.dumps({"error": shown}, ensure_ascii=False)
        return ToolResult(shown, failed, cut, seconds)

    def _collect(self) -> None:
        """Name the tools there are by now; those of Python files keep their names."""
        tools = dict(self._own)
        for tool in self._usable(self._servers.tools()):
            named = _named(tool, tools)
            tools[named.name] = named
        self._tools = tools

    def _usable(self, tools: Iterable[Tool]) -> Iterable[Tool]:
        """Those whose arguments can be enforced; one that is not must not take the others with it."""
        for tool in tools:
            from hermes_cli.prompting.structured_output import tool_calls  # noqa: PLC0415 - only where there are servers

            try:
                tool_calls([tool.schema], notes=[])
            except UsageError as error:
                self._leave_out(f"{tool.name} ({tool.origin}) is left out: {error.message}")
            else:
                yield tool

    def _leave_out(self, why: str) -> None:
        if why not in self._warned:
            self._warned.add(why)
            self._warn(why)


def _named(tool: Tool, taken: Mapping[str, Tool]) -> Tool:
    """The tool under a name that models can call and that no other one has."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", tool.name)
    server = re.sub(r"[^A-Za-z0-9_-]", "_", tool.origin.partition(": ")[2])
    names = (plain, f"{server}_{plain}", *(f"{number}_{server}_{plain}" for number in range(2, len(taken) + 3)))
    name = next(short for name in names if (short := name[:NAME_CHARACTERS]) not in taken)
    declared = {**tool.schema["function"], "name": name}
    return replace(tool, name=name, schema={**tool.schema, "function": declared})


def _shortened(text: str, most: int) -> tuple[str, int]:
    """Beginning and end of a text that is too long, and how many characters between them are left out."""
    cut = len(text) - most
    if cut <= 0:
        return text, 0
    head = most * 3 // 4
    return f"{text[:head]}\n[… {cut:,} characters left out here]\n{text[head + cut :]}", cut
