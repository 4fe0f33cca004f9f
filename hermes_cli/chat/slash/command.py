"""What a command is, and how a line is read as one."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hermes_cli.chat.repl_context import ReplContext

ESCAPED = "//"  # how a message begins that begins with a slash


@dataclass(frozen=True)
class SlashCommand:
    """A command.

    Attributes:
        name: with its slash.
        usage: what may follow it.
        summary: what it does, in one line.
        run: does it; what followed the name is its second argument, without blanks around it.
    """

    name: str
    usage: str
    summary: str
    run: Callable[[ReplContext, str], None]


def is_command(line: str) -> bool:
    """Whether a line is a command and not a message: paths and comments of programs are none."""
    name = line.split(maxsplit=1)[0] if line.strip() else ""
    return line.startswith("/") and not line.startswith(ESCAPED) and "/" not in name[1:] and name[1:].isalpha()


def message_of(line: str) -> str:
    """A line that is no command, as it was meant."""
    return line.removeprefix("/") if line.startswith(ESCAPED) else line


def run(scene: ReplContext, line: str, commands: Mapping[str, SlashCommand]) -> None:
    """Do what a line says.

    Raises:
        UsageError: there is no such command, or what follows it makes no sense.
        HermesError: it cannot be done.
    """
    name, _, rest = line.strip().partition(" ")
    command = commands.get(name.lower())
    if command is None:
        near = difflib.get_close_matches(name.lower(), commands, 2)
        hint = f"did you mean {' or '.join(near)}? /help lists them." if near else "/help lists them."
        raise UsageError(f"there is no command {name}.", hint=f"{hint} A message that begins so: /{name} …")
    command.run(scene, rest.strip())


def nothing_more(rest: str, name: str) -> None:
    """Refuse what follows a command that takes nothing.

    Raises:
        UsageError: something follows.
    """
    if rest:
        raise UsageError(f"{name} takes nothing: {rest[:60]}", hint=f"type {name} alone.")
