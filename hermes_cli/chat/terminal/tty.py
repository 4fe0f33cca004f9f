"""The terminal itself: the live region at its bottom, and the clipboard."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from rich.text import Text

from hermes_cli.errors import HermesError

if TYPE_CHECKING:
    from rich.console import Console

MAX_OSC52 = 74_994  # bytes that terminals take at once (xterm's limit of 100,000 bytes of base64)
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"  # synchronized output: a terminal that knows it shows all at once
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"  # a line that is too long is cut, so that rows can be counted


class LiveRegion:
    """Prints final lines, and redraws the lines below them until they are final.

    `can_redraw` tells whether the terminal can move its cursor; without it only final lines are shown.
    """

    def __init__(self, console: Console, out: TextIO) -> None:
        """Begin with nothing drawn, the cursor at the beginning of a line."""
        self._console, self._out = console, out
        is_dumb = os.environ.get("TERM") in {"dumb", "unknown"}
        self.can_redraw = out.isatty() and not is_dumb and not console.legacy_windows
        self._drawn = ""
        self._rows = 0

    @property
    def width(self) -> int:
        """Columns of the terminal now."""
        return max(self._console.width, 1)

    @property
    def height(self) -> int:
        """Rows that can be redrawn: one less than the terminal has."""
        return max(self._console.height - 1, 1)

    def paint(self, final: Sequence[Text], live: Sequence[Text] = ()) -> None:
        """Print final lines in place of what was drawn, and draw live ones below."""
        live = live[-self.height :] if self.can_redraw else ()
        drawn = self._encoded(live)
        if not final and drawn == self._drawn and len(live) == self._rows:
            return
        text = ""
        if self._rows:
            up = f"\x1b[{self._rows - 1}A" if self._rows > 1 else ""
            text = f"\r{up}\x1b[J"  # back to the first row, and erase
        if final:
            text += f"{self._encoded(final)}\n"
        if live:
            text += f"{_NO_WRAP}{drawn}{_WRAP}"
        if self.can_redraw:
            text = f"{_BEGIN}{text}{_END}"
        encoding = self._out.encoding or "utf-8"
        self._out.write(text.encode(encoding, "replace").decode(encoding))
        self._out.flush()
        self._drawn, self._rows = drawn, len(live)

    def _encoded(self, lines: Sequence[Text]) -> str:
        if not lines:
            return ""
        with self._console.capture() as capture:
            self._console.print(Text("\n").join(lines), end="", soft_wrap=True)
        return capture.get()


def copy_to_clipboard(text: str) -> str:
    """Copy a text to the system's clipboard, else by the terminal (OSC 52, also over ssh); say which it was."""
    import pyperclip  # noqa: PLC0415 - it looks for programs, and few conversations copy

    try:
        pyperclip.copy(text)
    except pyperclip.PyperclipException:
        raw = text.encode("utf-8", "replace")
        if len(raw) > MAX_OSC52 or not sys.stdout.isatty():
            raise HermesError(
                "no clipboard can hold this much.", hint="write it to a file: /export md answer.md"
            ) from None
        sys.stdout.write(f"\x1b]52;c;{base64.b64encode(raw).decode()}\a")
        sys.stdout.flush()
        return "by the terminal, if it allows that"
    return "to the clipboard"
