"""What chat.yaml and flags say about tools: the MCP servers there are, and what may run without being asked for.

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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from hermes_cli import paths
from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

FILE = "chat.yaml"
EXAMPLE = '--mcp "npx -y @modelcontextprotocol/server-filesystem ~/team" or --mcp https://host/mcp'

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, section 5.6.2
_SERVER_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
# Programs that only start another one, which is what a server is better called after.
_STARTERS = re.compile(r"(npx|bunx|uvx|uv|pipx|node|deno|bun|docker|podman|env|python[0-9.]*)(\.exe|\.cmd)?")
_STARTING = frozenset({"run", "tool", "exec", "x"})


@dataclass(frozen=True)
class McpCommand:
    """A server that is started as a process. `env` is added to the few variables that such processes get."""

    name: str
    words: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        """As it would be typed."""
        return shlex.join(self.words)


@dataclass(frozen=True)
class McpAddress:
    """A server that runs already."""

    name: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        """Without what may be a key in it."""
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
    """What the file says. `allow` has names of tools, `*` for any letters in them."""

    mcp_servers: dict[str, McpServerEntry] = {}
    allow: list[str] = []


def read_file(path: Path | None = None) -> ChatFile:
    """What a file says; nothing if the usual one is not there.

    Raises:
        UsageError: it is no YAML, or says what means nothing.
    """
    place = path or paths.config_dir() / FILE
    if not place.exists():
        return ChatFile()
    import yaml  # noqa: PLC0415 - 20 ms, and most chats have no file

    from hermes_cli.catalog.load import yaml_loader  # noqa: PLC0415 - as above

    try:
        document = yaml.load(place.read_text(encoding="utf-8"), Loader=yaml_loader())  # noqa: S506 - a safe loader
        return msgspec.convert(document or {}, ChatFile)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"{place} cannot be read: {reason}.", hint="correct it, or move it away.") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{place} is no YAML: {' '.join(str(error).split())}.", hint="correct it.") from None
    except msgspec.ValidationError as error:
        raise UsageError(f"{place}: {error}.", hint="docs/mcp.md shows what can stand there.") from None


def chosen_servers(given: Sequence[str], headers: Sequence[str], file: ChatFile) -> list[McpServer]:
    """The servers that `--mcp` asks for.

    Args:
        given: each the name of a server in the file, an address, or a command line.
        headers: `Name: value`, for the one address among them.
        file: what chat.yaml says.

    Raises:
        UsageError: it is none of these, a header is none or it is not clear who gets it, or a variable is not set.
    """
    addresses = [one for one in given if _is_address(one)]
    if headers and len(addresses) != 1:
        raise UsageError(
            f"--mcp-header is for one address, and --mcp has {len(addresses)} of them.",
            hint=f"put servers and their headers into {paths.config_dir() / FILE}.",
        )
    typed = dict(map(_header, headers))
    servers: list[McpServer] = []
    for one in given:
        servers.append(renamed(_server(one, typed, file), {other.name for other in servers}))
    return servers


def renamed(server: McpServer, taken: Collection[str]) -> McpServer:
    """The same under a name that is not taken."""
    names = (server.name, *(f"{server.name[:28]}-{number}" for number in range(2, len(taken) + 3)))
    return replace(server, name=next(name for name in names if name not in taken))


def _server(given: str, headers: Mapping[str, str], file: ChatFile) -> McpServer:
    if given in file.mcp_servers:
        return _of_entry(given, file.mcp_servers[given])
    if _is_address(given):
        return McpAddress(_fitting(_host(given)), given, headers)
    words = _words(given)
    if len(words) == 1 and shutil.which(words[0]) is None:
        close = difflib.get_close_matches(given, file.mcp_servers, n=3, cutoff=0.4)
        known = f"did you mean {' or '.join(close)}?" if close else f"write it like this: {EXAMPLE}"
        raise UsageError(f"--mcp {given} is neither a server in {FILE}, nor an address or a program.", hint=known)
    return McpCommand(_fitting(_called(words)), tuple(words))


def _of_entry(name: str, entry: McpServerEntry) -> McpServer:
    where = f"{FILE}: the MCP server {name}"
    if not _SERVER_NAME.fullmatch(name):
        raise UsageError(f"{where} has a name that is not of letters, digits, - and _, 32 at most.", hint="rename it.")
    if entry.url is not None and entry.command is None and not entry.env and _is_address(entry.url):
        headers = {key: _filled(value, where) for key, value in entry.headers.items()}
        return McpAddress(name, entry.url, dict(_header(f"{key}: {value}") for key, value in headers.items()))
    words = _words(entry.command) if isinstance(entry.command, str) else [*map(_at_home, entry.command or [])]
    if words and entry.url is None and not entry.headers:
        return McpCommand(name, tuple(words), {key: _filled(value, where) for key, value in entry.env.items()})
    raise UsageError(
        f"{where} has to have either a `command` (and `env`) or a `url` that begins with http (and `headers`).",
        hint="docs/mcp.md shows both.",
    )


def _words(line: str) -> list[str]:
    """A command line in words, as a shell splits it, and `~` at their beginning is home; nothing else is obeyed."""
    splitter = shlex.shlex(line, posix=True, punctuation_chars=False)
    splitter.whitespace_split, splitter.commenters = True, ""
    if sys.platform == "win32":
        splitter.escape = ""  # there it stands between folders
    try:
        words = [_at_home(word) for word in splitter]
    except ValueError as error:
        raise UsageError(f"--mcp {line}: {error}.", hint="close the quotes.") from None
    if not words:
        raise UsageError("--mcp is empty.", hint=f"write it like this: {EXAMPLE}")
    return words


def _at_home(word: str) -> str:
    return str(Path(word).expanduser()) if word == "~" or word.startswith("~/") else word


def _called(words: Sequence[str]) -> str:
    """The program among the words of a command."""
    first, *rest = [Path(word).name for word in words if not word.startswith("-")] or [""]
    while rest and (_STARTERS.fullmatch(first) or first in _STARTING):
        first, *rest = rest
    return first.partition("@")[0].removesuffix(".py").removesuffix(".js")


def _host(url: str) -> str:
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if not host:
        raise UsageError(f"--mcp {url} is no address.", hint=f"write it like this: {EXAMPLE}")
    return host


def _is_address(given: str) -> bool:
    return given.lower().startswith(("http://", "https://"))


def _fitting(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:32] or "server"


def _header(given: str) -> tuple[str, str]:
    """Name and value. No error shows them: the value may be a key."""
    name, colon, value = given.partition(":")
    value = value.strip()
    if not colon or not _HEADER_NAME.fullmatch(name) or not value.isascii() or not value.isprintable():
        raise UsageError(
            "a header of an MCP server is no name, colon and value in ASCII letters.",
            hint='write it like this: "Authorization: Bearer KEY".',
        )
    return name, value


def _filled(value: str, where: str) -> str:
    """With what the environment says in place of `${NAME}`."""

    def found(variable: re.Match[str]) -> str:
        if (text := os.environ.get(variable[1])) is None:
            raise UsageError(
                f"{where} needs the environment variable {variable[1]}, which is not set.",
                hint=f"export {variable[1]}=…",
            )
        return text

    return _VARIABLE.sub(found, value)
