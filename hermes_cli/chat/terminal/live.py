"""The bottom of the terminal: lines for good, and below them some that are drawn again until they are final."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TextIO

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"  # a terminal that knows it shows all in between at once
_CUT, _WRAP = "\x1b[?7l", "\x1b[?7h"  # a line that is too long is cut, so that rows can be counted


class LiveRegion:
    """Draws on one terminal. Without the means to move in it, only what is final is shown."""

    def __init__(self, console: Console, out: TextIO) -> None:
        """Nothing was drawn yet, and the cursor is at the beginning of a line.

        Args:
            console: what turns styles into colours; knows the terminal's size.
            out: the terminal.

        `moves` is whether anything can be drawn again.
        """
        self._console, self._out = console, out
        self.moves = out.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"} and not console.legacy_windows
        self._drawn = ""
        self._rows = 0

    @property
    def width(self) -> int:
        """Columns of the terminal, as it is now."""
        return max(self._console.width, 1)

    @property
    def height(self) -> int:
        """Rows that can be drawn again: one less than the terminal has."""
        return max(self._console.height - 1, 1)

    def paint(self, final: Sequence[Text], live: Sequence[Text] = ()) -> None:
        """Print lines for good in place of what was drawn, and draw others below."""
        live = live[-self.height :] if self.moves else ()
        drawn = self._coded(live)
        if not final and drawn == self._drawn and len(live) == self._rows:
            return
        parts = [
            self._erasing(),
            *([self._coded(final), "\n"] if final else []),
            *([_CUT, drawn, _WRAP] if live else []),
        ]
        text = "".join(parts)
        self._write(f"{_BEGIN}{text}{_END}" if self.moves else text)
        self._drawn, self._rows = drawn, len(live)

    def _erasing(self) -> str:
        if not self._rows:
            return ""
        up = f"\x1b[{self._rows - 1}A" if self._rows > 1 else ""
        return f"\r{up}\x1b[J"

    def _coded(self, lines: Sequence[Text]) -> str:
        if not lines:
            return ""
        with self._console.capture() as capture:
            self._console.print(Text("\n").join(lines), end="", soft_wrap=True)
        return capture.get()

    def _write(self, text: str) -> None:
        encoding = self._out.encoding or "utf-8"
        self._out.write(text.encode(encoding, "replace").decode(encoding))
        self._out.flush()
