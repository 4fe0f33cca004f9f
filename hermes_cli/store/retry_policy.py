"""How long a download puts up with a bad connection, and what it calls a broken one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """The limits.

    Attributes:
        tries: connections in a row that bring next to nothing before it gives up; with the pauses, about eight minutes.
        pause: seconds before the second try; doubled for each one after.
        longest_pause: seconds.
        longest_asked: seconds that the server may ask to wait (Retry-After).
        progress: bytes that make a connection count as useful.
        silence: seconds without a byte; None for HF_HUB_DOWNLOAD_TIMEOUT (10 unless set).
        slowest: bytes per second; a connection that stays below for `window` seconds is given up for a new one.
        window: seconds.
    """

    tries: int = 12
    pause: float = 1.0
    longest_pause: float = 60.0
    longest_asked: float = 600.0
    progress: int = 1 << 20
    silence: float | None = None
    slowest: int = 1024
    window: float = 30.0

    def after(self, tries: int) -> float:
        """Seconds to pause after so many tries in vain."""
        return float(min(self.longest_pause, self.pause * 2 ** max(0, tries - 1)))


class Interrupted(Exception):  # noqa: N818 - no error yet: the next connection may do
    """The bytes stopped coming; `wait` is how many seconds the server wants to be left alone."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait
