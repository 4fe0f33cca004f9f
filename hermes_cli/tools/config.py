"""chat.yaml, and tools in flags: MCP servers, what may run without a question; defaults and presets of chats.

    defaults: {model: "hermes-3:8b", temperature: 0.5}
    presets: {pirate: {system: You are a pirate.}}
    mcp_servers:
      files: {command: [npx, -y, "@modelcontextprotocol/server-filesystem", ~/team]}
      tracker: {url: https://tracker.example/mcp, headers: {Authorization: "Bearer ${TRACKER_KEY}"}}
    allow: [get_weather, files_read_*]

`${NAME}` in `env` and `headers` is read from the environment, so that keys need not stand in the file.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from hermes_cli import paths
from hermes_cli.errors import UsageError
from hermes_cli.platforms import is_loopback

FILE = "chat.yaml"
EXAMPLE = '--mcp "npx -y @modelcontextprotocol/server-filesystem ~/team" or --mcp https://host/mcp'

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, section 5.6.2
_SERVER_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
# Programs and words that only start another program, which gives a better name for the server.
_LAUNCHERS = re.compile(r"(npx|bunx|uvx|uv|pipx|node|deno|bun|docker|podman|env|python[0-9.]*)(\.exe|\.cmd)?")
_LAUNCHER_WORDS = frozenset({"run", "tool", "exec", "x"})


@dataclass(frozen=True)
class McpCommand:
    """A server that is started as a process. `env` is added to the few variables that such processes get."""

    name: str
    words: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return shlex.join(self.words)


@dataclass(frozen=True)
class McpAddress:
    """A server that runs already."""

    name: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_local(self) -> bool:
        """Return whether the host is this machine."""
        return is_loopback(urlsplit(self.url).hostname or "")

    @property
    def exposes_headers(self) -> bool:
        """Return whether headers, which may hold a key, would travel unencrypted over a network."""
        return bool(self.headers) and not self.is_local and self.url.lower().startswith("http:")

    def __str__(self) -> str:
        """Return the address without user info and query, which may hold a key."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


McpServer = McpCommand | McpAddress


class McpServerEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A server in the file: a command, or an address."""

    command: list[str] | str | None = None
    url: str | None = None
    env: dict[str, str] = {}
    headers: dict[str, str] = {}


class ChatFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Contents of chat.yaml."""

    # values of the options of `hermes chat`, by the option's name without dashes in front
    defaults: dict[str, Any] = {}
    presets: dict[str, dict[str, Any]] = {}  # the same under names, for `--preset` and `/preset`
    mcp_servers: dict[str, McpServerEntry] = {}
    allow: list[str] = []  # patterns of tool names, `*` for any characters


def read_chat_file(path: Path | None = None) -> ChatFile:
    """Read chat.yaml; return an empty one if it does not exist, and raise UsageError if it is invalid."""
    path = path or paths.config_dir() / FILE
    if not path.exists():
        return ChatFile()
    from hermes_cli.settings_file import parse  # noqa: PLC0415 - YAML: 20 ms, and most chats have no file

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"{path} cannot be read: {reason}.", hint="correct it, or move it away.") from None
    return from_document(parse(text, str(path)) or {}, str(path))


def from_document(document: object, place: str) -> ChatFile:
    """Return the document of a file as what it means; UsageError if it is invalid."""
    try:
        return msgspec.convert(document, ChatFile)
    except msgspec.ValidationError as error:
        raise UsageError(f"{place}: {error}.", hint="docs/mcp.md shows what can stand there.") from None


def chosen_servers(texts: Sequence[str], headers: Sequence[str], chat_file: ChatFile) -> list[McpServer]:
    """Return the servers that `--mcp` asks for: by a name in the file, an address, or a command line each.

    Raise UsageError if a text is none of these, a header has no clear address, or a variable is not set.
    """
    addresses = [text for text in texts if _is_address(text)]
    if headers and len(addresses) != 1:
        raise UsageError(
            f"--mcp-header is for one address, and --mcp has {len(addresses)} of them.",
            hint=f"put servers and their headers into {paths.config_dir() / FILE}.",
        )
    parsed_headers = dict(map(_header, headers))
    servers: list[McpServer] = []
    for text in texts:
        server = _server(text, parsed_headers, chat_file)
        servers.append(with_free_name(server, {other.name for other in servers}))
    return servers


