"""All slash commands, and /help and /bye."""

from __future__ import annotations

import shutil
from functools import partial
from typing import TYPE_CHECKING

from hermes_cli.chat.slash import files, settings, turns
from hermes_cli.chat.slash.command import SlashCommand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from hermes_cli.chat.repl_context import ReplContext

KEYS = (
    ("Enter", "send"),
    ("Alt-Enter, Ctrl-J", "a new line; so does pasting several"),
    ('"""', "begins a text of several lines, and ends it"),
    ("Ctrl-G", "write in your editor"),
    ("Ctrl-R, Up", "what you typed before"),
    ("Ctrl-C", "stop the answer and keep what came; clear the line"),
    ("Ctrl-D", "leave"),
)


def completions(context: ReplContext) -> Mapping[str, Callable[[str], Iterable[str]]]:
    """Return a function for each command that completes its argument."""
    return {command.name: partial(command.complete, context) for command in COMMANDS.values()}


def _help(context: ReplContext, _argument: str) -> None:
    _print_columns(
        context, [(f"{command.name} {command.usage}".rstrip(), command.summary) for command in COMMANDS.values()]
    )
    context.print()
    _print_columns(context, KEYS)


def _print_columns(context: ReplContext, rows: Sequence[tuple[str, str]]) -> None:
    """Print two columns side by side if they fit, else one below the other."""
    left_width = max(len(left) for left, _ in rows) + 2
    fits = left_width + max(len(right) for _, right in rows) <= shutil.get_terminal_size().columns
    for left, right in rows:
        context.print(f"{left:{left_width}}{right}" if fits else f"{left}\n    {right}")


def _bye(context: ReplContext, _argument: str) -> None:
    context.is_over = True


_ALL = (
    SlashCommand("/help", "", "this list", _help),
    *settings.COMMANDS,
    *files.COMMANDS,
    *turns.COMMANDS,
    SlashCommand("/bye", "", "leave", _bye),
)
COMMANDS = {command.name: command for command in _ALL}
