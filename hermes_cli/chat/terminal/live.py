"""The live region at the bottom of the terminal, and two things that are drawn in it: reasoning, and a spinner."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, TextIO

from rich.cells import cell_len
from rich.spinner import Spinner
from rich.style import Style
from rich.text import Text

from hermes_cli.console import CONTROL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

REASONING_STYLE = Style(dim=True, italic=True)
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
        parts = [
            self._erase(),
            *([self._encoded(final), "\n"] if final else []),
            *([_NO_WRAP, drawn, _WRAP] if live else []),
        ]
        text = "".join(parts)
        encoding = self._out.encoding or "utf-8"
        text = (f"{_BEGIN}{text}{_END}" if self.can_redraw else text).encode(encoding, "replace").decode(encoding)
        self._out.write(text)
        self._out.flush()
        self._drawn, self._rows = drawn, len(live)

    def _erase(self) -> str:
        if not self._rows:
            return ""
        up = f"\x1b[{self._rows - 1}A" if self._rows > 1 else ""
        return f"\r{up}\x1b[J"

    def _encoded(self, lines: Sequence[Text]) -> str:
        if not lines:
            return ""
        with self._console.capture() as capture:
            self._console.print(Text("\n").join(lines), end="", soft_wrap=True)
        return capture.get()


class ReasoningText:
    """Reasoning as it is generated: plain, dim. Lines that left the screen at its top are final."""

    def __init__(self) -> None:
        self._text = ""  # of the lines that can be redrawn
        self._pieces: list[str] = []
        self.overflowed = False

    def feed(self, piece: str) -> None:
        """Add a piece."""
        self._pieces.append(piece.translate(CONTROL))

    def lines(self, width: int, height: int) -> tuple[list[Text], list[Text]]:
        """Return the lines that leave at the top, once, and those that fit `height`."""
        self._text += "".join(self._pieces).expandtabs(4)
        if not self.overflowed:
            self._text = self._text.lstrip("\n")
        self._pieces.clear()
        rows = list(wrapped_rows(self._text.rstrip(), width))
        leaving = max(len(rows) - height, 0)
        self._text = self._text[sum(map(len, rows[:leaving])) :]
        self.overflowed |= leaving > 0
        lines = [Text(row.rstrip(), REASONING_STYLE) for row in rows]
        return lines[:leaving], lines[leaving:]


def folded_reasoning(seconds: float, tokens: int = 0) -> Text:
    """Return the line that replaces finished reasoning."""
    count = f" ({tokens:,} tokens)" if tokens else ""
    return Text(f"∴ thought for {seconds:.1f} s{count}", "dim")


def wrapped_rows(text: str, width: int) -> Iterator[str]:
    """Yield a text as rows of at most `width` columns, broken between words if possible. Joined, they are the text."""
    row, filled = "", 0
    for line in text.splitlines(keepends=True) if "\n" in text else [text]:
        for word in _words(line, width):
            columns = cell_len(word.rstrip())
            if row and filled + columns > width:
                yield row
                row, filled = "", 0
            row += word
            filled += cell_len(word.rstrip("\n"))
        if line.endswith("\n"):
            yield row
            row, filled = "", 0
    if row:
        yield row


def _words(line: str, width: int) -> Iterator[str]:
    """Yield words with the blanks behind them, the longest in parts."""
    start = 0
    for at in range(1, len(line) + 1):
        ends = at == len(line) or (line[at - 1] == " " and line[at] != " ")
        if ends or (line[at - 1] != " " and cell_len(line[start:at]) >= max(width - 1, 1)):
            yield line[start:at]
            start = at


class WaitSpinner:
    """A spinner with a label and the seconds since it began."""

    def __init__(self, label: str) -> None:
        self._label, self._since, self._spinner = label, time.monotonic(), Spinner("dots", style="dim")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render one line."""
        self._spinner.update(text=Text(f"{self._label}{time.monotonic() - self._since:.0f} s", "dim"))
        yield self._spinner
