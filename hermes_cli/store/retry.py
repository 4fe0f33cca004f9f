"""When a download tries again: limits, pauses, and the detection of connections that do not get on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]  # re-exported without saying so

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class RetryPolicy:
    """The limits.

    Attributes:
        max_attempts: connections in a row without progress before it gives up; with the pauses, about eight minutes.
        delay: seconds before the second attempt, doubled for each one after.
        max_delay: seconds.
        max_retry_after: seconds that the server may ask to wait (Retry-After).
        min_progress: bytes that make a connection count as progress.
        read_timeout: seconds without a byte; None for HF_HUB_DOWNLOAD_TIMEOUT (10 unless set).
        min_speed: bytes per second; a connection below it for `speed_window` seconds is given up for a new one.
        speed_window: seconds.
    """

    max_attempts: int = 12
    delay: float = 1.0
    max_delay: float = 60.0
    max_retry_after: float = 600.0
    min_progress: int = 1 << 20
    read_timeout: float | None = None
    min_speed: int = 1024
    speed_window: float = 30.0

    def delay_after(self, attempts: int) -> float:
        """Return the seconds to pause after this many attempts without progress."""
        return float(min(self.max_delay, self.delay * 2 ** max(0, attempts - 1)))


class Interrupted(Exception):  # noqa: N818 - no error yet: the next connection may do
    """The bytes stopped coming; `retry_after` is how many seconds the server asks to wait."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class SpeedCheck:
    """Interrupts a connection that is alive but too slow."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._since = time.monotonic()
        self._bytes = 0

    def add(self, size: int) -> None:
        """Count bytes that came.

        Raises:
            Interrupted: fewer came in the last window than the policy wants.
        """
        self._bytes += size
        elapsed = time.monotonic() - self._since
        if elapsed < self._policy.speed_window:
            return
        if self._bytes < self._policy.min_speed * elapsed:
            raise Interrupted(f"only {self._bytes} bytes came in {elapsed:.3g} s")
        self._since, self._bytes = time.monotonic(), 0


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the server asks to wait, by its rate limit or Retry-After; None if it does not."""
    limit = parse_ratelimit_headers(headers)
    if limit and not limit.remaining:
        return float(limit.reset_in_seconds)
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment - datetime.now(UTC)).total_seconds()) if moment.tzinfo else None
