"""The progress of a download: bars on a terminal, lines elsewhere, events in JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from hermes_cli.console import Console, Voice
from hermes_cli.store.progress import DownloadProgress, Phase
from hermes_cli.units import gigabytes

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from hermes_cli.store.download import FileState

MOST_BARS = 8  # of more files only those under way have one
LINE_INTERVAL = 10.0  # seconds between two lines of the same file where there is no terminal
PHASE_TEXTS = {
    Phase.HASHING: "hashing the bytes that are here",
    Phase.SKIPPING: "the server sends bytes again that are here",
    Phase.VERIFYING: "checking the hash",
    Phase.REPAIRING: "the hash is wrong: fetching again",
    Phase.WAITING: "another process fetches it; waiting",
    Phase.RESUMING: "going on",
    Phase.DOWNLOADING: "",
    Phase.DONE: "done",
}


@contextmanager
def show_progress(states: list[FileState], console: Console) -> Iterator[Callable[[DownloadProgress], None]]:
    """Yield the callback that shows a download: bars on a terminal, lines elsewhere, a line of JSON for each event."""
    if console.voice is Voice.JSON:
        yield lambda event: console.document({"event": "progress", **asdict(event)}, indent=None)
    elif console.voice is Voice.QUIET:
        yield lambda _: None
    elif sys.stderr.isatty():
        with console.transfer() as bars:
            yield _Bars(bars, states).show
    else:
        yield _Lines(console).show


class _Bars:
    """One bar for each file, and one for all if there are several."""

    def __init__(self, bars: Bars, states: list[FileState]) -> None:
        self._bars = bars
        self._here = {state.file: state.here for state in states}
        self._many = len(states) > MOST_BARS
        self._tasks = {state.file: self._add(state.file, state.size, state.here, self._many) for state in states}
        self._total: TaskID | None = None
        if len(states) > 1:
            self._total = self._add("all", sum(state.size for state in states), sum(self._here.values()))

    def _add(self, label: str, size: int, here: int, hidden: bool = False) -> TaskID:  # noqa: FBT001 - as drawn
        name = label.rpartition("/")[2]
        return self._bars.add_task(name, total=size, completed=here, remark="", visible=not hidden)

    def show(self, event: DownloadProgress) -> None:
        text = _phase_text(event)
        if event.phase in {Phase.HASHING, Phase.REPAIRING}:
            text = f"{text} {event.done * 100 // max(event.size, 1)} %"
        else:
            self._here[event.file] = event.done
            self._bars.update(self._tasks[event.file], completed=event.done)
            if self._total is not None:
                self._bars.update(self._total, completed=sum(self._here.values()))
        shown = None if not self._many else event.phase is not Phase.DONE
        self._bars.update(self._tasks[event.file], remark=text, visible=shown)


class _Lines:
    """A line for each new phase of a file, and every ten seconds within one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: tuple[str, Phase] | None = None
        self._when = 0.0

    def show(self, event: DownloadProgress) -> None:
        now, current = time.monotonic(), (event.file, event.phase)
        if current == self._last and now - self._when < LINE_INTERVAL and event.phase is not Phase.RETRYING:
            return
        self._last, self._when = current, now
        text = _phase_text(event)
        amount = f"{gigabytes(event.done)} of {gigabytes(event.size)}"
        self._console.note(f"{event.file}: {amount}{f', {text}' if text else ''}")


def _phase_text(event: DownloadProgress) -> str:
    if event.phase is Phase.RETRYING:
        return f"{event.reason}; again in {event.wait:.0f} s"
    return PHASE_TEXTS[event.phase]
