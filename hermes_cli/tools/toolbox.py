"""The tools of a chat: whose they are, their names for the model, the user's consent, and the results of calls."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_cli import paths
from hermes_cli.errors import HermesError, UsageError
from hermes_cli.prompting.messages import ToolCall, ToolResult
from hermes_cli.tools.config import McpAddress, McpServer, chosen_servers, read_chat_file
from hermes_cli.tools.functions import TIMEOUT, Tool, ToolFailedError, load_tools, run_tool

if TYPE_CHECKING:
    from hermes_cli.tools.mcp_client import McpServers

MAX_RESULT = 16_000  # characters of a result that the model reads: about 4,000 tokens of English
MAX_NAME = 64  # characters of a tool's name, as in OpenAI's API
MAX_SHOWN = 2_000  # characters of a call that is asked for
# Printable for Python and yet invisible: Default_Ignorable_Code_Point of Unicode 16 (DerivedCoreProperties.txt), and
# the Braille blank.
_INVISIBLE = (
    range(0x034F, 0x0350),
    range(0x115F, 0x1161),
    range(0x17B4, 0x17B6),
    range(0x180B, 0x1810),
    range(0x2800, 0x2801),
    range(0x3164, 0x3165),
    range(0xFE00, 0xFE10),
    range(0xFFA0, 0xFFA1),
    range(0xE0100, 0xE01F0),
)
REFUSED = "the user did not allow this call"


class Consent:
    """Decides whether a call may be run: it was allowed beforehand, or the user is asked."""

    def __init__(
        self, ask: Callable[[str], str] | None, *, allow: Sequence[str] = (), everything: bool = False
    ) -> None:
        """Store the rules.

        `ask` shows a question, returns the typed line, and raises OSError where nobody can type. `allow` has patterns
        that need no question, `*` for any characters: `server:tool`, or names alone, see `bind`.
        """
        self.ask, self._allow, self._everything = ask, tuple(allow), everything
        self._origins: dict[str, str] = {}  # of the tools that a pattern without a server means
        self._always: dict[tuple[str, str], dict[str, Any]] = {}

    def bind(self, tools: Iterable[Tool]) -> list[str]:
        """Bind each pattern without a server to the first origin that has such tools: no later one can borrow a name.

        Return a warning for each pattern that several origins match at once, which therefore allows none of them.
        """
        warnings = []
        for pattern in self._allow:
            origins = {tool.origin for tool in tools if fnmatchcase(tool.name, pattern)}
            if ":" in pattern or pattern in {*self._origins, "*"} or not origins:
                continue
            if len(origins) == 1:
                self._origins[pattern] = origins.pop()
            else:
                whose = ", ".join(sorted(f"{_server_name(origin)}:{pattern}" for origin in origins))
                warnings.append(f"allow {pattern}: several servers have such tools, so they ask; say which: {whose}")
        return warnings

    def allows(self, tool: Tool) -> bool:
        """Return whether calls need no question. "Always" ends when a server changes the tool's declaration."""
        return (
            self._everything
            or any(self._covers(pattern, tool) for pattern in self._allow)
            or self._always.get((tool.origin, tool.name)) == tool.schema
        )

    def _covers(self, pattern: str, tool: Tool) -> bool:
        if ":" in pattern:
            return fnmatchcase(f"{_server_name(tool.origin)}:{tool.own_name or tool.name}", pattern)
        return fnmatchcase(tool.name, pattern) and (pattern == "*" or self._origins.get(pattern) == tool.origin)

    def refusal(self, tool: Tool, call: ToolCall) -> str | None:
        """Ask if needed; return the reason for the model why the call must not be run, or None if it may."""
        if self.allows(tool):
            return None
        question = f"Run {printable(call)} ({tool.origin})?\n[y]es, [a]lways in this chat, [n]o, or why not: "
        try:
            if self.ask is None:
                raise OSError("nobody can be asked")  # noqa: TRY301 - handled like a terminal that is gone
            answer = self.ask(question).strip()
        except OSError:
            raise UsageError(
                f"the model asks to run a tool ({question.splitlines()[0]}), and there is no terminal to ask on.",
                hint="add --allow NAME to run that tool without asking, or --yes for all of them.",
            ) from None
        word, _, rest = answer.partition(" ")
        word = word.strip(",.:;!").lower()
        if word in {"y", "yes", "a", "always"} and not rest:
            if word.startswith("a"):
                self._always[tool.origin, tool.name] = tool.schema
            return None
        reason = rest.strip() if word in {"n", "no"} else answer
        return f"{REFUSED}: {reason}" if reason else REFUSED


