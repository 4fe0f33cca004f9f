"""Text and tables laid out for the width of a terminal, in terminal columns.

No number, unit, quantization or outcome is ever cut. Text breaks between words, but not inside a command to type. A
table that is too wide loses its least important columns, then wraps its one column of prose, and at last becomes one
block of lines per row, without those cells of the least important columns that no line has room for.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

UNLIMITED = sys.maxsize
NARROWEST_PROSE = 24  # columns; prose in less is harder to read than below its row
GAP = "  "
_COMMAND = re.compile(r"(?<=[:·] )(?<!^error: )hermes [^;·()\n]+")
_VALUE = re.compile(r"""(?<!\w)(["'])[^"'\n]{1,24}\1(?!\w)""")  # to type, as "M4 Max 64G"
_UNIT = re.compile(r"(?<=\d) (?=(?:s|min|h|B|M|k?B|[MGT]i?B|GB/s|tokens?(?:/s)?|%|points?|bits?|cores?|files?)(?!\w))")
_NO_BREAK = "\u00a0"
_NAME = re.compile(r"(?!\w+://)\w\S+")  # of a model, a repository, a file


def wrap(text: str, width: int, hanging: str = "") -> list[str]:
    """Return the lines of a text, broken between words; all but the first begin with `hanging`.

    A number and its unit, a short value in quotes, and a command to type are not broken; nor is a no-break space, which
    becomes a plain one. A name that is longer than a line breaks after one of its `/-._:`; an address or a path, which
    is copied, does not.
    """
    if len(text) <= width and "\n" not in text:
        return [text.replace(_NO_BREAK, " ")]
    lines: list[str] = []
    for paragraph in text.split("\n"):
        indent = paragraph[: len(paragraph) - len(paragraph.lstrip(" "))]
        typed = {word for command in _COMMAND.findall(paragraph) for word in command.split()}
        kept = _VALUE.sub(lambda match: match[0].replace(" ", _NO_BREAK), _UNIT.sub(_NO_BREAK, paragraph))
        kept = _COMMAND.sub(lambda match: _unbroken(match[0], width), kept)
        wrapped = textwrap.wrap(
            kept,
            max(width, 1),
            subsequent_indent=hanging or indent,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
            drop_whitespace=True,
        )
        for line in wrapped or [""]:
            is_name = len(line) > width and _NAME.fullmatch(word := line.strip()) and word not in typed
            lines += _broken_name(line, width, hanging or indent) if is_name else [line.replace(_NO_BREAK, " ")]
    return lines


def _broken_name(line: str, width: int, hanging: str) -> list[str]:
    """Return the lines of one long name with the blanks before it."""
    lines = []
    while len(line) > width and (end := max(line.rfind(sign, len(hanging) + 1, width) for sign in "/-._:")) > 0:
        lines.append(line[: end + 1])
        line = hanging + line[end + 1 :]
    return [*lines, line]


def cell_width(text: str) -> int:
    """Return the columns that a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415 - not every command prints a text

    return cell_len(text)


def command_lines(command: str, width: int) -> list[str]:
    """Return a command to type, on several lines as a shell reads them where one is too short."""
    if len(command) <= width:
        return [command]
    indent = command[: len(command) - len(command.lstrip(" "))] + GAP
    lines = textwrap.wrap(
        command, max(width - 2, 1), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]


def _unbroken(command: str, width: int) -> str:
    """Return a command without a place to break at, if a line has room for it."""
    typed = command.rstrip()
    return typed.replace(" ", _NO_BREAK) + command[len(typed) :] if len(typed) < width - 2 * len(GAP) else command


@dataclass(frozen=True)
class Table:
    """A table of text, and the order in which its columns give way on a narrow terminal."""

    # titles, rows: as many cells in each row as there are titles
    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[str] = ()  # titles of columns that align to the right
    optional: Sequence[str] = ()  # titles of columns that leave where there is no room, the last one first
    prose: str | None = None  # title of the column whose text wraps at words
    styles: Sequence[str] = ()  # a Rich style for each row; none for rows beyond them
    heading: bool = True  # whether the titles are shown

    def lines(self, width: int = UNLIMITED) -> tuple[list[tuple[str, str]], list[str]]:
        """Return the lines with their styles, and the titles of the columns that left.

        Without a limit every column stays, also those without any content: programs read them.
        """
        columns = list(range(len(self.titles)))
        left: list[str] = []
        prose_width = 0
        if width < UNLIMITED:
            used = columns = [at for at in columns if any(row[at] for row in self.rows)] or columns
            for title in reversed(self.optional):
                at = self.titles.index(title)
                if at in columns and self._needed(columns) > width:
                    columns = [other for other in columns if other != at]
                    left.append(title)
            if self._needed(columns) > width:
                prose_width = self._room_for_prose(columns, width)
                if not prose_width:
                    return list(self._blocks(used, width)), []
        return list(self._table(columns, prose_width)), left

    @cached_property
    def _widths(self) -> list[int]:
        titles = self.titles if self.heading else [""] * len(self.titles)
        return [max(map(cell_width, column)) for column in zip(titles, *self.rows, strict=True)]

    def _needed(self, columns: Sequence[int]) -> int:
        return sum(self._widths[at] for at in columns) + len(GAP) * (len(columns) - 1)

    def _room_for_prose(self, columns: Sequence[int], width: int) -> int:
        """Return the columns that remain for the prose; 0 if there is none, or too little room."""
        if self.prose is None or (at := self.titles.index(self.prose)) not in columns:
            return 0
        room = width - (self._needed(columns) - self._widths[at])
        return room if room >= NARROWEST_PROSE else 0

    def _table(self, columns: Sequence[int], prose_width: int) -> Iterator[tuple[str, str]]:
        def line(cells: dict[int, str]) -> str:
            padded = []
            for at in columns:
                cell = cells.get(at, "")
                width = prose_width if prose_width and self.titles[at] == self.prose else self._widths[at]
                space = " " * (width - cell_width(cell))
                padded.append(space + cell if self.titles[at] in self.right else cell + space)
            return GAP.join(padded).rstrip()

        if self.heading and any(self.titles):
            yield line(dict(enumerate(self.titles))), "bold"
        prose = self.titles.index(self.prose) if prose_width and self.prose is not None else -1
        for row, style in zip(self.rows, self._row_styles(), strict=True):
            first, *more = wrap(row[prose], prose_width) if prose >= 0 else [""]
            yield line(dict(enumerate(row)) | {prose: first}), style
            for text in more:
                yield line({prose: text}), style

    def _blocks(self, columns: Sequence[int], width: int) -> Iterator[tuple[str, str]]:
        """Yield each row as a line of its first cells, and the others below with their titles."""
        first = 1 if self.titles[columns[0]] else 2  # a cell without a title says little alone
        for row, style in zip(self.rows, self._row_styles(), strict=True):
            for line in wrap(GAP.join(row[at] for at in columns[:first] if row[at]), width, GAP):
                yield line, style or "bold"
            below = ""
            for at in columns[first:]:
                if not row[at] or (self.titles[at] in self.optional and len(GAP + self.titles[at] + row[at]) >= width):
                    continue
                item = f"{self.titles[at]} {row[at]}" if self.titles[at] and self.heading else row[at]
                if below and len(below) + len(GAP) + len(item) > width:
                    yield below, style
                    below = ""
                if not below and len(item) + len(GAP) > width:
                    for line in wrap(GAP + item, width, GAP * 2):
                        yield line, style
                else:
                    below += GAP + item
            if below:
                yield below, style

    def _row_styles(self) -> list[str]:
        return [*self.styles, *[""] * (len(self.rows) - len(self.styles))]
