"""A file that is on its way: `ETAG.incomplete` among the blobs. What is in it stays, whatever ends the process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hermes_cli.store.hashing import BLOCK
from hermes_cli.store.space import writing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

# After a loss of power a file system may show zeros where data never reached the disk. They are at the end, and no
# more than it keeps in memory between two writes; models hardly ever hold so many, so nothing much is lost with them.
ZEROS = 64 << 20


class Partial:
    """Writes go to a stated offset and past all buffers of this process: a killed process loses nothing it wrote.

    Attributes:
        path: the file.
        size: bytes that are in it; `expected` is what it will have in the end.
    """

    def __init__(self, path: Path, expected: int) -> None:
        self.path = path
        self._expected = expected
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        self._file = os.fdopen(handle, "r+b", buffering=0)
        self.size = os.fstat(handle).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, offset: int, data: bytes | bytearray) -> None:
        """Put data at an offset.

        Raises:
            DoesNotFitError: the disk is full; what fitted is kept.
        """
        view = memoryview(data)
        self._file.seek(offset)
        while view:
            with writing(self.path, self._expected - self.size):
                written = self._file.write(view)
            offset += written
            self.size = max(self.size, offset)
            view = view[written:]

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """What is in it, in blocks."""
        while start < stop:
            with writing(self.path):
                self._file.seek(start)
                data = self._file.read(min(BLOCK, stop - start))
            if not data:
                return
            yield data
            start += len(data)

    def cut(self, size: int) -> None:
        """Drop everything after the first `size` bytes."""
        if size < self.size:
            with writing(self.path):
                self._file.truncate(size)
            self.size = size

    def cut_zeros(self) -> None:
        """Drop the zeros at its end."""
        end = self.size
        least = max(0, end - ZEROS)
        while end > least:
            start = max(least, end - BLOCK)
            kept = b"".join(self.read(start, end)).rstrip(b"\0")
            end = start + len(kept)
            if kept:
                break
        self.cut(end)

    def flush(self) -> None:
        """Wait until all of it is on the disk."""
        with writing(self.path):
            os.fsync(self._file.fileno())
