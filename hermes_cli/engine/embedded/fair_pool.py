"""Threads that share work in turns: among clients, and then among the requests of each.

Work is a generator, and each of its steps is one turn. So a short request waits for a step of every longer one, never
for the end of any.
"""

from __future__ import annotations

from collections import deque
from threading import Condition, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_END = object()


class FairPool:
    """A few threads, which end with the process."""

    def __init__(self, threads: int) -> None:
        self._waiting: dict[str, deque[Iterator[None]]] = {}  # by client, the one whose turn it is first
        self._changed = Condition()
        for _ in range(threads):
            Thread(target=self._run, daemon=True).start()

    def submit(self, work: Iterator[None], client: str = "") -> None:
        """Take work, which handles its own errors."""
        with self._changed:
            self._waiting.setdefault(client, deque()).append(work)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            client, work = self._next()
            if next(work, _END) is not _END:
                self.submit(work, client)

    def _next(self) -> tuple[str, Iterator[None]]:
        """Return the next work; its client's next turn comes after those of all others."""
        with self._changed:
            while not self._waiting:
                self._changed.wait()
            client = next(iter(self._waiting))
            queue = self._waiting.pop(client)
            work = queue.popleft()
            if queue:
                self._waiting[client] = queue
            return client, work
