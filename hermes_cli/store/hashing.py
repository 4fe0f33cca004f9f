"""Hashes of files, computed beside the download instead of after it."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Protocol

from hermes_cli.store.bounded_queue import BoundedQueue

if TYPE_CHECKING:
    from typing import Self

    from hermes_cli.store.hub import RemoteFile

BLOCK = 1 << 20  # bytes that are read, written and hashed at once
BEHIND = 8  # blocks that hashing may be behind; then fetching waits for it


class Hash(Protocol):
    """What is used of hashlib's objects."""

    def update(self, data: bytes | bytearray, /) -> None:
        """Go on with data."""

    def hexdigest(self) -> str:
        """The hash of all that came so far."""

    def copy(self) -> Hash:
        """Another one in the same state."""


def new_hash(file: RemoteFile) -> Hash:
    """What a file on the Hub is checked by, its ETag: SHA-256, or git's hash of a small file (a header, then SHA-1)."""
    return hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)


class Digest:
    """Hashes in a thread what it is fed; hashlib lets other threads run meanwhile. Leaving the `with` block ends it."""

    def __init__(self, *hashes: Hash) -> None:
        self._hashes = hashes
        self._queue: BoundedQueue[bytes | bytearray | None] = BoundedQueue(BEHIND)
        self._thread = threading.Thread(target=self._work, name="hashing", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def feed(self, data: bytes | bytearray) -> None:
        """More of the file, in order; the data is not copied and must stay as it is."""
        self._queue.put(data)

    def results(self) -> list[str]:
        """The hashes of all that was fed, in hexadecimal digits; nothing can be fed after."""
        self._end()
        return [one.hexdigest() for one in self._hashes]

    def _end(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (data := self._queue.get()) is not None:
            for one in self._hashes:
                one.update(data)
