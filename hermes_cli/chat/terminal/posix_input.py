"""Input of terminals on POSIX systems: prompt_toolkit's, with huge pastes and lines that were typed ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.input.vt100_parser import Vt100Parser

if TYPE_CHECKING:
    from prompt_toolkit.key_binding.key_processor import KeyPress

_CHUNK = 65_536  # bytes that are read at once; a terminal holds 4,096 that were typed ahead


class PosixInput(Vt100Input):
    """Keys of a terminal.

    Outside prompts a terminal makes a line feed of Enter. What was typed there is read when a prompt begins, and each
    line feed is taken as Enter, so that lines that were typed ahead are sent one by one.
    """

    def __init__(self, stdin: TextIO) -> None:
        super().__init__(stdin)
        self.vt100_parser = _PasteParser(self.vt100_parser.feed_key_callback, self.stdin_reader.read)

    @contextmanager
    def raw_mode(self) -> Iterator[None]:
        """Switch the terminal to raw mode, and read what was typed before."""
        with super().raw_mode():
            self.vt100_parser.feed(self.stdin_reader.read(_CHUNK).replace("\n", "\r"))
            yield

    @contextmanager
    def attach(self, input_ready_callback: Callable[[], None]) -> Iterator[None]:
        """Call back when there are keys; at once if some were typed before."""
        with super().attach(input_ready_callback):
            if self._buffer:
                input_ready_callback()
            yield


class _PasteParser(Vt100Parser):
    """Parses keys. A paste is collected first: the base class would search all of it again with each kilobyte."""

    def __init__(self, on_key: Callable[[KeyPress], None], read: Callable[[int], str]) -> None:
        super().__init__(on_key)
        self._read = read
        self._pieces: list[str] = []
        self._tail = ""  # the end mark may come in parts

    def feed(self, data: str) -> None:
        if self._in_bracketed_paste:
            end = "\x1b[201~"
            data += self._read(_CHUNK)
            self._pieces.append(data)
            recent = self._tail + data
            self._tail = recent[1 - len(end) :]
            if end not in recent:
                return
            data = "".join(self._pieces)
            self._pieces, self._tail = [], ""
        super().feed(data)
