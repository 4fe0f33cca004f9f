"""The registry of slash commands, /help, and reading a typed line as a command or as a message."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.errors import UsageError
from hermes_cli.text_layout import wrap

if TYPE_CHECKING:
    from hermes_cli.chat.repl import ReplContext

    Run = Callable[[ReplContext, str], None]
    Complete = Callable[[ReplContext, str], Iterable[str]]

ESCAPE = "//"  # beginning of a message that begins with a slash
QUOTES = '"""'
MAX_FILES = 500  # completions from one folder
KEYS = (
    ("Enter", "send"),
    ("Alt-Enter, Ctrl-J", "a new line; so does pasting several"),
    ('"""', "begins a text of several lines, and ends it"),
    ("Ctrl-G", "write in your editor"),
    ("Ctrl-R, Up", "what you typed before"),
    ("Ctrl-C", "stop the answer and keep what came; clear the line"),
    ("Ctrl-Z", "back to the shell; fg goes on"),
    ("Ctrl-D", "leave"),
)


@dataclass(frozen=True)
class SlashCommand:
    """A command."""

    name: str  # with its slash
    usage: str  # its argument, as /help shows it; empty if it takes none
    summary: str  # what it does, in one line
    run: Run  # takes the argument without blanks around it
    complete: Complete  # returns what an argument that is being typed can become


COMMANDS: dict[str, SlashCommand] = {}
# What other programs call them: Ollama, aider, chat apps.
ALIASES = {"/clear": "/new", "/reset": "/new", "/exit": "/bye", "/quit": "/bye", "/?": "/help", "/sessions": "/list"}
LEAVING = frozenset({"exit", "quit"})  # words that alone on a line mean to leave, as in shells


def slash_command(name: str, usage: str, summary: str, complete: Complete = lambda *_: ()) -> Callable[[Run], Run]:
    """Register the function below as a command; parameters are those of `SlashCommand`."""

    def register(run: Run) -> Run:
        COMMANDS[name] = SlashCommand(name, usage, summary, run, complete)
        return run

    return register


@slash_command("/help", "", "this list")
def _help(context: ReplContext, _argument: str) -> None:
    commands = [(f"{command.name} {command.usage}".rstrip(), command.summary) for command in COMMANDS.values()]
    _print_columns(context, commands)
    context.print()
    _print_columns(context, KEYS)


def _print_columns(context: ReplContext, rows: Sequence[tuple[str, str]]) -> None:
    """Print two columns side by side if they fit, else one below the other."""
    left_width = max(len(left) for left, _ in rows) + 2
    columns = shutil.get_terminal_size().columns
    fits = left_width + max(len(right) for _, right in rows) <= columns
    for left, right in rows:
        below = "\n".join(wrap(f"    {right}", columns))
        context.print(f"{left:{left_width}}{right}" if fits else f"{left}\n{below}")


def run_command(context: ReplContext, line: str) -> None:
    """Run the command of a line; raise UsageError if there is no such command, or its argument is invalid."""
    name, _, argument = line.strip().partition(" ")
    argument = argument.strip()
    command = COMMANDS.get(ALIASES.get(name.lower(), name.lower()))
    if command is None:
        near = difflib.get_close_matches(name.lower(), COMMANDS, 2)
        hint = f"did you mean {' or '.join(near)}? /help lists them." if near else "/help lists them."
        raise UsageError(f"there is no command {name}.", hint=f"{hint} A message that begins so: /{name} …")
    if argument and not command.usage:
        raise UsageError(f"{command.name} takes no argument: {argument[:60]}", hint=f"type {command.name} alone.")
    command.run(context, argument)


def is_command(line: str) -> bool:
    """Return whether a line is a command; paths and comments of programs are messages."""
    name = line.split(maxsplit=1)[0] if line.strip() else ""
    if name in ALIASES:
        return True
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


def complete_path(typed: str) -> list[str]:
    """Return files and folders whose paths begin with the text; folders end with a slash."""
    folder, _, prefix = typed.rpartition("/")
    paths: list[str] = []
    try:
        path = Path(f"{folder}/" if folder or typed.startswith("/") else ".").expanduser()
        with os.scandir(path) as entries:
            for entry in entries:
                is_hidden = entry.name.startswith(".") and not prefix.startswith(".")
                if entry.name.startswith(prefix) and not is_hidden:
                    paths.append(typed.removesuffix(prefix) + entry.name + ("/" if entry.is_dir() else ""))
                if len(paths) == MAX_FILES:
                    break
    except (OSError, RuntimeError, ValueError):  # also a user or a name that cannot be
        return []
    return sorted(paths)
