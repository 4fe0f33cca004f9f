"""A cursor over the bytes of a GGUF header that never reads, allocates or loops more than the file can justify."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO, Protocol


class ByteSource(Protocol):
    """A file that can be read at any place."""

    @property
    def size(self) -> int:
        """Return the bytes of the whole file."""

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on, or fewer at the end of the file."""


class FileSource:
    """An open file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = file.seek(0, 2)

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on, or fewer at the end of the file."""
        self._file.seek(offset)
        return self._file.read(length)


STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

START_BYTES = 512
FIRST_CHUNK, LARGEST_CHUNK = 1 << 16, 1 << 20  # bytes asked of the source at once
LONGEST_TEXT = 1 << 20  # bytes of a text that is kept; longer ones (a whole tokenizer.json) are stepped over
LARGEST_BUILT = 1 << 26  # bytes of an array that is built because somebody asked for it
MOST_KEPT = 1 << 26  # bytes of all names, texts and built arrays together; the largest known files have 20 MB
MOST_STRINGS = 4_000_000  # in all arrays together; the largest known vocabularies have under a million

Scalar = int | float | bool | str


@dataclass(frozen=True)
class SkippedValue:
    """An array or a long text that was checked and stepped over: `count` entries or bytes, from byte `offset` on."""

    count: int
    offset: int


Value = Scalar | SkippedValue | tuple[Scalar, ...]


class BadHeaderError(Exception):
    """A fault in a header, without the file's name. With a `hint` the file is not damaged, but cannot be loaded."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class HeaderReader:
    """Reads forward through a source, chunk by chunk."""

    def __init__(self, source: ByteSource) -> None:
        """Read the first bytes of a source, and stand before them; `start` has what tells its format."""
        self._source = source
        self.size = source.size
        self._chunk = source.read(0, max(FIRST_CHUNK, START_BYTES))
        self.start = self._chunk[:START_BYTES]
        self._start = 0  # of the chunk, in the file
        self._at = 0  # in the chunk
        self._ahead = FIRST_CHUNK
        self._strings = self._kept = 0

    @property
    def position(self) -> int:
        """Bytes from the start of the file."""
        return self._start + self._at

    def take(self, size: int, what: str) -> memoryview:
        """Return the next `size` bytes."""
        if size > len(self._chunk) - self._at:
            self._fill(size, what)
        piece = memoryview(self._chunk)[self._at : self._at + size]
        self._at += size
        return piece

    def peek(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from anywhere, or fewer at the end of the file, without moving."""
        return self._source.read(offset, size) if offset < self.size else b""

    def skip(self, size: int, what: str) -> None:
        """Step over `size` bytes without reading them."""
        if size > self.size - self.position:
            raise self._ends_in(what)
        self._at += size

    def number(self, code: str, what: str) -> int:
        """Read one number, by its letter in `struct`."""
        layout = struct.Struct("<" + code)
        value: int = layout.unpack(self.take(layout.size, what))[0]
        return value

    def count(self, what: str, least_bytes: int) -> int:
        """Read a count of things that take at least `least_bytes` each; more than can be left is refused."""
        at, value = self.position, self.number("Q", what)
        if value * least_bytes > self.size - self.position:
            raise BadHeaderError(f"at byte {at:,} it claims {value:,} {what}, more than its {self.size:,} bytes hold")
        return value

    def string(self, what: str, longest: int) -> str:
        """Read a text of at most `longest` bytes."""
        at, length = self.position, self.number("Q", what)
        if length > min(longest, self.size - self.position):
            if length > self.size - self.position:
                raise self._ends_in(what)
            raise BadHeaderError(f"at byte {at:,}, {what} has {length:,} bytes, more than the {longest:,} allowed")
        return self._decoded(length, what)

    def value(self, what: str, *, build: bool) -> Value:
        """Read a metadata value with its type in front; arrays are built only if asked for."""
        kind = self.number("I", what)
        if kind == ARRAY:
            return self._array(what, build=build)
        if kind == STRING:
            length = self.number("Q", what)
            if length <= LONGEST_TEXT:
                return self._decoded(length, what)
            text = SkippedValue(length, self.position)
            self.skip(length, what)
            return text
        if kind not in SCALARS:
            raise BadHeaderError(f"{what}, at byte {self.position:,}, has the unknown type {kind}")
        return self.number(SCALARS[kind], what)

    def _decoded(self, length: int, what: str) -> str:
        self._keep(length, what)
        # llama.cpp does not look at the bytes; older tools wrote file names in Latin-1 into files.
        return str(self.take(length, what), "utf-8", "replace")

    def _keep(self, length: int, what: str) -> None:
        """Count bytes that are kept in memory."""
        self._kept += length
        if self._kept > MOST_KEPT:
            raise BadHeaderError(
                f"up to {what[:100]!r} it has more than {MOST_KEPT:,} bytes of text, more than any model"
            )

    def _array(self, what: str, *, build: bool) -> SkippedValue | tuple[Scalar, ...]:
        kind = self.number("I", what)
        if kind != STRING and kind not in SCALARS:
            raise BadHeaderError(f"{what}, at byte {self.position:,}, is an array of the unknown type {kind}")
        width = 8 if kind == STRING else struct.calcsize("<" + SCALARS[kind])
        array = SkippedValue(self.count(f"entries in {what}", width), self.position)
        if kind == STRING:
            self._strings += array.count
            if self._strings > MOST_STRINGS:
                raise BadHeaderError(f"with {what} it claims {self._strings:,} texts, more than any vocabulary has")
        if build:
            return self._built(kind, array.count, width, what)
        if kind == STRING:
            self._skip_strings(array.count, what)
        else:
            self.skip(array.count * width, what)
        return array

    def _built(self, kind: int, count: int, width: int, what: str) -> tuple[Scalar, ...]:
        if count * width > LARGEST_BUILT:
            raise BadHeaderError(f"{what} has {count:,} entries, too many to read")
        if kind != STRING:
            layout = struct.Struct(f"<{count}{SCALARS[kind]}")
            self._keep(layout.size, what)
            return layout.unpack(self.take(layout.size, what))
        start, texts = self.position, []
        for _ in range(count):
            texts.append(self.string(what, LONGEST_TEXT))
            if self.position - start > LARGEST_BUILT:
                raise BadHeaderError(f"{what} is longer than {LARGEST_BUILT:,} bytes")
        return tuple(texts)

    def _skip_strings(self, count: int, what: str) -> None:
        # A plain loop over local names: a Llama 3 vocabulary has 410,000 strings to step over.
        length_at = struct.Struct("<Q").unpack_from
        while count:
            if len(self._chunk) - self._at < 8:  # noqa: PLR2004 - bytes of a length
                self._fill(8, what)
            chunk, at, last = self._chunk, self._at, len(self._chunk) - 8
            while count and at <= last:
                at += 8 + length_at(chunk, at)[0]
                count -= 1
            self._at = at
        if self.position > self.size:
            raise self._ends_in(what)

    def _fill(self, size: int, what: str) -> None:
        """Have at least `size` bytes from the current position on in the chunk."""
        position = self.position
        if size > self.size - position:
            raise self._ends_in(what)
        rest = self._chunk[self._at :]
        length = max(size, min(self._ahead, self.size - position))
        self._chunk = rest + self._source.read(position + len(rest), length - len(rest))
        self._start, self._at = position, 0
        self._ahead = min(self._ahead * 2, LARGEST_CHUNK)
        if len(self._chunk) < size:
            raise self._ends_in(what)

    def _ends_in(self, what: str) -> BadHeaderError:
        return BadHeaderError(f"it ends in the middle of {what}, at byte {self.size:,}")
