"""Progress of a download: events for bars, lines or JSON."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

INTERVAL = 0.1  # seconds between two events of the same phase


class Phase(StrEnum):
    """The current work on a file."""

    RESUMING = "resuming"  # an earlier run left a part of it
    HASHING = "hashing"  # bytes on the disk are read and hashed
    DOWNLOADING = "downloading"
    SKIPPING = "skipping"  # the server knows no ranges and sends again what is here
    VERIFYING = "verifying"  # all is here, the hash is awaited
    REPAIRING = "repairing"  # the hash was wrong: a suspected span is downloaded again
    WAITING = "waiting"  # another process downloads the same file
    RETRYING = "retrying"  # the connection broke
    DONE = "done"


@dataclass(frozen=True)
class DownloadProgress:
    """One event."""

    file: str  # path of the file in its repository; for raw parts, of the file that they are joined into
    phase: Phase  # the current work
    done: int  # bytes of the file that are here; in the phases `hashing` and `repairing`, bytes processed
    size: int  # bytes of the whole file
    fetched: int  # bytes of it that came over the network in this run
    reason: str = ""  # why it waits or tries again
    wait: float = 0.0  # seconds until the next attempt


class ProgressMeter:
    """Counts one file's bytes and reports them, not too often. `offset` is where the current raw part begins."""

    def __init__(self, file: str, size: int, callback: Callable[[DownloadProgress], None]) -> None:
        self.file = file
        self.size = size
        self.offset = 0
        self._done = 0
        self._fetched = 0
        self._callback = callback
        self._phase: Phase | None = None
        self._reported = 0.0

    def advance(self, phase: Phase, done: int, *, fetched: int = 0) -> None:
        """Set the bytes done, add bytes fetched, and report if the phase is new or the last report is old."""
        self._done = self.offset + done
        self._fetched += fetched
        now = time.monotonic()
        if phase is not self._phase or now - self._reported >= INTERVAL:
            self._reported = now
            self.report(phase)

    def report(self, phase: Phase, done: int | None = None, *, reason: str = "", wait: float = 0.0) -> None:
        """Report at once, with new bytes done if given."""
        if done is not None:
            self._done = self.offset + done
        self._phase = phase
        self._callback(DownloadProgress(self.file, phase, self._done, self.size, self._fetched, reason, wait))
