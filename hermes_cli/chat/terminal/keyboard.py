"""Messages and commands that the user types, with line editing on a terminal, plainly where there is none.

Importing this is cheap; the line editor is imported with the first line that is read.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from hermes_cli.chat.slash.command import is_open_quote, unquoted
from hermes_cli.chat.terminal.tty import HOW_TO_LEAVE, PROMPT, drop_typed_ahead
from hermes_cli.console import CONTROL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from hermes_cli.chat.terminal.line_editor import LineEditor


class Keyboard:
    """Reads messages and commands."""

    def __init__(
        self,
        history_path: Path,
        status: Callable[[], str],
        completions: Mapping[str, Callable[[str], Iterable[str]]],
        commands: Mapping[str, str],
    ) -> None:
        """Store what the line editor needs.

        Args:
            history_path: file of earlier lines.
            status: returns the line below the prompt.
            completions: by command, a function that takes its typed argument and returns what it can become.
            commands: summaries by name with the slash.
        """
        self._history_path, self._status = history_path, status
        self._completions, self._commands = completions, commands
        self._can_edit = _can_edit()
        self._editor: LineEditor | None = None

    def read(self, default: str = "") -> str | None:
        """Return the next message or command, None if the user leaves. Text in three quotes is never a command.

        Args:
            default: text that the line begins with.
        """
        if not self._can_edit:
            return _read_plainly(default)
        return self._opened_editor.read(default)

    def ask(self, question: str) -> str:
        """Return the line that answers a question; empty after Ctrl-D. What was typed ahead is dropped."""
        drop_typed_ahead()
        *above, last = question.translate(CONTROL).split("\n")
        for line in above:
            print(line)  # noqa: T201 - on the terminal that is typed on
        try:
            return self._opened_editor.ask(last) if self._can_edit else input(last)
        except EOFError:
            return ""

    @property
    def _opened_editor(self) -> LineEditor:
        if self._editor is None:
            from hermes_cli.chat.terminal.line_editor import LineEditor  # noqa: PLC0415 - prompt_toolkit takes 0.1 s

            self._editor = LineEditor(self._history_path, self._status, self._completions, self._commands)
        return self._editor


def _can_edit() -> bool:
    """Return whether there is a terminal that can move its cursor."""
    is_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    return is_terminal and os.environ.get("TERM") not in {"dumb", "unknown"}


def _read_plainly(default: str) -> str | None:
    """Read a line, or several in three quotes, with the terminal's own editing; an empty one takes the default."""
    if default:
        print(f"{default}\n(Enter alone sends this)".translate(CONTROL))  # noqa: T201 - on the same terminal
    lines: list[str] = []
    while not lines or is_open_quote("\n".join(lines)):
        try:
            lines.append(input("  " if lines else PROMPT))
        except EOFError:
            return None
        except KeyboardInterrupt:
            print(f"\n{HOW_TO_LEAVE}")  # noqa: T201 - the same
            lines.clear()
    return unquoted("\n".join(lines)) or default