def with_free_name(server: McpServer, taken: Collection[str]) -> McpServer:
    """Return the server under a name that is not taken."""
    names = (server.name, *(f"{server.name[:28]}-{number}" for number in range(2, len(taken) + 3)))
    return replace(server, name=next(name for name in names if name not in taken))


def _server(text: str, headers: Mapping[str, str], chat_file: ChatFile) -> McpServer:
    if text in chat_file.mcp_servers:
        return _from_entry(text, chat_file.mcp_servers[text])
    if _is_address(text):
        try:
            host = urlsplit(text).hostname
        except ValueError:
            host = None
        if not host:
            raise UsageError(f"--mcp {text} is not an address.", hint=f"write it like this: {EXAMPLE}")
        return McpAddress(_as_name(host), text, headers)
    words = _split_command(text)
    if len(words) == 1 and shutil.which(words[0]) is None:
        close = difflib.get_close_matches(text, chat_file.mcp_servers, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}?" if close else f"write it like this: {EXAMPLE}"
        raise UsageError(f"--mcp {text} is neither a server in {FILE}, nor an address or a program.", hint=hint)
    # The name of the program without its launcher.
    first, *rest = [Path(word).name for word in words if not word.startswith("-")] or [""]
    while rest and (_LAUNCHERS.fullmatch(first) or first in _LAUNCHER_WORDS):
        first, *rest = rest
    program = first.partition("@")[0].removesuffix(".py").removesuffix(".js")
    return McpCommand(_as_name(program), tuple(words))


def _from_entry(name: str, entry: McpServerEntry) -> McpServer:
    where = f"{FILE}: the MCP server {name}"
    if not _SERVER_NAME.fullmatch(name):
        raise UsageError(f"{where} has a name that is not of letters, digits, - and _, 32 at most.", hint="rename it.")
    if entry.url is not None and entry.command is None and not entry.env and _is_address(entry.url):
        headers = {key: _substituted(value, where) for key, value in entry.headers.items()}
        return McpAddress(name, entry.url, dict(_header(f"{key}: {value}") for key, value in headers.items()))
    words = _split_command(entry.command) if isinstance(entry.command, str) else [*map(_expanded, entry.command or [])]
    if words and entry.url is None and not entry.headers:
        return McpCommand(name, tuple(words), {key: _substituted(value, where) for key, value in entry.env.items()})
    raise UsageError(
        f"{where} has to have either a `command` (and `env`) or a `url` that begins with http (and `headers`).",
        hint="docs/mcp.md shows both.",
    )


def _split_command(line: str) -> list[str]:
    """Split a command line as a shell does; `~` at the beginning of a word is home; nothing else is expanded."""
    splitter = shlex.shlex(line, posix=True, punctuation_chars=False)
    splitter.whitespace_split, splitter.commenters = True, ""
    if sys.platform == "win32":
        splitter.escape = ""  # there it separates folders
    try:
        words = [_expanded(word) for word in splitter]
    except ValueError as error:
        raise UsageError(f"--mcp {line}: {error}.", hint="close the quotes.") from None
    if not words:
        raise UsageError("--mcp is empty.", hint=f"write it like this: {EXAMPLE}")
    return words


def _expanded(word: str) -> str:
    return str(Path(word).expanduser()) if word == "~" or word.startswith("~/") else word


def _is_address(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:32] or "server"


def _header(text: str) -> tuple[str, str]:
    """Return the name and the value of a header. No error shows them: the value may be a key."""
    name, colon, value = text.partition(":")
    value = value.strip()
    if not colon or not _HEADER_NAME.fullmatch(name) or not value.isascii() or not value.isprintable():
        raise UsageError(
            "a header of an MCP server is not a name, colon and value in ASCII characters.",
            hint='write it like this: "Authorization: Bearer KEY".',
        )
    return name, value


def _substituted(value: str, where: str) -> str:
    """Replace each `${NAME}` by the value of the environment variable."""

    def value_of(variable: re.Match[str]) -> str:
        if (text := os.environ.get(variable[1])) is None:
            raise UsageError(
                f"{where} needs the environment variable {variable[1]}, which is not set.",
                hint=f"export {variable[1]}=…",
            )
        return text

    return _VARIABLE.sub(value_of, value)
