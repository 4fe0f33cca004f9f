"""What a download tells about itself while it runs: events for bars, lines or JSON."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL = 0.1  # seconds between two events of the same phase; more often nobody can look


class Phase(StrEnum):
    """What is going on with a file."""

    RESUMING = "resuming"  # some of it was here
    HASHING = "hashing"  # what is here is read and hashed
    DOWNLOADING = "downloading"
    SKIPPING = "skipping"  # the server knows no ranges and sends again what is here
    VERIFYING = "verifying"  # all is here, the hash is awaited
    REPAIRING = "repairing"  # the hash was wrong: what may be at fault is fetched again
    WAITING = "waiting"  # another process fetches the same file
    RETRYING = "retrying"  # the connection broke; `reason` says how, `wait` for how long it pauses
    DONE = "done"


@dataclass(frozen=True)
class Progress:
    """One event.

    Attributes:
        file: path of the file in its repository; of raw parts, of the file that they make.
        phase: what is going on.
        done: bytes of the file that are here, or in the phases `hashing` and `repairing` that were gone through.
        size: bytes of the whole file.
        fetched: bytes of it that came over the network in this run.
        reason: why it waits or tries again, in words.
        wait: seconds until the next try.
    """

    file: str
    phase: Phase
    done: int
    size: int
    fetched: int
    reason: str = ""
    wait: float = 0.0


class Meter:
    """Counts one file's bytes and tells about it, not too often."""

    def __init__(self, file: str, size: int, tell: Callable[[Progress], None]) -> None:
        self.file = file
        self.size = size
        self.done = 0
        self.fetched = 0
        self._tell = tell
        self._phase: Phase | None = None
        self._told = 0.0

    def at(self, phase: Phase, done: int, *, fetched: int = 0) -> None:
        """The file is at `done` bytes; `fetched` more came over the network."""
        self.done = done
        self.fetched += fetched
        now = time.monotonic()
        if phase is not self._phase or now - self._told >= INTERVAL:
            self._told = now
            self.say(phase)

    def say(self, phase: Phase, reason: str = "", wait: float = 0.0) -> None:
        """Tell at once."""
        self._phase = phase
        self._tell(Progress(self.file, phase, self.done, self.size, self.fetched, reason, wait))
