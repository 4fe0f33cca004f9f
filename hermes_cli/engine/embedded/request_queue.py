"""Requests that wait, and whose turn it is."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from hermes_cli.errors import QueueFullError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hermes_cli.engine.embedded.sequence import ActiveSequence


CLIENTS = 4096  # whose last turn is remembered


class RequestQueue:
    """A queue that is fair among clients: whoever has the least at work is next, then whose last turn is longest ago.

    Requests that were put back come before all others, since they have been at work already.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._back: deque[ActiveSequence] = deque()
        self._new: deque[ActiveSequence] = deque()
        self._turns: dict[str, int] = {}  # the number of each client's last turn, the longest ago first
        self._turn = 0

    def __len__(self) -> int:
        return len(self._back) + len(self._new)

    def __iter__(self) -> Iterator[ActiveSequence]:
        yield from self._back
        yield from self._new

    def push(self, request: ActiveSequence) -> None:
        """Wait.

        Raises:
            QueueFullError: too many do already.
        """
        if len(self._new) >= self._most:
            raise QueueFullError(
                f"{len(self._new):,} requests wait already, the most that may.",
                hint="try again in a moment, or allow more with --max-queue.",
            )
        self._new.append(request)

    def put_back(self, request: ActiveSequence) -> None:
        """It was at work and has to wait again."""
        self._back.appendleft(request)

    def begin(self, request: ActiveSequence) -> None:
        """Its turn has come."""
        self.remove(request)
        client = request.job.request.client
        self._turn += 1
        self._turns.pop(client, None)
        self._turns[client] = self._turn
        if len(self._turns) > CLIENTS:
            del self._turns[next(iter(self._turns))]

    def remove(self, request: ActiveSequence) -> None:
        """It waits no more."""
        (self._back if request in self._back else self._new).remove(request)

    def in_turn(self, working: Iterable[ActiveSequence]) -> list[ActiveSequence]:
        """All of them, in the order in which they should begin, given who is at work now."""
        ahead = Counter(request.job.request.client for request in working)
        ranked = []
        for number, request in enumerate(self._new):
            client = request.job.request.client
            ranked.append((ahead[client], self._turns.get(client, 0), number, request))
            ahead[client] += 1
        return [*self._back, *(item[-1] for item in sorted(ranked, key=lambda item: item[:-1]))]
