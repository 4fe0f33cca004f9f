"""A terminal with somebody at it: a real pseudo-terminal, and a screen that shows what a person would see."""

from __future__ import annotations

import io
import os
import select
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pexpect
import pyte
from conftest import HANG

HISTORY = 100_000  # rows above the screen


class Screen(pyte.HistoryScreen):
    """What a terminal shows, what scrolled off at its top, and answers to a program's questions about it."""

    def __init__(self, columns: int, rows: int, reply: Callable[[str], None] = lambda _: None) -> None:
        super().__init__(columns, rows, history=HISTORY)
        self.reply = reply

    def write_process_input(self, data: str) -> None:
        self.reply(data)

    def select_graphic_rendition(self, *attrs: int, private: bool = False) -> None:
        if not private:  # which pyte's own does not know
            super().select_graphic_rendition(*attrs)

    @property
    def rows(self) -> list[str]:
        """The rows of the screen, without blanks behind them."""
        return [row.rstrip() for row in self.display]

    @property
    def looks(self) -> list[list[tuple[object, ...]]]:
        """The letters of all rows with their colours and weights, without empty rows at the end."""
        rows = [*self.history.top, *(self.buffer[at] for at in range(self.lines))]
        cells = [[row[at] for at in range(self.columns)] for row in rows]
        while cells and all(cell.data == " " for cell in cells[-1]):
            cells.pop()
        return [[(cell.data, cell.fg, cell.bold, cell.italics) for cell in row] for row in cells]

    @property
    def above(self) -> list[str]:
        """The rows that scrolled off at the top."""
        return ["".join(row[at].data for at in range(self.columns)).rstrip() for row in self.history.top]

    @property
    def everything(self) -> list[str]:
        """All rows there are, those above the screen first; without empty ones at the end."""
        rows = [*self.above, *self.rows]
        while rows and not rows[-1]:
            rows.pop()
        return rows


class ScreenFile(io.StringIO):
    """A terminal for what writes in the same process."""

    encoding = "utf-8"

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        super().__init__()
        self.shown = Screen(columns, rows)
        self.shown.set_mode(pyte.modes.LNM)  # as a terminal's driver does
        self._stream = pyte.Stream(self.shown)

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._stream.feed(text)
        return super().write(text)


def hermes_in_terminal(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    columns: int = 80,
    rows: int = 24,
    encoding: str | None = "utf-8",
    code: str | None = None,
) -> pexpect.spawn[Any]:
    """`hermes ARGUMENTS`, or other code, in a pseudo-terminal; without an encoding it writes and takes bytes."""
    from forked_terminal import ForkedTerminal  # noqa: PLC0415 - Windows has neither forks nor pseudo-terminals

    return ForkedTerminal(code, arguments, folder, environment, (rows, columns), encoding)


class Terminal:
    """`hermes`, or other code that uses it, in a terminal; to be used in `with`."""

    def __init__(
        self,
        arguments: Sequence[str] = (),
        *,
        code: str | None = None,
        environment: Mapping[str, str],
        folder: Path,
        columns: int = 80,
        rows: int = 24,
    ) -> None:
        self._child: pexpect.spawn[bytes] = hermes_in_terminal(
            arguments, environment=environment, folder=folder, columns=columns, rows=rows, encoding=None, code=code
        )
        self._screen = Screen(columns, rows, self._reply)
        self._stream = pyte.ByteStream(self._screen)
        self._pasting = False
        self._replies: list[bytes] = []
        self._rows: list[str] | None = None  # of all that there is, until something comes: drawing them takes longest
        self.raw = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.close(force=True)

    @property
    def pid(self) -> int:
        """Of the program."""
        assert self._child.pid is not None
        return self._child.pid

    def screen(self) -> str:
        """What is to be seen now."""
        return "\n".join(self._drawn()[-self._screen.lines :]).rstrip()

    def everything(self) -> str:
        """What is to be seen, and all above it."""
        return "\n".join(self._drawn()).rstrip("\n")

    def _drawn(self) -> list[str]:
        if self._rows is None:
            self._rows = [*self._screen.above, *self._screen.rows]
        return self._rows

    def cursor(self) -> tuple[int, int]:
        """Column and row, from 0."""
        return self._screen.cursor.x, self._screen.cursor.y

    def send(self, data: bytes) -> None:
        """Bytes as keys send them."""
        self._child.send(data)

    def type(self, text: str) -> None:
        """Press keys; "\\r" is Enter, "\\x03" Ctrl-C."""
        self.send(text.encode())

    def paste(self, text: str) -> None:
        """Paste as terminals do that mark it, however much it is."""
        left = memoryview(b"\x1b[200~" + text.encode() + b"\x1b[201~")
        terminal = self._child.child_fd
        self._pasting = True
        os.set_blocking(terminal, False)  # or both sides wait: we to write, the program to have its output read
        end = time.monotonic() + HANG
        while left:
            assert time.monotonic() < end, f"{len(left):,} bytes are not read\n{self.screen()}"
            with suppress(BlockingIOError):
                if select.select([], [terminal], [], 0.01)[1]:
                    left = left[os.write(terminal, left[:1_024]) :]
            self._take(0)
        os.set_blocking(terminal, True)
        self._pasting = False
        for reply in self._replies:
            self.send(reply)
        self._replies.clear()

    def resize(self, columns: int, rows: int) -> None:
        """Make the window smaller or larger."""
        self._rows = None
        self._screen.resize(rows, columns)
        self._child.setwinsize(rows, columns)

    def wait_for(self, text: str) -> str:
        """Wait until something is to be seen; the screen, then."""
        return self.wait_until(lambda: text in self.screen(), repr(text))

    def wait_until(self, is_so: Callable[[], bool], what: str) -> str:
        """Wait until something is so; the screen, then."""
        end = time.monotonic() + HANG
        while not is_so():
            if not self._take(0.05) and (time.monotonic() > end or not self._child.isalive()):
                while self._take(0.05):  # its last words
                    pass
                assert is_so(), f"never seen: {what}\n{self.everything()}"
        return self.screen()

    def wait_for_end(self) -> int | None:
        """Wait until the program ends; its exit code."""
        end = time.monotonic() + HANG
        while self._take(0.05) or self._child.isalive():
            assert time.monotonic() < end, f"it does not end\n{self.everything()}"
        self._child.close()
        return self._child.exitstatus

    def _reply(self, data: str) -> None:
        """What the terminal answers by itself; not in the middle of a paste."""
        if self._pasting:
            self._replies.append(data.encode())
        else:
            self.send(data.encode())

    def _take(self, seconds: float) -> bool:
        """Show what came; whether something did."""
        try:
            data = self._child.read_nonblocking(65_536, seconds)
        except (pexpect.TIMEOUT, pexpect.EOF):
            return False
        self.raw += data
        self._rows = None
        self._stream.feed(data)
        return True
