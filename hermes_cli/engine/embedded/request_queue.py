"""The queue of requests that wait for admission, fair among clients."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from hermes_cli.errors import QueueFullError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hermes_cli.engine.embedded.sequence import ActiveSequence


MAX_CLIENTS = 4096  # whose last turn is remembered


class RequestQueue:
    """A queue ordered by client: the fewest active requests first, then the longest time since the last turn.

    Preempted requests come before all others.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._preempted: deque[ActiveSequence] = deque()
        self._waiting: deque[ActiveSequence] = deque()
        self._turns: dict[str, int] = {}  # the number of each client's last turn, the longest ago first
        self._turn = 0

    def __len__(self) -> int:
        return len(self._preempted) + len(self._waiting)

    def __iter__(self) -> Iterator[ActiveSequence]:
        yield from self._preempted
        yield from self._waiting

    def push(self, request: ActiveSequence) -> None:
        """Append a new request.

        Raises:
            QueueFullError: too many do already.
        """
        if len(self._waiting) >= self._limit:
            raise QueueFullError(
                f"{len(self._waiting):,} requests wait already, the most that may.",
                hint="try again in a moment, or allow more with --max-queue.",
            )
        self._waiting.append(request)

    def requeue(self, request: ActiveSequence) -> None:
        """Put a preempted request in front of all others."""
        self._preempted.appendleft(request)

    def begin(self, request: ActiveSequence) -> None:
        """Remove a request that is admitted, and record its client's turn."""
        self.remove(request)
        client = request.job.request.client
        self._turn += 1
        self._turns.pop(client, None)
        self._turns[client] = self._turn
        if len(self._turns) > MAX_CLIENTS:
            del self._turns[next(iter(self._turns))]

    def remove(self, request: ActiveSequence) -> None:
        """Remove a request."""
        (self._preempted if request in self._preempted else self._waiting).remove(request)

    def in_order(self, active: Iterable[ActiveSequence]) -> list[ActiveSequence]:
        """Return all requests in the order of admission, given those that are active."""
        counts = Counter(request.job.request.client for request in active)
        ranked = []
        for number, request in enumerate(self._waiting):
            client = request.job.request.client
            ranked.append((counts[client], self._turns.get(client, 0), number, request))
            counts[client] += 1
        return [*self._preempted, *(item[-1] for item in sorted(ranked, key=lambda item: item[:-1]))]
