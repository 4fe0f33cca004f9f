"""SHA-256 of files: computed beside a download or by reading a file, and remembered while the file does not change.

The remembered hashes are the only record beside the files themselves. A file counts as unchanged while its path, size
and modification time are the same; losing the record costs hashing again, nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from hermes_cli import paths
from hermes_cli.errors import HermesError
from hermes_cli.store.disk import BLOCK

if TYPE_CHECKING:
    from _hashlib import HASH

    from hermes_cli.store.hub import RemoteFile

RECORD = "verified.json"  # in the cache folder
QUEUED_BLOCKS = 8  # that hashing may lag behind; then the download waits

Item = TypeVar("Item")


class ChangedError(HermesError):
    """A file changed while it was hashed."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} changed while it was read.", hint="wait until it is whole.")


class BoundedQueue(Generic[Item]):
    """A queue of limited size between two threads that Ctrl-C leaves intact.

    An exception in the middle of `queue.Queue`'s Python code can leave its lock taken or a wake-up lost, and then the
    program hangs on its way out. `SimpleQueue` is one piece of C; two of them make a bound.
    """

    def __init__(self, size: int) -> None:
        self._items: SimpleQueue[Item] = SimpleQueue()
        self._slots: SimpleQueue[None] = SimpleQueue()
        for _ in range(size):
            self.add_slot()

    def put(self, item: Item) -> None:
        """Add an item, once there is a free slot."""
        self._slots.get()
        self._items.put(item)

    def get(self, timeout: float | None = None) -> Item:
        """Take the next item; raise queue.Empty if there was none for `timeout` seconds."""
        item = self._items.get(timeout=timeout)
        self.add_slot()
        return item

    def add_slot(self) -> None:
        """Let one more item in."""
        self._slots.put(None)


def hash_for(file: RemoteFile) -> HASH:
    """Return the hash that a file's ETag is: SHA-256, or for small files git's (SHA-1 with a header)."""
    return hashlib.sha256() if file.sha256 else _git_hash(file.size)


def git_hash_of(path: Path) -> str:
    """Return the hash by which git, and so the Hub, knows a small file; it is read as a whole."""
    content = path.read_bytes()
    digest = _git_hash(len(content))
    digest.update(content)
    return digest.hexdigest()


def _git_hash(size: int) -> HASH:
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


class BackgroundHasher:
    """Hashes in a thread; hashlib lets other threads run meanwhile. Leaving the `with` block ends the thread."""

    def __init__(self, algorithm: HASH) -> None:
        self._hash = algorithm
        self._queue: BoundedQueue[bytes | bytearray | None] = BoundedQueue(QUEUED_BLOCKS)
        self._thread = threading.Thread(target=self._run, name="hashing", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._join()

    def update(self, data: bytes | bytearray) -> None:
        """Hash more data, which is not copied and must stay as it is."""
        self._queue.put(data)

    def hexdigest(self) -> str:
        """Return the hash of all data; no more can be added."""
        self._join()
        return self._hash.hexdigest()

    def _join(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            self._hash.update(data)


def sha256_of(path: Path, advance: Callable[[int], None] = lambda _: None) -> str:
    """Return the SHA-256 of a file and remember it; `advance` is called with the number of bytes of each block read.

    Raises:
        OSError: the file cannot be read.
        ChangedError: it changed meanwhile.
    """
    digest, buffer = hashlib.sha256(), bytearray(BLOCK)
    before = path.stat()
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
            advance(count)
    after = path.stat()
    if (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino):
        raise ChangedError(path)
    remember_sha256(path, digest.hexdigest())
    return digest.hexdigest()


def known_sha256(path: Path) -> str | None:
    """Return the SHA-256 of a file when it was last hashed, None if it has changed since or never was."""
    try:
        size, modified, digest = _read_record()[str(path.resolve())]
        stat = path.stat()
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return digest if (size, modified) == (stat.st_size, stat.st_mtime_ns) and isinstance(digest, str) else None


def remember_sha256(path: Path, sha256: str) -> None:
    """Record the SHA-256 of a file, if the record can be written."""
    with suppress(OSError):
        stat = path.stat()
        record = {key: entry for key, entry in _read_record().items() if os.path.exists(key)}  # noqa: PTH110 - keys are text
        record[str(path.resolve())] = (stat.st_size, stat.st_mtime_ns, sha256)
        paths.write_data(paths.cache_dir() / RECORD, json.dumps(record, indent=1).encode())


def _read_record() -> dict[str, tuple[int, int, str]]:
    try:
        record = json.loads((paths.cache_dir() / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
