"""What is pasted: line breaks in it never send, much of it is shown as one word, and too much of it is refused.

prompt_toolkit looks through all of a paste again with each kilobyte of it; here its end is looked for in what is new.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding.key_processor import KeyPress
from prompt_toolkit.keys import Keys

if sys.platform == "win32":  # no such module there: its console has keys of its own, and `PasteInput` is not used
    Vt100Input = object
else:
    from prompt_toolkit.input.vt100 import Vt100Input

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

MOST = 10_000_000  # characters: twenty times what the largest context of a model holds
SHOWN_LINES = 200
SHOWN_CHARACTERS = 100_000

_END = "\x1b[201~"
_AT_ONCE = 65_536  # characters to read of a paste; keys are read in smaller pieces, since each of them is work


class PasteStore:
    """Long pastes, and the words that stand for them in a line."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def shown(self, text: str) -> str:
        """The text itself, or a word for it."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        lines = text.removesuffix("\n").count("\n") + 1
        if lines <= SHOWN_LINES and len(text) <= SHOWN_CHARACTERS:
            return text
        size = f"{lines:,} lines" if lines > SHOWN_LINES else f"{len(text):,} characters"
        word, number = f"[pasted {size}]", 1
        while self._texts.get(word, text) != text:
            number += 1
            word = f"[pasted {size}, {number}]"
        self._texts[word] = text
        return word

    def stands_for_one(self, line: str) -> bool:
        """Whether there is a word for a paste in it."""
        return any(word in line for word in self._texts)

    def whole(self, line: str) -> str:
        """A line with the texts in place of the words."""
        for word, text in self._texts.items():
            if word in line:
                line = line.replace(word, text)
        return line


class PasteInput(Vt100Input):
    """The keyboard of a terminal that can tell what is pasted."""

    def __init__(self, stdin: TextIO) -> None:
        super().__init__(stdin)
        self._parser = _Parser(self._pressed)
        self.vt100_parser = self._parser

    def read_keys(self) -> list[KeyPress]:
        """The keys that were pressed; a paste is one."""
        self._parser.feed(self.stdin_reader.read(_AT_ONCE) if self._parser.pasting else self.stdin_reader.read())
        keys, self._buffer = self._buffer, []
        return keys

    def _pressed(self, key: KeyPress) -> None:
        self._buffer.append(key)

    def refused(self) -> int:
        """How many characters the last paste had, if it had too many; asked for once."""
        refused, self._parser.refused = self._parser.refused, 0
        return refused


class _Parser(Vt100Parser):
    """Takes keys apart, and keeps a paste together, up to `MOST` characters of it."""

    def __init__(self, pressed: Callable[[KeyPress], None]) -> None:
        super().__init__(pressed)
        self.refused = 0
        self._pieces: list[str] = []
        self._length = 0
        self._end = ""  # of what was read: the mark may come in two parts

    @property
    def pasting(self) -> bool:
        """Whether the end of a paste was not seen yet."""
        return self._in_bracketed_paste

    def feed(self, data: str) -> None:
        """Read some more."""
        if not self._in_bracketed_paste:
            super().feed(data)
            return
        text = self._end + data
        pasted, mark, rest = text.partition(_END)
        if not mark:
            cut = max(len(text) - len(_END) + 1, 0)
            pasted, self._end = text[:cut], text[cut:]
        self._length += len(pasted)
        if self._length <= MOST:
            self._pieces.append(pasted)
        else:
            self._pieces.clear()
        if mark:
            self._finish()
            self.feed(rest)

    def _finish(self) -> None:
        text = "".join(self._pieces)
        self.refused = self._length if self._length > MOST else 0
        self._in_bracketed_paste, self._pieces, self._length, self._end = False, [], 0, ""
        self.feed_key_callback(KeyPress(Keys.BracketedPaste, text))
