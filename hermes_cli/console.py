"""The one place that writes to the terminal.

Data goes to standard output, everything said *about* it (progress, tool calls, warnings, errors) to standard error,
so that a pipe carries data only. Three voices: human, JSON (one document on standard output) and quiet (data only).
Colour and animation need a terminal and yield to NO_COLOR.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

from hermes_cli.platforms import drop_typed_ahead, echo
from hermes_cli.text_layout import UNLIMITED, Table, command_lines, wrap

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress

    from hermes_cli.errors import HermesError


# Text of a model or a tool must not move the cursor, change colours or answer for the user: control characters are
# shown as U+FFFD, but for line breaks and tabs.
CONTROL = {code: "\ufffd" for code in [*range(32), *range(127, 160)] if chr(code) not in "\n\t"}
# Nor may a quoted name reorder the sentence around it: Unicode's overrides, embeddings and isolates.
_REORDERING = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd")
_ESCAPED = {code: f"\\u{code:04x}" for code in range(127, 160)}  # controls that JSON may hold as they are
_ASIDE = CONTROL | _REORDERING
NARROW = 60  # columns; in fewer, texts do not begin below each other


class Voice(Enum):
    """Kind of output: for people, for programs, or quiet."""

    HUMAN = "human"
    JSON = "json"
    QUIET = "quiet"


def theme(environment: Mapping[str, str] = os.environ) -> str:
    """Return the background that colours are for: `dark`, `light`, or `any` where nobody says what it is.

    HERMES_LLM_THEME decides, else COLORFGBG, which some terminals set: `0;15` is black on white.
    """
    wanted = environment.get("HERMES_LLM_THEME", "").strip().lower()
    if wanted in {"dark", "light"}:
        return wanted
    background = environment.get("COLORFGBG", "").rpartition(";")[2]
    if not background.isdecimal():
        return "any"
    return "light" if background in {"7", "15"} else "dark"


def warning_style() -> str:
    """Return the colour of warnings: yellow is hard to read on white."""
    return "magenta" if theme() == "light" else "yellow"


def read_error(text: str) -> tuple[str, str]:
    """Return the message and the hint of an error that another process of ours has shown; see `Console.error`."""
    message, _, hint = text.removeprefix("error: ").partition("\n  next: ")
    return message, hint


def stdin_is_terminal() -> bool:
    """Return whether somebody can type an answer; standard input may also be closed (`<&-`)."""
    return sys.stdin is not None and sys.stdin.isatty()


def _indented(text: str, indent: int) -> str:
    """Return JSON with line breaks; msgspec is much faster at it than the json module, which indents in Python."""
    import msgspec  # noqa: PLC0415 - not every command prints JSON

    return msgspec.json.format(text, indent=indent)


class Console:
    """Output of commands. `color=None` means: only on a terminal, and not when NO_COLOR is set."""

    def __init__(self, voice: Voice = Voice.HUMAN, *, color: bool | None = None, out: TextIO | None = None) -> None:
        self.voice = voice
        self.color = color
        self.out = out or sys.stdout
        self._line_open = False

    @cached_property
    def _rich(self) -> RichConsole:
        return self._rich_on(stderr=True)

    def _rich_on(self, *, stderr: bool) -> RichConsole:
        from rich.console import Console as RichConsole  # noqa: PLC0415 - costs 50 ms, not every run needs it

        off = self.color is False or (self.color is None and bool(os.environ.get("NO_COLOR")))
        return RichConsole(
            file=None if stderr else self.out,
            stderr=stderr,
            no_color=off,
            force_terminal=self.color or None,
            highlight=False,
            emoji=False,  # of what is quoted, `:x:` stays what it is
            soft_wrap=True,
        )

    def text(self, piece: str) -> None:
        """A piece of the answer, shown at once. Silent in JSON, whose document comes at the end."""
        if self.voice is Voice.JSON or not piece:
            return
        self.out.write(piece.translate(CONTROL) if self.out.isatty() else piece)
        self.out.flush()
        self._line_open = not piece.endswith("\n")

    def end_line(self) -> None:
        """Finish the line that `text` left open, if any."""
        if self._line_open:
            self.text("\n")

    @property
    def width(self) -> int:
        """Columns of the terminal that standard output is; without a limit where it is none."""
        return shutil.get_terminal_size().columns if self.out.isatty() else UNLIMITED

    def table(self, titles: Sequence[str], rows: Sequence[Sequence[str]], **layout: Any) -> None:  # noqa: ANN401
        """A table on standard output, laid out for its width; quiet leaves the titles out.

        `layout` are the other attributes of `text_layout.Table`: which columns may leave, which wraps, styles of rows.
        """
        if self.voice is Voice.JSON:
            return
        lines, left = Table(titles, rows, heading=self.voice is Voice.HUMAN, **layout).lines(self.width)
        self.styled(lines)
        if left:
            self.note(f"no room for {' and '.join(left)}: widen the terminal, or use --json")

    def styled(self, lines: Iterable[tuple[str, str]]) -> None:
        """Lines on standard output, each with its style, which only a terminal shows."""
        if not self.out.isatty():
            self.text("".join(f"{line}\n" for line, _ in lines))
        elif self.voice is not Voice.JSON:
            from rich.text import Text  # noqa: PLC0415 - as rich above

            rich = self._rich_on(stderr=False)
            for line, style in lines:
                rich.print(Text(line.translate(CONTROL), style))

    def prose(self, text: str, *, hanging: str = "") -> None:
        """Sentences on standard output, which a terminal shows broken between words; see `text_layout.wrap`."""
        self.styled((line, "") for line in wrap(text, self.width, hanging))

    def command(self, text: str) -> None:
        """A command to type, on standard output."""
        self.styled((line, "bold") for line in command_lines(text, self.width))

    def facts(self, labels_and_texts: Sequence[tuple[str, str]], *, indent: str = "") -> None:
        """A line for each label and its text, with the texts below each other."""
        width = max(len(label) for label, _ in labels_and_texts)
        hanging = " " * (len(indent) + (width + 2 if self.width >= NARROW else 2))
        for label, text in labels_and_texts:
            self.prose(f"{indent}{label:{width}}  {text}", hanging=hanging)

    def document(self, value: dict[str, Any], *, indent: int | None = 2) -> None:
        """The result in JSON; nothing in the other voices. One line without `indent`, as for events."""
        if self.voice is Voice.JSON:
            escape = not (self.out.encoding or "utf-8").lower().startswith("utf")  # an escape loses no character
            text = json.dumps(value, ensure_ascii=escape, indent=None if indent else indent).translate(_ESCAPED)
            self.out.write((_indented(text, indent) if indent else text) + "\n")
            self.out.flush()

    def note(self, message: str, *, style: str = "dim") -> None:
        """A line about what is going on, on standard error, for humans only."""
        if self.voice is Voice.HUMAN:
            self._aside(message, style)

    def warn(self, message: str) -> None:
        """A line that must be seen even when quiet."""
        self._aside(message, warning_style())

    def log(self, line: str) -> None:
        """A line of a log that goes on for days, on standard error, without colour and in every voice.

        A server does not fail because its log cannot be written, as on a full disk.
        """
        with suppress(OSError):
            sys.stderr.write(f"{line.translate(CONTROL)}\n")
            sys.stderr.flush()

    def error(self, error: HermesError) -> None:
        """Print what is wrong, and what to type next; a line that a quoted text begins is marked as one of it."""
        message, hint = (re.sub(r"\n(?!  \| )", "\n  | ", text) for text in (error.message, error.hint))
        self._aside(f"error: {message}", "bold red")
        self._aside(f"  next: {hint}", "")

    def ask(self, question: str) -> str:
        """Ask on the terminal and read one line from it, even when standard input is a pipe.

        What was typed before the question is no answer to it, and dropped.

        Raise OSError if there is no terminal to ask on.
        """
        self.end_line()
        device = "CONIN$" if sys.platform == "win32" else os.ctermid()
        with open(device, encoding="utf-8") as terminal:  # noqa: PTH123 - a device, not a path of ours
            drop_typed_ahead(terminal.fileno())
            self._rich.print(question.translate(CONTROL), end="", markup=False, style="bold")
            with echo(terminal.fileno(), on=True):
                return terminal.readline().strip()

    def confirm(self, question: str, *, default: bool = False) -> bool | None:
        """Ask a question for yes or no; an empty line means `default`. Return None where nobody can be asked."""
        if not stdin_is_terminal():
            return None
        try:
            answer = self.ask(f"{question} [{'Y/n' if default else 'y/N'}] ").lower()
        except OSError:
            return None
        return answer in {"y", "yes"} or (default and not answer)

    @property
    def animates(self) -> bool:
        """Spinners and bars are shown: to people, on a terminal."""
        return self.voice is Voice.HUMAN and sys.stderr.isatty()

    @contextmanager
    def working(self, message: str) -> Iterator[Callable[[str], None]]:
        """A spinner on standard error while something slow runs; still without a terminal.

        What it yields changes the message.
        """
        if not self.animates:
            yield lambda _: None
            return
        from rich.text import Text  # noqa: PLC0415 - as rich above

        with self._rich.status(Text(message.translate(CONTROL)), spinner="dots") as status:
            yield lambda changed: status.update(Text(changed.translate(CONTROL)))

    @contextmanager
    def transfer(self) -> Iterator[Progress]:
        """Rich's progress bars for bytes that arrive, on standard error: size, speed and time left."""
        from rich.progress import (  # noqa: PLC0415 - as above
            BarColumn,
            DownloadColumn,
            Progress,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.table import Column  # noqa: PLC0415

        width = self._rich.width
        name = TextColumn("{task.description}", markup=False)
        remark = TextColumn("{task.fields[remark]}", markup=False, table_column=Column(overflow="fold"))
        columns: list[ProgressColumn] = [DownloadColumn(), TimeRemainingColumn(compact=True), remark]
        if width >= NARROW:  # of names, bar and numbers the numbers stay
            columns[:0] = [name, BarColumn(bar_width=max(min(width - 70, 40), 5))]
        if width >= 80:  # noqa: PLR2004
            columns.insert(3, TransferSpeedColumn())
        with Progress(*columns, console=self._rich, speed_estimate_period=15) as bars:
            yield bars

    def _aside(self, message: str, style: str) -> None:
        if self.out.isatty():
            self.end_line()
        text = message.translate(_ASIDE)
        if sys.stderr.isatty():
            text = "\n".join(wrap(text, self._rich.width, "  "))
        self._rich.print(text, style=style, markup=False)
