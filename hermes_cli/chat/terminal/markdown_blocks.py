"""Renders blocks of a Markdown parse tree as lines for a terminal of a given width.

No line of a block depends on a block after it, and no list item on the next one: so they can be shown as they come.
Nothing is left out: HTML, addresses of links and unknown languages are shown as they were written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, cast

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode
from pygments.lexer import ExtendedRegexLexer, LexerContext, RegexLexer  # type: ignore[import-untyped]
from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]
from pygments.token import (  # type: ignore[import-untyped]
    Comment,
    Error,
    Generic,
    Keyword,
    Name,
    Number,
    Operator,
    String,
)
from pygments.util import ClassNotFound  # type: ignore[import-untyped]
from rich.cells import cell_len, chop_cells
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.text import Text

from hermes_cli.console import CONTROL, theme

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod

LISTS = {"bullet_list", "ordered_list"}
MAX_NESTING = 20  # levels; markdown-it-py leaves out what is deeper
# The terminal's own colours. Those for a background that is not known are neither bright nor blue: they read on both.
_ON_ANY = {
    Comment: Style(italic=True, dim=True),
    Keyword: Style(color="magenta"),
    Keyword.Type: Style(color="cyan"),
    Operator.Word: Style(color="magenta"),
    Name.Builtin: Style(color="cyan"),
    Name.Function: Style(bold=True),
    Name.Class: Style(bold=True),
    Name.Decorator: Style(color="magenta"),
    Name.Tag: Style(color="magenta"),
    Name.Attribute: Style(color="cyan"),
    Name.Variable: Style(color="red"),
    String: Style(color="green"),
    Number: Style(color="cyan"),
    Generic.Deleted: Style(color="red"),
    Generic.Inserted: Style(color="green"),
    Generic.Heading: Style(bold=True),
    Generic.Subheading: Style(bold=True),
    Generic.Prompt: Style(bold=True),
    Error: Style(color="red", underline=True),
}
TAB = 4  # columns
_MAX_CONTEXT = 20_000  # characters: a longer comment or string may lose its colour where it is scrolled
MAX_HIGHLIGHTED_LINE = 1_000  # characters
HIGHLIGHT_SECONDS = 5.0  # of a processor, for one block of code, however often it is redrawn
# Of each of these lexers, 8,000 hostile characters of 340 kinds cost less than 0.2 s between two tokens (pygments 2.21,
# measured); some of the others need hours for a few hundred, and nothing can stop them.
_LANGUAGES = """
    awk bash batch c clojure cmake common-lisp console cpp cr csharp css d dart delphi diff django docker elixir erlang
    fortran fsharp gas go graphql groovy haskell html http ini java javascript json json5 jsx julia kotlin less lua make
    markdown matlab mysql nasm nginx nimrod nixos objective-c ocaml perl php plpgsql postgresql powershell properties
    protobuf pycon pytb python ruby rust scheme scss solidity splus sql sqlite3 swift tcl terraform tex text toml tsx
    typescript vb.net vim vue wast xml yaml zig
