"""Reasoning while it is written: plain text, dim, folded to one line when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from hermes_cli.console import CONTROL

if TYPE_CHECKING:
    from collections.abc import Iterator

STYLE = Style(dim=True, italic=True)


class ReasoningText:
    """A text that is shown as it comes. What left the screen at its top is final."""

    def __init__(self) -> None:
        self._left = ""  # what can still be drawn again
        self._pieces: list[str] = []
        self.overflowed = False

    def feed(self, piece: str) -> None:
        """Add a piece; costs nothing before lines are asked for."""
        self._pieces.append(piece.translate(CONTROL))

    def lines(self, width: int, height: int) -> tuple[list[Text], list[Text]]:
        """Lines that leave at the top, given out once, and those that fit `height`."""
        self._left += "".join(self._pieces).expandtabs(4)
        if not self.overflowed:
            self._left = self._left.lstrip("\n")
        self._pieces.clear()
        rows = list(rows_of(self._left.rstrip(), width))
        leaving = max(len(rows) - height, 0)
        self._left = self._left[sum(map(len, rows[:leaving])) :]
        self.overflowed |= leaving > 0
        lines = [Text(row.rstrip(), STYLE) for row in rows]
        return lines[:leaving], lines[leaving:]


def folded(seconds: float, tokens: int = 0) -> Text:
    """The line that stands for reasoning that is over."""
    counted = f" ({tokens:,} tokens)" if tokens else ""
    return Text(f"∴ thought for {seconds:.1f} s{counted}", "dim")


def rows_of(text: str, width: int) -> Iterator[str]:
    """A text as rows that are no wider, broken between words where that can be; joined, they are the text."""
    row, filled = "", 0
    for line in text.splitlines(keepends=True) if "\n" in text else [text]:
        for word in _words(line, width):
            taken = cell_len(word.rstrip())
            if row and filled + taken > width:
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
    """Words with the blanks behind them, the longest in parts."""
    start = 0
    for at in range(1, len(line) + 1):
        ends = at == len(line) or (line[at - 1] == " " and line[at] != " ")
        if ends or (line[at - 1] != " " and cell_len(line[start:at]) >= max(width - 1, 1)):
            yield line[start:at]
            start = at
