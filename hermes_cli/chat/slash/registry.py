"""All commands, and those about commands."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from hermes_cli.chat.slash import files, tools, turns
from hermes_cli.chat.slash import settings as ways
from hermes_cli.chat.slash.command import SlashCommand, nothing_more

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def _help(scene: ReplContext, rest: str) -> None:
    nothing_more(rest, "/help")
    _columns(scene, [(f"{one.name} {one.usage}".rstrip(), one.summary) for one in COMMANDS.values()])
    scene.show()
    _columns(scene, KEYS)


def _columns(scene: ReplContext, rows: Sequence[tuple[str, str]]) -> None:
    """What to type, and what it does: beside it, where that fits."""
    room = shutil.get_terminal_size().columns
    wide = max(len(left) for left, _ in rows) + 2
    beside = wide + max(len(right) for _, right in rows) <= room
    for left, right in rows:
        scene.show(f"{left:{wide}}{right}" if beside else f"{left}\n    {right}")


def _bye(scene: ReplContext, rest: str) -> None:
    nothing_more(rest, "/bye")
    scene.over = True


_HELP = SlashCommand("/help", "", "this list", _help)
_BYE = SlashCommand("/bye", "", "leave", _bye)
_LISTED = (_HELP, *ways.COMMANDS, *tools.COMMANDS, *files.COMMANDS, *turns.COMMANDS, _BYE)
COMMANDS = {one.name: one for one in _LISTED}
