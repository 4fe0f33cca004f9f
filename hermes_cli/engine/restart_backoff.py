"""The pause before an engine that died is started again, which grows with each death in a row."""

from __future__ import annotations

import time
from collections.abc import Sequence

# Seconds from a death to the next start, by how many there were in a row.
RESTART_DELAYS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
RELIABLE_SECONDS = 60.0  # seconds of a loaded engine that make up for earlier deaths


class RestartBackoff:
    """Counts the deaths of an engine in a row."""

    def __init__(self, delays: Sequence[float] = RESTART_DELAYS) -> None:
        self._delays = delays
        self._died = 0.0  # when the last one did, on the monotonic clock
        self.deaths = 0

    def count_death(self, seconds: float) -> None:
        """Count the end of an engine that had been loaded for so many seconds."""
        self.deaths = 1 if seconds >= RELIABLE_SECONDS else self.deaths + 1
        self._died = time.monotonic()

    def delay(self) -> float:
        """Return the seconds from now to the next start."""
        if not self.deaths:
            return 0.0
        planned = self._delays[min(self.deaths, len(self._delays)) - 1]
        return max(self._died + planned - time.monotonic(), 0)
