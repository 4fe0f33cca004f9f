"""Requests that ended an engine's process are not given to the next one.

A lone request whose process crashes is to blame. Of several one is: all become suspects, and suspects run one at a
time. So innocent ones are cleared when they are answered, and the one to blame ends nobody else's process again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING

from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_REMEMBERED = 1024  # requests


class CrashRecord:
    """The requests of one engine, by a hash of what matters. Belongs to one event loop."""

    def __init__(self) -> None:
        self._running: Counter[int] = Counter()
        self._suspects: dict[int, None] = {}
        self._guilty: dict[int, None] = {}
        self._one_at_a_time = asyncio.Lock()

    @asynccontextmanager
    async def running(self, request: int) -> AsyncIterator[None]:
        """Note that a request runs within the context; raise UsageError if it is to blame for a crash."""
        async with self._one_at_a_time if request in self._suspects else nullcontext():
            if request in self._guilty:
                raise UsageError(
                    "this request ended the engine's process before, so it is not tried again.",
                    hint="change it; please report it with the log of `-v`.",
                )
            self._running[request] += 1
            try:
                yield
                self._suspects.pop(request, None)
            finally:
                self._running -= Counter([request])

    def crashed(self) -> bool:
        """Note that the process crashed; return whether it is known which request did that."""
        running = [*self._running]
        guilty = [request for request in running if request in self._suspects] or running
        if len(guilty) == 1:
            self._guilty |= dict.fromkeys(guilty)
        else:
            self._suspects |= dict.fromkeys(running)
        for remembered in (self._guilty, self._suspects):
            while len(remembered) > MAX_REMEMBERED:
                del remembered[next(iter(remembered))]
        return len(guilty) == 1
