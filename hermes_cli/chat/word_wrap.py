"""Text of a model broken between words as it comes, for a terminal that has a width of its own."""

from __future__ import annotations

import re
from collections.abc import Callable

from hermes_cli.text_layout import cell_width

# Chinese and Japanese are written without blanks: a line ends after any letter, and the mark that follows it.
_LETTER = "[\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff]"
_PIECE = re.compile(rf"\n|[^\S\n]*(?:{_LETTER}[\u3001-\u3011\uff01-\uff1f]*|(?:(?!{_LETTER})\S)+)|[^\S\n]+")
_BULLET = re.compile(r"[-*+•]|\d{1,3}[.)]")
_FENCES = ("```", "~~~")


class WordWrap:
    """Break text that comes in pieces between words; code between fences stays as it is, so that it can be copied.

    `width` returns the columns of the terminal now.
    """

    def __init__(self, width: Callable[[], int]) -> None:
        self._width = width
        self._held = ""  # the last word, with the blanks before it
        self._column = 0
        self._hanging = 0  # columns before the later lines of a paragraph
        self._is_code = self._after_letter = False

    def feed(self, text: str) -> str:
        """Return what can be shown of the text so far; its last word may go on, and is held back."""
        pieces: list[str] = _PIECE.findall(self._held + text) or [""]
        last = pieces.pop()
        self._held = ""
        if last == "\n" or cell_width(last) > self._width():
            pieces.append(last)
        else:
            self._held = last
        return "".join(map(self._placed, pieces))

    def finish(self) -> str:
        """Return the last word; another text may follow."""
        rest = self._placed(self._held)
        self._held, self._column, self._is_code = "", 0, False
        return rest

    def _placed(self, piece: str) -> str:
        word = piece.lstrip()
        if piece == "\n":
            self._column = 0
            return piece
        if not word:
            return piece if self._is_code else ""
        is_letter = re.match(_LETTER, word) is not None
        may_break = is_letter or self._after_letter or len(word) < len(piece)
        self._after_letter = is_letter
        if not self._column:
            self._hanging = cell_width(piece) + 1 if _BULLET.fullmatch(word) else len(piece) - len(word)
            self._is_code ^= word.startswith(_FENCES)
        elif may_break and not self._is_code and self._column + cell_width(piece) > (width := self._width()):
            self._column = self._hanging if self._hanging < width // 2 else 0
            piece = f"\n{' ' * self._column}{word}"
            self._column += cell_width(word)
            return piece
        self._column += cell_width(piece)
        return piece
