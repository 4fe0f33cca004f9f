"""Where the bytes of a GGUF file come from: memory or a file. `store/hub.py` adds files on the Hub."""

from __future__ import annotations

from typing import IO, Protocol


class ByteSource(Protocol):
    """Bytes that can be read at any place. `size` is that of the whole file."""

    @property
    def size(self) -> int:
        """Bytes of the whole file."""

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from `offset` on: `length` of them, or fewer at the end of the file."""


class BytesSource:
    """Bytes in memory, the whole file or, with `size`, only its start."""

    def __init__(self, data: bytes | bytearray | memoryview, size: int | None = None) -> None:
        self._data = memoryview(data)
        self.size = len(self._data) if size is None else size

    def read(self, offset: int, length: int) -> bytes:
        """As `ByteSource`."""
        return bytes(self._data[offset : offset + length])


class FileSource:
    """An open file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = file.seek(0, 2)

    def read(self, offset: int, length: int) -> bytes:
        """As `ByteSource`.

        Raises:
            OSError: the disk cannot be read.
        """
        self._file.seek(offset)
        return self._file.read(length)
