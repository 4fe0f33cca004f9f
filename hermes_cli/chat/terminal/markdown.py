"""Markdown that is still being generated: final lines are returned once, the others can be redrawn.

A block is final once another one begins on a complete line, a list item once the next one does, a line of code once it
is complete. Only what is not final is parsed again.

    pieces ──► tail (not final) ──► parse ──► final blocks ──► lines to print
                                         └──► open block ───► lines to redraw
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.text import Text

from hermes_cli.chat.terminal.markdown_blocks import (
    LISTS,
    BlockRenderer,
    CodeHighlighter,
    expand_tabs,
    fence_line,
    first_number,
    parse_blocks,
    wrap_columns,
)
from hermes_cli.console import CONTROL

if TYPE_CHECKING:
    from markdown_it.tree import SyntaxTreeNode
    from rich.console import Console

TAB_STOP = 4  # columns, as CommonMark says
_MARKS = re.compile(r"\d{1,9}[.)]?|[\s\-=#*+>`~|:_]*")  # a line whose meaning the next character may change


class MarkdownStream:
    """Renders a text that comes in pieces. The final lines do not depend on how the pieces were cut."""

    def __init__(self, console: Console) -> None:
        """Begin with no text; `console` knows how wide characters are."""
        self._console = console
        self._tail = ""  # the source from the first open block on
        self._pieces: list[str] = []
        self._has_output = False  # the next block needs an empty line before it
        self._in_list = False  # the tail is the rest of a list
        self._number: int | None = None  # of the first item in the tail
        self._code: _OpenCode | None = None

    def feed(self, piece: str) -> None:
        """Add a piece; it is parsed when lines are asked for."""
        self._pieces.append(piece.translate(CONTROL))

    def lines(self, width: int, height: int) -> tuple[list[Text], list[Text]]:
        """Return new final lines, and those of the open block, of which the last ones fit `height`.

        Lines of code are final only as they leave at the top, since their colours may still change.
        """
        final = self._settle(width)
        if self._code:
            leaving, live = self._code.lines(width, height)
            return final + leaving, live
        source = self._tail
        unfinished = source[source.rfind("\n") + 1 :]
        if _MARKS.fullmatch(unfinished.strip()):
            source = source.removesuffix(unfinished)
        blocks = parse_blocks(source)
        live = [row for line in self._rendered(blocks, source, width) for row in wrap_columns(line, width)]
        if blocks and blocks[-1].type == "fence":  # of which the first line is being written
            live.pop()
        return final, live

    def finish(self, width: int) -> list[Text]:
        """Return the remaining lines at the end of the text."""
        self._pieces.append("\n")  # so that the last line is complete
        final = self._settle(width)
        final += self._code.end() if self._code else self._rendered(parse_blocks(self._tail), self._tail, width)
        self._tail, self._code, self._in_list = "", None, False
        return final

    def _settle(self, width: int) -> list[Text]:
        """Remove from the tail what is final, and return its lines."""
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
            blocks = parse_blocks(self._tail[: self._tail.rfind("\n") + 1])
            if not blocks:
                self._tail = self._tail[self._tail.rfind("\n") + 1 :]
                return final
            *closed_blocks, last = blocks
            if closed_blocks:
                final += self._rendered(closed_blocks, self._tail, width)
                self._has_output, self._in_list = True, False
            if last.type != "fence":
                self._tail = self._tail.split("\n", self._split_list(last, final, width))[-1]
                return final
            if self._has_output:
                final.append(Text())
            self._has_output, self._in_list = True, False
            opening, self._tail = self._tail.split("\n", _start(last) + 1)[-2:]
            self._code = _OpenCode(last, indent=len(opening) - len(opening.lstrip(" ")))

    def _rendered(self, blocks: list[SyntaxTreeNode], source: str, width: int) -> list[Text]:
        """Return the lines of blocks from the beginning of the tail."""
        lines: list[Text] = []
        renderer = BlockRenderer(self._console, source, width)
        for at, node in enumerate(blocks):
            continues_list = at == 0 and self._in_list
            if not continues_list and (self._has_output or at):
                lines.append(Text())
            lines += renderer.block(node, self._number if continues_list else None)
        return lines

    def _split_list(self, node: SyntaxTreeNode, final: list[Text], width: int) -> int:
        """Render all items of a list but its last one; return the line in which the rest of the block begins."""
        if node.type not in LISTS or len(node.children) == 1:
            return _start(node)
        *complete, last = node.children
        first = self._number if self._in_list else first_number(node)
        if self._has_output and not self._in_list:
            final.append(Text())
        final += BlockRenderer(self._console, self._tail, width).items(complete, first)
        self._number = None if first is None else first + len(complete)
        self._has_output = self._in_list = True
        return _start(last)


class _OpenCode:
    """A top-level code block whose end was not seen yet: nothing has to parse its lines."""

    def __init__(self, node: SyntaxTreeNode, indent: int) -> None:
        self._markup, self._indent = node.markup, indent
        self._closing = re.compile(rf" {{0,3}}{re.escape(node.markup[0])}{{{len(node.markup)},}}[ \t]*")
        self._opening: list[Text] = [fence_line(node.markup, node.info)]
        self._highlighter = CodeHighlighter(node.info)
        self._lines: list[str] = []
        self._partial = ""

    def take(self, text: str) -> tuple[bool, str]:
        """Take lines of code; return whether it ends, and the rest: an unfinished line, or what follows the code."""
        *lines, rest = text.split("\n")
        for at, line in enumerate(lines, 1):
            if self._closing.fullmatch(line):
                self._partial = ""
                return True, "\n".join([*lines[at:], rest])
            self._lines.append(self._without_indent(line))
        self._partial = "" if not rest.strip(f" {self._markup[0]}") else self._without_indent(rest)
        return False, rest

    def lines(self, width: int, height: int) -> tuple[list[Text], list[Text]]:
        """Return the lines that leave at the top, and those that stay."""
        room = height - len(self._opening)
        source = [*self._lines, *filter(None, [self._partial])]
        leaving, rows = len(source), 0
        while leaving and rows < room:
            leaving -= 1
            rows += len(wrap_columns(expand_tabs(source[leaving]), width))
        leaving = min(leaving + (rows > room), len(self._lines))
        highlighted = self._highlighter.highlight(source, leaving)
        final = highlighted[:leaving]
        if leaving:
            final = self._opening + final
            self._opening = []
            del self._lines[:leaving]
        return final, [row for line in (*self._opening, *highlighted[leaving:]) for row in wrap_columns(line, width)]

    def end(self) -> list[Text]:
        """Return the remaining lines and the closing fence, also of a text that ended too early."""
        if self._partial:
            self._lines.append(self._partial)
        return [*self._opening, *self._highlighter.highlight(self._lines), fence_line(self._markup)]

    def _without_indent(self, line: str) -> str:
        """Remove the indentation of the code block from a line; a tab may be cut in two."""
        column = at = 0
        while column < self._indent and line[at : at + 1] in {" ", "\t"}:
            column += 1 if line[at] == " " else TAB_STOP - column % TAB_STOP
            at += 1
        return " " * max(column - self._indent, 0) + line[at:]


def _start(node: SyntaxTreeNode) -> int:
    """Return the line in which a block begins."""
    return node.map[0] if node.map else 0
