"""The recording at the top of the README: docs/recording.svg, drawn from a real run of the demo in a terminal.

    python tools/recording.py

Each row of the terminal is a group of texts for as long as it was to be seen. Pauses are shortened.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from xml.sax.saxutils import escape

import pexpect
import pyte

FILE = Path(__file__).parent.parent / "docs" / "recording.svg"
COLUMNS, ROWS = 84, 22
CELL, LINE, MARGIN = 8.4, 19, 14
LONGEST_PAUSE, AT_THE_END, KEY = 1.2, 5.0, 0.05  # seconds
COLORS = {
    "default": "#d6deeb",
    "black": "#575e70",
    "red": "#ff6b6b",
    "green": "#7fd88f",
    "brown": "#e5c07b",
    "blue": "#82aaff",
    "magenta": "#d39bf5",
    "cyan": "#6fd3e3",
    "white": "#d6deeb",
}
QUESTION = "What's the weather in Tokyo and in Oslo?"
Row = tuple[tuple[str, str, bool], ...]  # texts with their colours, and whether they are bold


class Recorder:
    """A terminal of which each picture is kept with its time."""

    def __init__(self, folder: str) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.stream = pyte.Stream(self.screen)
        self.pictures: list[tuple[float, list[Row]]] = []
        self._now, self._folder = 0.0, folder

    def run(self, command: str, *answers: tuple[str, str]) -> None:
        """Type a command to a shell, and each answer as soon as its text is to be seen."""
        self._wait(0.6)
        self._show("\x1b[32m$\x1b[0m ")
        for letter in command:
            self._wait(KEY)
            self._show(letter)
        self._wait(0.4)
        self._show("\r\n")
        hermes = str(Path(sys.executable).with_name("hermes"))
        child = pexpect.spawn(
            "/bin/sh",
            ["-c", command.replace("hermes", hermes, 1)],
            dimensions=(ROWS, COLUMNS),
            encoding="utf-8",
            timeout=120,
            cwd=self._folder,
            env={**os.environ, "HOME": self._folder, "TERM": "xterm-256color", "HERMES_LLM_THEME": "dark"},
        )
        for awaited, keys in answers:
            self._read(child, awaited)
            self._wait(0.8)
            for letter in keys:
                child.send(letter)
                self._read(child, None)
                self._wait(KEY)
        self._read(child, "")

    def _read(self, child: pexpect.spawn[str], until: str | None) -> None:
        """Show what the program writes until a text is there, it ends (""), or it pauses (None)."""
        last = time.monotonic()
        while not (until and self._is_shown(until)):
            try:
                text = child.read_nonblocking(4096, timeout=0.15 if until is None else 60)
            except pexpect.EOF:
                return
            except pexpect.TIMEOUT:
                if until is None:
                    return
                raise
            self._wait(min(time.monotonic() - last, LONGEST_PAUSE))
            last = time.monotonic()
            if "\x1b[6n" in text:  # where the cursor is
                child.send(f"\x1b[{self.screen.cursor.y + 1};{self.screen.cursor.x + 1}R")
            self._show(text)

    def _is_shown(self, text: str) -> bool:
        return any(text in row for row in self.screen.display)

    def _wait(self, seconds: float) -> None:
        self._now += seconds

    def _show(self, text: str) -> None:
        self.stream.feed(text)
        self.pictures.append((self._now, [self._row(at) for at in range(ROWS)]))

    def _row(self, at: int) -> Row:
        cells = [self.screen.buffer[at][column] for column in range(COLUMNS)]
        while cells and cells[-1].data == " ":
            cells.pop()
        return tuple(
            ("".join(cell.data for cell in same), str(look[0]), bool(look[1]))
            for look, same in groupby(cells, key=lambda cell: (cell.fg, cell.bold))
        )


def rows_in_time(pictures: list[tuple[float, list[Row]]], end: float) -> Iterator[tuple[int, Row, float, float]]:
    """Yield the number of each row, what it shows, and from when until when."""
    for at in range(ROWS):
        shown = [(when, rows[at]) for when, rows in pictures]
        for row, same in groupby(shown, key=lambda pair: pair[1]):
            start = next(same)[0]
            later = [when for when, other in shown if when > start and other != row]
            if row:
                yield at, row, start, min(later, default=end)


def svg(pictures: list[tuple[float, list[Row]]]) -> str:
    """Return the animation; where none is wanted or possible, the last picture stands still."""
    end = pictures[-1][0] + AT_THE_END
    width, height = round(COLUMNS * CELL + 2 * MARGIN), ROWS * LINE + 2 * MARGIN
    styles, groups = [], []
    for number, (at, row, start, until) in enumerate(rows_in_time(pictures, end)):
        first, last = start / end, until / end
        back = "" if last >= 1 else f"{last:.3%}{{visibility:hidden}}"
        styles.append(f"@keyframes k{number}{{0%{{visibility:hidden}}{first:.3%}{{visibility:visible}}{back}}}")
        column, texts = 0, []
        for text, color, bold in row:
            if text.strip():
                fill = COLORS.get(color, f"#{color}" if len(color) == 6 else COLORS["default"])  # noqa: PLR2004
                weight = ' font-weight="bold"' if bold else ""
                span = f'textLength="{len(text) * CELL:.1f}" lengthAdjust="spacingAndGlyphs"'
                x, y = MARGIN + column * CELL, MARGIN + (at + 0.75) * LINE
                texts.append(f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}"{weight} {span}>{escape(text)}</text>')
            column += len(text)
        still = "" if last >= 1 else " visibility:hidden;"
        groups.append(f'<g style="{still}animation:k{number} {end:.1f}s step-end infinite">{"".join(texts)}</g>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n'
        "<title>hermes in a terminal: what fits an RTX 4090, then the demo model calls a tool twice</title>\n"
        "<style>text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
        "white-space:pre}@media (prefers-reduced-motion:reduce){g{animation:none!important}}\n"
        + "\n".join(styles)
        + f'</style>\n<rect width="{width}" height="{height}" rx="8" fill="#161b26"/>\n'
        + "\n".join(groups)
        + "\n</svg>\n"
    )


def main() -> None:
    """Record, and write the file."""
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(folder)
        recorder.run('hermes recommend --gpu "RTX 4090" --ram 64G')
        recorder.run(
            "hermes chat demo --tools demo",
            ("think auto", f"{QUESTION}\r"),
            ("Run get_weather", "a\r"),
            ("clear in Oslo", "\x04"),
        )
    FILE.write_text(svg(recorder.pictures), encoding="utf-8")


if __name__ == "__main__":
    main()