def printable(call: ToolCall) -> str:
    """Return a call on one line; characters that are invisible or reorder others are escaped.

    Of a long one the beginning and the end are shown, MAX_SHOWN characters together.
    """
    text = str(call)
    left_out = len(text) - MAX_SHOWN
    if left_out <= 0:
        return "".join(map(_visible, text))
    head = MAX_SHOWN * 3 // 4
    start, end = text[:head], text[head + left_out :]
    return f"{''.join(map(_visible, start))} … {left_out:,} characters left out … {''.join(map(_visible, end))}"


def _visible(character: str) -> str:
    """Return a character, escaped if it cannot be seen."""
    shown = character.isprintable() and not any(ord(character) in codes for codes in _INVISIBLE)
    return character if shown else ascii(character)[1:-1]


class Toolbox:
    """Runs the tool calls of a model (`agent_loop.ToolRunner`). It has to be closed."""

    def __init__(
        self, consent: Consent, warn: Callable[[str], None], *, timeout: float = TIMEOUT, max_result: int = MAX_RESULT
    ) -> None:
        """Begin without tools; `warn` is called with tools of servers that are left out, and why."""
        self._consent, self._warn, self._timeout, self._max_result = consent, warn, timeout, max_result
        self._functions: dict[str, Tool] = {}
        self._servers: McpServers | None = None
        self._tools: dict[str, Tool] = {}
        self._names: dict[tuple[str, str], str] = {}  # of servers' tools, by origin and own name; kept for the chat
        self._warned: set[str] = set()

    def add(self, tools: Mapping[str, Tool]) -> None:
        """Add Python functions, in place of those that the same file had; UsageError if another file has the name."""
        for name, tool in tools.items():
            if name in self._functions and self._functions[name].origin != tool.origin:
                raise UsageError(
                    f"{tool.origin} and {self._functions[name].origin} both have a tool {name}.",
                    hint="rename one of them.",
                )
        origins = {tool.origin for tool in tools.values()}
        others = {name: tool for name, tool in self._functions.items() if tool.origin not in origins}
        self._functions = others | dict(tools)
        self._collect()

    def add_file(self, path: str) -> None:
        """Add the functions of a file, or those that ship with hermes (`demo`). Errors as of `load_tools` and `add`."""
        self.add(load_tools(paths.asset("demo_tools.py") if path == "demo" else Path(path).expanduser()))

    def begin(self, servers: Sequence[McpServer]) -> None:
        """Start MCP servers; `ready` waits for them."""
        if not servers:
            return
        if self._servers is None:
            from hermes_cli.tools.mcp_client import McpServers  # noqa: PLC0415 - 0.5 s, only with servers

            self._servers = McpServers(self._warn, self._consent.ask)
        for server in servers:
            if isinstance(server, McpAddress) and server.exposes_headers:
                self._warn(f"{server.name} gets its headers over plain http: others on the way can read them")
        self._servers.begin(servers)

    def ready(self) -> None:
        """Wait for the servers to list their tools; raise HermesError for one that did not start, which is left out."""
        try:
            if self._servers:
                self._servers.ready()
        finally:
            self._collect()

    def add_server(self, text: str) -> None:
        """Connect to one more MCP server, by a name in chat.yaml, an address or a command line."""
        self.begin(chosen_servers([text], [], read_chat_file()))
        self.ready()

    def close(self) -> None:
        """End the servers."""
        if self._servers:
            self._servers.close()

    @property
    def schemas(self) -> Sequence[dict[str, Any]]:
        """Declarations in OpenAI's shape, read again from a server that changed its list or did not end a call."""
        if self._servers and self._servers.changed:
            try:
                self._collect()
            except HermesError as error:
                self._warn(f"the tools of an MCP server cannot be read again: {error}")
        return [tool.schema for tool in self._tools.values()]

    def listing(self) -> list[list[str]]:
        """Return a row of /tools for each tool: name, origin, the first line of its description, consent."""
        rows = []
        for tool in self._tools.values():
            summary = str(tool.schema["function"].get("description") or "").strip().partition("\n")[0]
            rows.append([tool.name, tool.origin, summary, "allowed" if self._consent.allows(tool) else "asks"])
        return rows

    def servers(self) -> list[list[str]]:
        """Return a row of /mcp for each server, see `McpServers.statuses`."""
        return self._servers.statuses if self._servers else []

    def run(self, call: ToolCall) -> ToolResult:
        """Run a call if it is allowed. Its seconds are without those in which the user decided.

        Raise UsageError if the user has to be asked, and cannot be.
        """
        tool = self._tools.get(call.name)
        refusal = self._consent.refusal(tool, call) if tool else None
        began = time.monotonic()
        try:
            if refusal is not None:
                raise ToolFailedError(refusal)  # noqa: TRY301 - reported like every other failure
            text, failed = run_tool(self._tools, call, self._timeout), False
        except ToolFailedError as error:
            text, failed = error.message, True
        seconds = time.monotonic() - began
        cut = max(len(text) - self._max_result, 0)
        if cut:
            head = self._max_result * 3 // 4
            text = f"{text[:head]}\n[… {cut:,} characters left out here]\n{text[head + cut :]}"
        if failed:
            text = json.dumps({"error": text}, ensure_ascii=False)
        return ToolResult(text, failed, cut, seconds)

    def _collect(self) -> None:
        """Name all tools. Those of Python files keep their names, and a server's tool the name that it was given."""
        tools = dict(self._functions)
        self._names = {key: name for key, name in self._names.items() if name not in tools}
        offered = [tool for tool in self._servers.tools() if self._is_usable(tool)] if self._servers else []
        new = Counter(_plain(tool.name) for tool in offered if (tool.origin, tool.name) not in self._names)
        for tool in offered:
            key = (tool.origin, tool.name)
            if key not in self._names:
                self._names[key] = _free_name(
                    tool, {*tools, *self._names.values()}, is_shared=new[_plain(tool.name)] > 1
                )
            name = self._names[key]
            declared = {**tool.schema["function"], "name": name}
            renamed = replace(tool, name=name, schema={**tool.schema, "function": declared}, own_name=tool.name)
            tools.setdefault(name, renamed)
        self._tools = tools
        for warning in self._consent.bind(tools.values()):
            self._warn_once(warning)

    def _is_usable(self, tool: Tool) -> bool:
        from hermes_cli.prompting.structured_output import check_tool  # noqa: PLC0415 - only where there are servers

        try:
            check_tool(tool.schema)
        except UsageError as error:  # no grammar can hold its arguments
            self._warn_once(f"{tool.name} ({tool.origin}) is left out: {error.message}")
            return False
        return True

    def _warn_once(self, warning: str) -> None:
        if warning not in self._warned:
            self._warned.add(warning)
            self._warn(warning)


