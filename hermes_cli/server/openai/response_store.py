"""Responses that are kept in memory for a while, so that requests can go on from them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hermes_cli import large_json

MOST_RESPONSES = 1_000
MOST_BYTES = 64 * 2**20  # of JSON, of all of them together
MOST_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class _StoredResponse:
    client: str
    response: bytes
    items: bytes  # the whole conversation, the answer at the end
    output: bytes  # the answer's own items
    names: tuple[str, ...]  # of those
    until: float

    @property
    def size(self) -> int:
        return len(self.response) + len(self.items) + len(self.output)


class ResponseStore:
    """The latest responses, by id. The oldest are dropped first.

    Nothing is written to disk, and no client sees the responses of another.
    """

    def __init__(
        self,
        most: int = MOST_RESPONSES,
        most_bytes: int = MOST_BYTES,
        seconds: float = MOST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make an empty store; a response that is longer than `most_bytes` is not kept at all."""
        self._most, self._most_bytes, self._seconds, self._clock = most, most_bytes, seconds, clock
        self._kept: dict[str, _StoredResponse] = {}
        self._items: dict[tuple[str, str], _StoredResponse] = {}  # by client and name of an item
        self._bytes = 0

    def __len__(self) -> int:
        self._forget()
        return len(self._kept)

    def put(self, client: str, name: str, response: bytes, before: Sequence[Any], output: Sequence[Any]) -> None:
        """Keep a response as it was sent, with the items of the conversation before it and its own."""
        # One by one: large ones keep the interpreter busy. Plain ASCII: clients send halves of surrogate pairs, too.
        own = [json.dumps(item) for item in output]
        items = f"[{','.join([*map(json.dumps, before), *own])}]".encode()
        names = tuple(str(item["id"]) for item in output)
        kept = _StoredResponse(
            client, response, items, f"[{','.join(own)}]".encode(), names, self._clock() + self._seconds
        )
        self._kept[name] = kept
        self._items |= {(client, item): kept for item in names}
        self._bytes += kept.size
        self._forget()

    def size(self, client: str, name: str) -> int:
        """Return the bytes of a conversation up to the end of a response; 0 if it is not kept."""
        kept = self._find(client, name)
        return len(kept.items) if kept else 0

    def response(self, client: str, name: str) -> bytes | None:
        """Return a response as it was sent; None if it is not kept."""
        kept = self._find(client, name)
        return kept.response if kept else None

    def items(self, client: str, name: str) -> list[dict[str, Any]] | None:
        """Return the conversation up to the end of a response; None if it is not kept."""
        kept = self._find(client, name)
        if kept is None:
            return None
        items: list[dict[str, Any]] = large_json.read(kept.items)
        return items

    def input_items(self, client: str, name: str) -> list[dict[str, Any]] | None:
        """Return the conversation before a response, each item with an id and a type; None if it is not kept."""
        items, kept = self.items(client, name), self._find(client, name)
        if items is None or kept is None:
            return None
        before = items[: len(items) - len(kept.names)]
        return [{"id": f"item_{index}", "type": "message", **item} for index, item in enumerate(before)]

    def item(self, client: str, name: str) -> dict[str, Any] | None:
        """Return an item of a response by its own id; None if it is not kept."""
        self._forget()
        if (kept := self._items.get((client, name))) is None:
            return None
        output: list[dict[str, Any]] = json.loads(kept.output)
        return next(item for item in output if item["id"] == name)

    def drop(self, client: str, name: str) -> bool:
        """Delete a response; return whether it was there."""
        if self._find(client, name) is None:
            return False
        self._drop(name)
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
            self._drop(oldest)

    def _drop(self, name: str) -> None:
        kept = self._kept.pop(name)
        self._bytes -= kept.size
        for item in kept.names:
            if self._items.get((kept.client, item)) is kept:
                del self._items[kept.client, item]
