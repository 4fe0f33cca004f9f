"""Slash commands, and reading a typed line as a command or as a message."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hermes_cli.chat.repl_context import ReplContext

ESCAPE = "//"  # beginning of a message that begins with a slash
QUOTES = '"""'
MAX_FILES = 500  # completions from one folder


def _no_completions(_context: ReplContext, _argument: str) -> Iterable[str]:
    return ()


@dataclass(frozen=True)
class SlashCommand:
    """A command.

    Attributes:
        name: with its slash.
        usage: its argument, as /help shows it; empty if it takes none.
        summary: what it does, in one line.
        run: takes the argument without blanks around it.
        complete: returns what an argument that is being typed can become.
    """

    name: str
    usage: str
    summary: str
    run: Callable[[ReplContext, str], None]
    complete: Callable[[ReplContext, str], Iterable[str]] = _no_completions


def is_command(line: str) -> bool:
    """Return whether a line is a command; paths and comments of programs are messages."""
    name = line.split(maxsplit=1)[0] if line.strip() else ""
    return line.startswith("/") and not line.startswith(ESCAPE) and "/" not in name[1:] and name[1:].isalpha()


def unescaped(line: str) -> str:
    """Return the message of a line that is not a command."""
    return line.removeprefix("/") if line.startswith(ESCAPE) else line


def is_open_quote(text: str) -> bool:
    """Return whether the text begins with three quotes that are not closed."""
    text = text.strip()
    return text.startswith(QUOTES) and not (text.endswith(QUOTES) and len(text) >= 2 * len(QUOTES))


def unquoted(text: str) -> str:
    """Return what stands in three quotes, escaped if it looks like a command; other text as it is."""
    inner = text.strip()
    if not inner.startswith(QUOTES) or is_open_quote(text):
        return text
    inner = inner.removeprefix(QUOTES).removesuffix(QUOTES).removeprefix("\n").removesuffix("\n")
    return f"/{inner}" if is_command(inner) or inner.startswith(ESCAPE) else inner


def run_command(context: ReplContext, line: str, commands: Mapping[str, SlashCommand]) -> None:
    """Run the command of a line.

    Raises:
        UsageError: no such command, or an invalid argument.
        HermesError: it failed.
    """
    name, _, argument = line.strip().partition(" ")
    argument = argument.strip()
    command = commands.get(name.lower())
    if command is None:
        near = difflib.get_close_matches(name.lower(), commands, 2)
        hint = f"did you mean {' or '.join(near)}? /help lists them." if near else "/help lists them."
        raise UsageError(f"there is no command {name}.", hint=f"{hint} A message that begins so: /{name} …")
    if argument and not command.usage:
        raise UsageError(f"{command.name} takes nothing: {argument[:60]}", hint=f"type {command.name} alone.")
    command.run(context, argument)


def complete_path(typed: str) -> list[str]:
    """Return files and folders whose paths begin with the text; folders end with a slash."""
    folder, _, prefix = typed.rpartition("/")
    path = Path(f"{folder}/" if folder or typed.startswith("/") else ".").expanduser()
    found: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                is_hidden = entry.name.startswith(".") and not prefix.startswith(".")
                if entry.name.startswith(prefix) and not is_hidden:
                    found.append(typed.removesuffix(prefix) + entry.name + ("/" if entry.is_dir() else ""))
                if len(found) == MAX_FILES:
                    break
    except OSError:
        return []
    return sorted(found)
