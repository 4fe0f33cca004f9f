"""The one place that writes to the terminal.

Data goes to standard output, everything said *about* it (progress, tool calls, warnings, errors) to standard error,
so that a pipe carries data only. Three voices: human, JSON (one document on standard output) and quiet (data only).
Colour and animation need a terminal and yield to NO_COLOR.
"""

from __future__ import annotations

import json
import os
import sys
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.console import Console as RichConsole

    from hermes_cli.errors import HermesError


# Text of a model or a tool must not move the cursor, change colours or answer for the user: control characters are
# shown as U+FFFD, but for line breaks and tabs.
_CONTROL = {code: "\ufffd" for code in [*range(32), *range(127, 160)] if chr(code) not in "\n\t"}


class Voice(Enum):
    """Who is listening."""

    HUMAN = "human"
    JSON = "json"
    QUIET = "quiet"


class Console:
    """Where commands print. `color=None` means: only on a terminal, and not when NO_COLOR is set."""

    def __init__(self, voice: Voice = Voice.HUMAN, *, color: bool | None = None, out: TextIO | None = None) -> None:
        self.voice = voice
        self.color = color
        self.out = out or sys.stdout
        self._line_open = False

    @cached_property
    def _rich(self) -> RichConsole:
        from rich.console import Console as RichConsole  # noqa: PLC0415 - costs 50 ms, not every run needs it

        off = self.color is False or (self.color is None and bool(os.environ.get("NO_COLOR")))
        return RichConsole(
            stderr=True, no_color=off, force_terminal=self.color or None, highlight=False, soft_wrap=True
        )

    def text(self, piece: str) -> None:
        """A piece of the answer, shown at once. Silent in JSON, whose document comes at the end."""
        if self.voice is Voice.JSON or not piece:
            return
        self.out.write(piece.translate(_CONTROL) if self.out.isatty() else piece)
        self.out.flush()
        self._line_open = not piece.endswith("\n")

    def end_line(self) -> None:
        """Finish the line that `text` left open, if any."""
        if self._line_open:
            self.text("\n")

    def document(self, value: dict[str, Any]) -> None:
        """The result in JSON; nothing in the other voices."""
        if self.voice is Voice.JSON:
            self.out.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
            self.out.flush()

    def note(self, message: str, *, style: str = "dim") -> None:
        """A line about what is going on, on standard error, for humans only."""
        if self.voice is Voice.HUMAN:
            self._aside(message, style)

    def warn(self, message: str) -> None:
        """A line that must be seen even when quiet."""
        self._aside(message, "yellow")

    def error(self, error: HermesError) -> None:
        """What is wrong, and what to type next."""
        self._aside(f"error: {error.message}", "bold red")
        self._aside(f"  next: {error.hint}", "")

    def ask(self, question: str) -> str:
        """Ask on the terminal and read one line from it, even when standard input is a pipe.

        Raises:
            OSError: there is no terminal to ask on.
        """
        self.end_line()
        device = "CONIN$" if sys.platform == "win32" else os.ctermid()
        with open(device, encoding="utf-8") as terminal:  # noqa: PTH123 - a device, not a path of ours
            self._rich.print(question.translate(_CONTROL), end="", markup=False, style="bold")
            return terminal.readline().strip()

    def working(self, message: str) -> AbstractContextManager[object]:
        """A spinner on standard error while something slow runs; still without a terminal."""
        if self.voice is Voice.HUMAN and sys.stderr.isatty():
            return self._rich.status(message, spinner="dots")
        from contextlib import nullcontext  # noqa: PLC0415 - beside its only use

        return nullcontext()

    def _aside(self, message: str, style: str) -> None:
        if self.out.isatty():
            self.end_line()
        self._rich.print(message.translate(_CONTROL), style=style, markup=False)
