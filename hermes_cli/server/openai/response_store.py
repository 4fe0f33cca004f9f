"""Responses that are kept in memory for a while, to be fetched again and to be continued.

Nothing is written to disk, and no client sees the responses of another.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST_RESPONSES = 1_000
MOST_BYTES = 64 * 2**20  # of JSON, of all of them together
MOST_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class _StoredResponse:
    client: str
    response: bytes
    items: bytes  # the whole conversation, the answer at the end
    names: frozenset[str]  # of its own items
    until: float

    @property
    def size(self) -> int:
        return len(self.response) + len(self.items)


class ResponseStore:
    """The latest responses, by id. The oldest are dropped first."""

    def __init__(
        self,
        most: int = MOST_RESPONSES,
        most_bytes: int = MOST_BYTES,
        seconds: float = MOST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make an empty store.

        Args:
            most: responses.
            most_bytes: of JSON, of all together; a longer response is not kept at all.
            seconds: that a response is kept.
            clock: in seconds.
        """
        self._most, self._most_bytes, self._seconds, self._clock = most, most_bytes, seconds, clock
        self._kept: dict[str, _StoredResponse] = {}
        self._bytes = 0

    def __len__(self) -> int:
        self._forget()
        return len(self._kept)

    def put(self, client: str, name: str, response: bytes, before: Sequence[Any], output: Sequence[Any]) -> None:
        """Keep a response.

        Args:
            client: that asked for it.
            name: its id.
            response: as it was sent.
            before: items of the conversation up to it.
            output: items of the response.
        """
        items = json.dumps([*before, *output]).encode()  # plain ASCII: clients send halves of surrogate pairs, too
        names = frozenset(str(item["id"]) for item in output)
        kept = _StoredResponse(client, response, items, names, self._clock() + self._seconds)
        self._kept[name] = kept
        self._bytes += kept.size
        self._forget()

    def response(self, client: str, name: str) -> bytes | None:
        """Return a response as it was sent; None if it is not kept."""
        kept = self._find(client, name)
        return kept.response if kept else None

    def items(self, client: str, name: str) -> list[dict[str, Any]] | None:
        """Return the conversation up to the end of a response; None if it is not kept."""
        kept = self._find(client, name)
        if kept is None:
            return None
        items: list[dict[str, Any]] = json.loads(kept.items)
        return items

    def item(self, client: str, name: str) -> dict[str, Any] | None:
        """Return an item of a response by its own id; None if it is not kept."""
        self._forget()
        for kept in reversed(self._kept.values()):
            if kept.client == client and name in kept.names:
                output: list[dict[str, Any]] = json.loads(kept.response)["output"]
                return next(item for item in output if item["id"] == name)
        return None

    def drop(self, client: str, name: str) -> bool:
        """Delete a response; return whether it was there."""
        if self._find(client, name) is None:
            return False
        self._bytes -= self._kept.pop(name).size
        return True

    def _find(self, client: str, name: str) -> _StoredResponse | None:
        self._forget()
        kept = self._kept.get(name)
        return kept if kept and kept.client == client else None

    def _forget(self) -> None:
        now = self._clock()
        while self._kept:
            oldest = next(iter(self._kept))
            enough = len(self._kept) <= self._most and self._bytes <= self._most_bytes
            if enough and self._kept[oldest].until > now:
                return
            self._bytes -= self._kept.pop(oldest).size
