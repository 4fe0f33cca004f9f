"""Markdown that is still being written: what cannot change any more is given out, the rest can be drawn again.

A block is final once another one begins on a whole line, an item of a list once the next one does, a line of code once
it is whole. Only what is not final is parsed again.

    pieces ──► tail (not final) ──► parse ──► final blocks ──► lines to print for good
                                         └──► open block ───► lines to draw again
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.text import Text

from hermes_cli.chat.terminal.highlight import CodeHighlighter
from hermes_cli.chat.terminal.markdown_blocks import (
    BlockRenderer,
    code,
    edge,
    expanded,
    first_number,
    folded,
    language,
    parse,
)
from hermes_cli.console import CONTROL

if TYPE_CHECKING:
    from markdown_it.tree import SyntaxTreeNode
    from rich.console import Console

_LISTS = {"bullet_list", "ordered_list"}
TAB_STOP = 4  # columns, as CommonMark says
_MARKS = re.compile(r"\d{1,9}[.)]?|[\s\-=#*+>`~|:_]*")  # a line that may become something else, letter by letter


class MarkdownStream:
    """A text that comes in pieces. Lines that are final are as they are, however the pieces were cut."""

    def __init__(self, console: Console) -> None:
        """Nothing was written yet; `console` tells how wide letters are."""
        self._console = console
        self._tail = ""  # the source from the first open block on
        self._pieces: list[str] = []
        self._begun = False  # something is above: the next block keeps a distance
        self._list: SyntaxTreeNode | None = None  # of which the tail is the rest
        self._number: int | None = None  # of the first item in the tail
        self._code: _OpenCode | None = None

    def feed(self, piece: str) -> None:
        """Add a piece; costs nothing before lines are asked for."""
        self._pieces.append(piece.translate(CONTROL))

    def lines(self, width: int, height: int) -> tuple[list[Text], list[Text]]:
        """Lines that are final, given out once, and those of the open block, of which the last ones fit `height`.

        Code gives lines out only as they leave at the top, since its colours may still change.
        """
        final = self._settle(width)
        if self._code:
            gone, live = self._code.lines(width, height)
            return final + gone, live
        source = self._tail
        unfinished = source[source.rfind("\n") + 1 :]
        if _MARKS.fullmatch(unfinished.strip()):
            source = source.removesuffix(unfinished)
        blocks = parse(source)
        live = [row for line in self._rendered(blocks, source, width) for row in folded(line, width)]
        if blocks and blocks[-1].type == "fence":  # of which the first line is being written
            live.pop()
        return final, live

    def finish(self, width: int) -> list[Text]:
        """The lines that are left, as the text has ended."""
        self._pieces.append("\n")  # so that the last line is whole
        final = self._settle(width)
        final += self._code.end() if self._code else self._rendered(parse(self._tail), self._tail, width)
        self._tail, self._code, self._list = "", None, None
        return final

    def _settle(self, width: int) -> list[Text]:
        """Take out of the tail what is final."""
        self._tail += "".join(self._pieces)
        self._pieces.clear()
        final: list[Text] = []
        while True:
            if self._code:
                closed, self._tail = self._code.take(self._tail)
                if not closed:
                    return final
                final += self._code.end()
                self._code = None
            blocks = parse(self._tail[: self._tail.rfind("\n") + 1])
            if not blocks:
                self._tail = self._tail[self._tail.rfind("\n") + 1 :]
                return final
            *closed_blocks, last = blocks
            final += self._closed(closed_blocks, width)
            if last.type == "fence":
                self._open_code(last, final)
            else:
                self._cut(self._split_list(last, final, width))
                return final

    def _closed(self, closed: list[SyntaxTreeNode], width: int) -> list[Text]:
        """The lines of blocks that are final."""
        if not closed:
            return []
        lines = self._rendered(closed, self._tail, width)
        self._begun, self._list = True, None
        return lines

    def _rendered(self, blocks: list[SyntaxTreeNode], source: str, width: int) -> list[Text]:
        """Lines of blocks from the beginning of the tail."""
        lines: list[Text] = []
        elements = BlockRenderer(self._console, source, width)
        for at, node in enumerate(blocks):
            goes_on = at == 0 and self._list is not None
            if not goes_on and (self._begun or at):
                lines.append(Text())
            if node.type == "fence":
                lines += code(node)
            else:
                lines += elements.block(node, self._number if goes_on else None)
        return lines

    def _open_code(self, node: SyntaxTreeNode, final: list[Text]) -> None:
        """From here on, lines are code until it is closed; nothing has to parse them."""
        if self._begun:
            final.append(Text())
        self._begun, self._list = True, None
        self._cut(_start(node))
        opening = self._tail[: self._tail.index("\n")]
        self._cut(1)
        self._code = _OpenCode(node, indent=len(opening) - len(opening.lstrip(" ")))

    def _split_list(self, node: SyntaxTreeNode, final: list[Text], width: int) -> int:
        """All items of a list but its last one are final. The line that what is left of a block begins in."""
        if node.type not in _LISTS or len(node.children) == 1:
            return _start(node)
        *whole, last = node.children
        first = self._number if self._list else first_number(node)
        if self._begun and self._list is None:
            final.append(Text())
        final += BlockRenderer(self._console, self._tail, width).items(whole, first)
        self._number = None if first is None else first + len(whole)
        self._begun, self._list = True, node
        return _start(last)

    def _cut(self, lines: int) -> None:
        at = 0
        for _ in range(lines):
            at = self._tail.index("\n", at) + 1
        self._tail = self._tail[at:]


class _OpenCode:
    """A block of code at top level whose end was not seen yet."""

    def __init__(self, node: SyntaxTreeNode, indent: int) -> None:
        self._markup, self._indent = node.markup, indent
        self._closing = re.compile(rf" {{0,3}}{re.escape(node.markup[0])}{{{len(node.markup)},}}[ \t]*")
        self._opening: list[Text] = [edge(node.markup, node.info)]
        self._colours = CodeHighlighter(language(node.info))
        self._whole: list[str] = []
        self._partial = ""

    def take(self, text: str) -> tuple[bool, str]:
        """Whether the code ends in the text, and what is left of that: an unfinished line, or what follows the code."""
        at = 0
        while (end := text.find("\n", at)) >= 0:
            line = text[at:end]
            at = end + 1
            if self._closing.fullmatch(line):
                self._partial = ""
                return True, text[at:]
            self._whole.append(self._without_indent(line))
        rest = text[at:]
        self._partial = "" if not rest.strip(f" {self._markup[0]}") else self._without_indent(rest)
        return False, rest

    def lines(self, width: int, height: int) -> tuple[list[Text], list[Text]]:
        """Lines that leave at the top, and those that stay."""
        room = height - len(self._opening)
        source = [*self._whole, *([self._partial] if self._partial else [])]
        leaving, rows = len(source), 0
        while leaving and rows < room:
            leaving -= 1
            rows += len(folded(expanded(source[leaving]), width))
        leaving = min(leaving + (rows > room), len(self._whole))
        shown = self._colours.show(source, leaving)
        gone = shown[:leaving]
        if leaving:
            gone = self._opening + gone
            self._opening = []
            del self._whole[:leaving]
        return gone, [row for line in (*self._opening, *shown[leaving:]) for row in folded(line, width)]

    def end(self) -> list[Text]:
        """The lines that are left, and the one that closes it; a text that ended too early is closed, too."""
        if self._partial:
            self._whole.append(self._partial)
        return [*self._opening, *(self._colours.show(self._whole) if self._whole else []), edge(self._markup)]

    def _without_indent(self, line: str) -> str:
        """A line without the columns of blanks that the code stands behind; a tab may be cut in two."""
        column = at = 0
        while column < self._indent and line[at : at + 1] in {" ", "\t"}:
            column += 1 if line[at] == " " else TAB_STOP - column % TAB_STOP
            at += 1
        return " " * max(column - self._indent, 0) + line[at:]


def _start(node: SyntaxTreeNode) -> int:
    """The line that a block begins in."""
    return node.map[0] if node.map else 0
