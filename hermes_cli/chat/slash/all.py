"""All commands, and those about commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_cli.chat.slash import files, tools, turns, ways
from hermes_cli.chat.slash.command import Command, nothing_more

if TYPE_CHECKING:
    from hermes_cli.chat.scene import Scene

KEYS = (
    ("Enter", "send"),
    ("Alt-Enter, Ctrl-J", "a new line; so does pasting several"),
    ('"""', "begins a text of several lines, and ends it"),
    ("Ctrl-G", "write in your editor"),
    ("Ctrl-R, Up", "what you typed before"),
    ("Ctrl-C", "stop the answer and keep what came; clear the line"),
    ("Ctrl-D", "leave"),
)


def _help(scene: Scene, rest: str) -> None:
    nothing_more(rest, "/help")
    scene.console.table(["command", "", "does"], [[one.name, one.usage, one.summary] for one in COMMANDS.values()])
    scene.show()
    scene.console.table(["key", "does"], [list(key) for key in KEYS])


def _bye(scene: Scene, rest: str) -> None:
    nothing_more(rest, "/bye")
    scene.over = True


_HELP = Command("/help", "", "this list", _help)
_BYE = Command("/bye", "", "leave", _bye)
_LISTED = (_HELP, *ways.COMMANDS, *tools.COMMANDS, *files.COMMANDS, *turns.COMMANDS, _BYE)
COMMANDS = {one.name: one for one in _LISTED}