"""
LANGUAGES = frozenset(_LANGUAGES.split())
MIN_WIDTH = 8  # columns: deeply nested text does not get narrower

_DIM = Style(dim=True)
_STYLES = {"em": Style(italic=True), "strong": Style(bold=True), "s": Style(strike=True)}
_CODE = Style(color="cyan")
_LINK = Style(underline=True)
_HEADING = Style(bold=True)
_FIRST_HEADING = Style(bold=True, underline=True)
_BULLETS = "•◦▪"


@cache
def _parser() -> MarkdownIt:
    """Parse CommonMark and tables, without references, which need the whole text, and HTML, which hides text."""
    parser = MarkdownIt("commonmark", {"maxNesting": MAX_NESTING}).enable(["table", "strikethrough"])
    return parser.disable(["reference", "html_block", "html_inline"])


def parse_blocks(source: str) -> list[SyntaxTreeNode]:
    """Return the top-level blocks of a text."""
    return list(SyntaxTreeNode(_parser().parse(source)).children)


class BlockRenderer:
    """Renders blocks of one text, `source`; those that cannot be rendered are shown as it has them."""

    def __init__(self, console: Console, source: str, width: int) -> None:
        self._console, self._source, self._width = console, source.split("\n"), width

    def block(self, node: SyntaxTreeNode, first: int | None = None) -> list[Text]:
        """Return the lines of a block. `first` is the number of its first item if it continues a list."""
        if node.type in LISTS:
            return list(self.items(node.children, first_number(node) if first is None else first))
        if node.type == "fence":
            return code_lines(node)  # as the terminal wraps them, so that they can be copied
        return self._as_written(node) if _deep(node) else list(self._block(node, self._width))

    def items(
        self, nodes: Sequence[SyntaxTreeNode], first: int | None, width: int | None = None, depth: int = 0
    ) -> Iterator[Text]:
        """Yield the lines of list items, the first of them with this number; None if the list is not numbered."""
        for at, item in enumerate(nodes):
            if depth == 0 and _deep(item):
                yield from self._as_written(item)
                continue
            mark = f"{_BULLETS[min(depth, 2)]:>2} " if first is None else f"{first + at:>2}{item.markup} "
            lines = list(self._blocks(item.children, (width or self._width) - len(mark), depth + 1))
            yield from _with_margin(Text(mark, _DIM), lines or [Text()], Text(" " * len(mark)))

    def _block(self, node: SyntaxTreeNode, width: int, depth: int = 0) -> Iterator[Text]:
        width = max(width, MIN_WIDTH)
        if node.type in {"paragraph", "heading"}:
            text = _inline(node)
            if node.type == "heading":
                text.stylize_before(_FIRST_HEADING if node.tag == "h1" else _HEADING)
            yield from text.wrap(self._console, width, overflow="fold")
        elif node.type in LISTS:
            yield from self.items(node.children, first_number(node), width, depth)
        elif node.type == "blockquote":
            yield from _with_margin(Text("▌ ", _DIM), self._blocks(node.children, width - 2, depth), Text("▌ ", _DIM))
        elif node.type == "fence":
            yield from (line for whole in code_lines(node) for line in wrap_columns(whole, width))
        elif node.type == "hr":
            yield Text("─" * width, _DIM)
        elif node.type == "table":
            yield from self._table(node, width)
        else:
            yield from self._as_written(node)

    def _blocks(self, nodes: Sequence[SyntaxTreeNode], width: int, depth: int) -> Iterator[Text]:
        """Yield blocks with empty lines between them, except before a list that belongs to a paragraph."""
        for at, node in enumerate(nodes):
            if at and not (depth and node.type.endswith("_list") and nodes[at - 1].type == "paragraph"):
                yield Text()
            yield from self._block(node, width, depth)

    def _table(self, node: SyntaxTreeNode, width: int) -> Iterator[Text]:
        from rich import box  # noqa: PLC0415 - few answers have tables
        from rich.table import Table  # noqa: PLC0415

        rows = [row.children for part in node.children for row in part.children]
        if len(rows[0]) * 4 > width:  # too narrow for so many columns
            yield from self._as_written(node)
            return
        table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False, header_style="bold")
        for cell in rows[0]:
            side = str(cell.attrs.get("style", "text-align:left")).removeprefix("text-align:")
            table.add_column(_inline(cell), justify=cast("JustifyMethod", side), overflow="fold")
        for row in rows[1:]:
            table.add_row(*map(_inline, row))
        options = self._console.options.update(width=width, height=None)
        for line in self._console.render_lines(table, options, pad=False):
            text = Text.assemble(*((piece.text, piece.style or "") for piece in line if not piece.control))
            text.rstrip()
            yield text

    def _as_written(self, node: SyntaxTreeNode) -> list[Text]:
        start, end = node.map or (0, len(self._source))
        return [piece for line in self._source[start:end] for piece in wrap_columns(expand_tabs(line), self._width)]


def _deep(node: SyntaxTreeNode) -> bool:
    """Return whether the parser may have left something out of the block, as too deep."""
    return any(child.level >= MAX_NESTING - 1 for child in node.walk())


def first_number(node: SyntaxTreeNode) -> int | None:
    """Return the number of the first item of a list; None if it is not numbered."""
    return int(node.attrs.get("start", 1)) if node.type == "ordered_list" else None


def code_lines(node: SyntaxTreeNode) -> list[Text]:
    """Return the lines of a code block between its fences."""
    lines = node.content.removesuffix("\n").split("\n") if node.content else []
    return [
        fence_line(node.markup, node.info),
        *CodeHighlighter(node.info).highlight(lines),
        fence_line(node.markup),
    ]


def fence_line(markup: str, info: str = "") -> Text:
    """Return the line before or after code."""
    return Text(f"{markup}{info.strip()}".translate(CONTROL), _DIM)


def wrap_columns(line: Text, width: int) -> list[Text]:
    """Return a line broken where a terminal of that width is full."""
    if cell_len(line.plain) <= width:
        return [line]
    *ends, _ = accumulate(map(len, chop_cells(line.plain, width)))
    return list(line.divide(ends))


def _with_margin(mark: Text, lines: Sequence[Text] | Iterator[Text], below: Text) -> Iterator[Text]:
    """Yield lines with a mark before the first, and another one before all others."""
    for at, line in enumerate(lines):
        yield Text.assemble(below if at else mark, line)


def _inline(node: SyntaxTreeNode) -> Text:
    """Return the styled text of a block."""
    text = Text()
    for child in node.children:
        _append_inline(child, Style.null(), text)
    text.expand_tabs(4)
    return text


def _append_inline(node: SyntaxTreeNode, style: Style, text: Text) -> None:
    if node.type == "code_inline":
        text.append(node.content, style + _CODE)
    elif node.type in {"softbreak", "hardbreak"}:
        text.append("\n")
    elif node.type == "link":  # its address is never hidden
        start, address = len(text), str(node.attrs.get("href", "")).translate(CONTROL)
        for child in node.children:
            _append_inline(child, style, text)
        if text.plain[start:] == address:
            text.stylize(_LINK, start)
        else:
            text.append(" (", style)
            text.append(address, style + _LINK)
            text.append(")", style)
    elif node.type == "image":
        text.append(f"[{node.content}] ({node.attrs.get('src', '')})".translate(CONTROL), style)
    elif node.children:
        style += _STYLES.get(node.type, Style.null())
        for child in node.children:
            _append_inline(child, style, text)
    else:
        text.append(node.content.translate(CONTROL), style)


class CodeHighlighter:
    """Highlights code that is still being generated: lines leave at the top and come at the bottom.

    Pygments reads a text from its start. Here it goes on from the last token that began before the lines still to be
    shown, in the state of its lexer there, so that the cost is linear in the code, however often it is redrawn.
    """

    def __init__(self, info: str) -> None:
        """Begin with no code; `info` is the info string of the code block. Unknown languages have no colours."""
        self._context, self._stack = "", ["root"]
        background = theme()
        self._theme = ANSISyntaxTheme(_ON_ANY) if background == "any" else Syntax.get_theme(f"ansi_{background}")
        self._lexer: Any = None
        self._seconds = 0.0  # spent on colours so far
        with suppress(ClassNotFound):
            lexer = get_lexer_by_name(info.split(maxsplit=1)[0]) if info.strip() else None
            self._lexer = lexer if lexer and lexer.aliases[0] in LANGUAGES else None

    def highlight(self, lines: Sequence[str], leaving: int = 0) -> list[Text]:
        """Return the lines highlighted; the next call is without the first `leaving` of them.

        From the first line that is too long, and when the time for colours is used up, they have none.
        """
        end = next((at for at, line in enumerate(lines) if len(line) > MAX_HIGHLIGHTED_LINE), len(lines))
        colored = (
            self._colored(lines[:end], min(leaving, end)) if self._lexer and end else map(expand_tabs, lines[:end])
        )
        if leaving > end or self._seconds > HIGHLIGHT_SECONDS:
            self._lexer = None
        return [*colored, *map(expand_tabs, lines[end:])]

    def _colored(self, lines: Sequence[str], leaving: int) -> list[Text]:
        began = time.thread_time()
        start = len(self._context)
        code = self._context + "".join(f"{line}\n" for line in lines)
        edge = start + sum(len(line) + 1 for line in lines[:leaving])
        text, kept, stack = Text("\n".join(lines)), 0, self._stack
        for at, kind, value, state in self._tokens(code):
            if self._seconds + time.thread_time() - began > HIGHLIGHT_SECONDS:
                break
            if at <= edge and state is not None:
                kept, stack = at, state
            if (end := at + len(value)) > start:
                text.stylize(self._theme.get_style_for_token(kind), max(at - start, 0), end - start)
        self._seconds += time.thread_time() - began
        if leaving:
            self._stack, self._context = stack, code[kept:edge] if edge - kept <= _MAX_CONTEXT else ""
        return [expand_tabs(line) for line in text.split("\n", allow_blank=True)]

    def _tokens(self, code: str) -> Iterator[tuple[int, Any, str, list[str] | None]]:
        """Yield the start, kind and text of each token, and the lexer's state before it where that is known."""
        end = 0
        state: list[str] | None = ["root"]
        if isinstance(self._lexer, RegexLexer):
            context, state = LexerContext(code, 0, [*self._stack]), None
            with suppress(Exception):  # rules of some lexers, as those of YAML, do not work with such a context
                for at, kind, value in ExtendedRegexLexer.get_tokens_unprocessed(self._lexer, context=context):
                    if value and at < end:  # nor do these: they make no progress
                        break
                    if value:
                        yield at, kind, value, [*context.stack] if at == context.pos else None
                        end = at + len(value)
                else:
                    return
        for at, kind, value in self._lexer.get_tokens_unprocessed(code[end:]):
            yield at + end, kind, value, state


def expand_tabs(line: str | Text) -> Text:
    """Return a line with blanks for tabs."""
    text = Text(line) if isinstance(line, str) else line
    text.expand_tabs(TAB)
    return text
