"""Syntax highlighting of code that is still being generated: what left the screen is not read again.

Pygments reads a text from its start. Here it goes on from the last token that began before the lines still to be shown,
in the state of its lexer there, so that the cost is linear in the code, however often it is redrawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pygments.lexer import ExtendedRegexLexer, LexerContext, RegexLexer  # type: ignore[import-untyped]
from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]
from pygments.util import ClassNotFound  # type: ignore[import-untyped]
from rich.syntax import Syntax
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

THEME = "ansi_dark"  # the terminal's own colours, so that it reads on any background
TAB = 4  # columns
_MAX_CONTEXT = 20_000  # characters: a longer comment or string may lose its colour where it is scrolled


class CodeHighlighter:
    """Highlights one text, of which lines leave at the top and come at the bottom."""

    def __init__(self, language: str) -> None:
        """Begin with no text; a language that Pygments does not know is not highlighted."""
        self._lexer: Any = None
        self._context, self._stack = "", ["root"]
        self._theme = Syntax.get_theme(THEME)
        try:
            self._lexer = get_lexer_by_name(language) if language else None
        except ClassNotFound:
            return

    def highlight(self, lines: Sequence[str], leaving: int = 0) -> list[Text]:
        """Return the lines highlighted; the next call is without the first `leaving` of them."""
        if self._lexer is None:
            return [expand_tabs(line) for line in lines]
        start = len(self._context)
        code = self._context + "\n".join(lines)
        edge = start + sum(len(line) + 1 for line in lines[:leaving])
        highlighted: list[list[tuple[str, Any]]] = [[]]
        kept, stack = 0, self._stack
        for at, kind, value, state in self._tokens(code):
            if at <= edge and state is not None:
                kept, stack = at, state
            style = self._theme.get_style_for_token(kind)
            head, *rest = value[max(start - at, 0) :].split("\n") if at + len(value) > start else ("",)
            highlighted[-1].append((head, style))
            highlighted.extend([(piece, style)] for piece in rest)
        if leaving:
            self._stack = stack
            self._context = code[kept:edge] if edge - kept <= _MAX_CONTEXT else ""
            if edge > len(code):  # the break after the last line, which is all there is
                self._context += "\n"
        result = [Text.assemble(*pieces) for pieces in highlighted]
        if [line.plain for line in result] != list(lines):  # a lexer that leaves something out
            return [expand_tabs(line) for line in lines]
        return [expand_tabs(line) for line in result]

    def _tokens(self, code: str) -> Iterator[tuple[int, Any, str, list[str] | None]]:
        """Yield the start, kind and text of each token, and the lexer's state before it where that is known."""
        if not isinstance(self._lexer, RegexLexer):
            yield from ((at, kind, value, ["root"]) for at, kind, value in self._lexer.get_tokens_unprocessed(code))
            return
        end = 0
        try:
            if code:
                for token in _lex(self._lexer, code, list(self._stack)):
                    yield token
                    end = token[0] + len(token[2])
        except (TypeError, _StuckError):  # rules of this lexer do not work with a context
            for at, kind, value in self._lexer.get_tokens_unprocessed(code[end:]):
                yield at + end, kind, value, None


class _StuckError(Exception):
    """The lexer makes no progress."""


def _lex(lexer: RegexLexer, code: str, stack: list[str]) -> Iterator[tuple[int, Any, str, list[str] | None]]:
    context = LexerContext(code, 0, stack)
    before = -1
    for at, kind, value in ExtendedRegexLexer.get_tokens_unprocessed(lexer, context=context):
        if value:
            if at <= before:
                raise _StuckError
            before = at
            yield at, kind, value, list(context.stack) if at == context.pos else None


def expand_tabs(line: str | Text) -> Text:
    """Return a line with blanks for tabs."""
    text = Text(line) if isinstance(line, str) else line
    text.expand_tabs(TAB)
    return text