def open_toolbox(
    files: Sequence[str],  # of typed Python functions; `demo` is the one that ships with hermes
    servers: Sequence[str],  # names in chat.yaml, addresses and command lines
    headers: Sequence[str],  # `Name: value`, for the one address
    *,
    allowed: Sequence[str],  # patterns of tools that run without a question, beside those of chat.yaml
    yes: bool,  # all tools do
    ask: Callable[[str], str] | None,  # shows a question and returns the typed line
    warn: Callable[[str], None],  # called with tools that are left out
) -> Toolbox:
    """Return the toolbox that flags and chat.yaml ask for; close it. Its MCP servers are starting: see `ready`.

    Raise HermesError if a file, a server, a header or chat.yaml is invalid.
    """
    chat_file = read_chat_file()
    toolbox = Toolbox(Consent(ask, allow=[*chat_file.allow, *allowed], everything=yes), warn)
    for path in files:
        toolbox.add_file(path)
    toolbox.begin(chosen_servers(servers, headers, chat_file))
    return toolbox


def _server_name(origin: str) -> str:
    """Return what stands before the colon in `server:tool`: a server's name, or that of a file of functions."""
    return origin.partition(": ")[2] or origin


def _plain(name: str) -> str:
    """Return a name with only the characters that models can call."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _free_name(tool: Tool, taken: Container[str], *, is_shared: bool) -> str:
    """Return a name that no other tool has; one that several servers bring at once begins with the server's."""
    plain, server = _plain(tool.name), _plain(_server_name(tool.origin))
    names = chain([] if is_shared else [plain], [f"{server}_{plain}"], (f"{n}_{server}_{plain}" for n in count(2)))
    return next(short for name in names if (short := name[:MAX_NAME]) not in taken)
