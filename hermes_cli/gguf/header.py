"""Reads the header of a GGUF file: metadata and tensor table, never the weights.

A file may come from anywhere, so nothing in it is believed: every count and length is checked against the bytes that
are really there before anything is read or allocated, and every tensor must lie inside the file. llama.cpp checks most
of this too, but it is C++ in our process; what fails here never reaches it.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_cli.errors import IntegrityError
from hermes_cli.gguf.types import TENSOR_TYPES

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
FETCH_AGAIN = "fetch the file again; its download may be incomplete."

STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

Scalar = int | float | bool | str


@dataclass(frozen=True)
class ArrayInfo:
    """A metadata array that was checked and skipped: vocabularies hold hundreds of thousands of entries."""

    count: int
    offset: int


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: `shape` in elements, row length first as in ggml; `size` in bytes; `offset` from `data_offset`."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Header:
    """What stands before the weights. Tensor data starts `data_offset` bytes into the file."""

    version: int
    metadata: dict[str, Scalar | ArrayInfo]
    tensors: tuple[TensorInfo, ...]
    data_offset: int


class _BadHeaderError(Exception):
    """What is wrong, without the file's name."""


class _Reader:
    """A cursor over bytes that refuses to read past their end."""

    def __init__(self, data: Buffer) -> None:
        self.data = memoryview(data)
        self.at = 0

    def take(self, size: int, what: str) -> memoryview:
        if size > len(self.data) - self.at:
            raise _BadHeaderError(f"it ends in the middle of {what}, at byte {len(self.data):,}")
        piece = self.data[self.at : self.at + size]
        self.at += size
        return piece

    def number(self, code: str, what: str) -> int:
        layout = struct.Struct("<" + code)
        value: int = layout.unpack(self.take(layout.size, what))[0]
        return value

    def string(self, what: str) -> str:
        raw = bytes(self.take(self.number("Q", what), what))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _BadHeaderError(f"{what} is not UTF-8") from error

    def count(self, what: str, least_bytes: int) -> int:
        """A count of things that take at least `least_bytes` each; more than can be left is refused."""
        value = self.number("Q", what)
        if value * least_bytes > len(self.data) - self.at:
            raise _BadHeaderError(f"it claims {value:,} {what}, more than its {len(self.data):,} bytes can hold")
        return value

    def scalar(self, kind: int, what: str) -> Scalar:
        if kind == STRING:
            return self.string(what)
        if kind not in SCALARS:
            raise _BadHeaderError(f"{what} has the unknown type {kind}")
        return self.number(SCALARS[kind], what)

    def array(self, what: str) -> ArrayInfo:
        kind = self.number("I", what)
        if kind == STRING:
            info = ArrayInfo(self.count(f"entries in {what}", 8), self.at)
            self._skip_strings(info.count, what)
            return info
        if kind not in SCALARS:
            raise _BadHeaderError(f"{what} is an array of the unknown type {kind}")
        width = struct.calcsize("<" + SCALARS[kind])
        info = ArrayInfo(self.count(f"entries in {what}", width), self.at)
        self.take(info.count * width, what)
        return info

    def _skip_strings(self, count: int, what: str) -> None:
        # A plain loop over local names: a Llama 3 vocabulary has 410,000 strings to step over.
        length_at, data, at, end = struct.Struct("<Q").unpack_from, self.data, self.at, len(self.data)
        for _ in range(count):
            if end - at < 8:  # noqa: PLR2004 - bytes of a length
                raise _BadHeaderError(f"it ends in the middle of {what}, at byte {end:,}")
            at += 8 + length_at(data, at)[0]
        if at > end:
            raise _BadHeaderError(f"it ends in the middle of {what}, at byte {end:,}")
        self.at = at


def parse_header(data: Buffer, *, file_size: int | None = None) -> Header:
    """Parse the header at the start of `data`.

    Args:
        data: the file, or at least all of its header.
        file_size: bytes of the whole file, if `data` is only its start.

    Raises:
        IntegrityError: not GGUF, damaged, or tensors reach past the end of the file.
    """
    try:
        return _parse(_Reader(data), file_size)
    except _BadHeaderError as error:
        raise IntegrityError(f"not a usable GGUF: {error}.", hint=FETCH_AGAIN) from None


def read_header(path: Path) -> Header:
    """Read and check the header of a file.

    Raises:
        IntegrityError: as `parse_header`, or it cannot be read; the message names the file.
    """
    try:
        return _read_file(path)
    except OSError as error:
        raise IntegrityError(
            f"{path} cannot be read: {error.strerror or error}.",
            hint="check that the file is yours to read and its disk is well.",
        ) from error


def _read_file(path: Path) -> Header:
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise IntegrityError(
                f"{path} is not a GGUF file (it does not start with the letters GGUF).",
                hint="give the path of a model in GGUF format; its name usually ends in .gguf.",
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            reader = _Reader(data)
            try:
                return _parse(reader, None)
            except _BadHeaderError as error:
                raise IntegrityError(f"{path} is damaged: {error}.", hint=FETCH_AGAIN) from None
            finally:
                reader.data.release()


def _parse(reader: _Reader, file_size: int | None) -> Header:
    if bytes(reader.take(4, "its magic number")) != MAGIC:
        raise _BadHeaderError("it does not start with the letters GGUF")
    version = reader.number("I", "its version")
    if version not in VERSIONS:
        raise _BadHeaderError(
            f"GGUF version {version} is unknown; versions {VERSIONS[0]} and {VERSIONS[1]} are supported"
        )
    tensor_count = reader.count("tensors", 24)
    metadata = _metadata(reader, reader.count("metadata entries", 13))
    tensors = tuple(_tensor(reader, index) for index in range(tensor_count))
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise _BadHeaderError(f"its alignment {alignment!r} is not a power of two")
    data_offset = math.ceil(reader.at / alignment) * alignment
    _check_tensors(tensors, alignment, (file_size or len(reader.data)) - data_offset)
    return Header(version, metadata, tensors, data_offset)


def _metadata(reader: _Reader, count: int) -> dict[str, Scalar | ArrayInfo]:
    metadata: dict[str, Scalar | ArrayInfo] = {}
    for index in range(count):
        key = reader.string(f"the name of metadata entry {index}")
        if key in metadata:
            raise _BadHeaderError(f"the metadata entry {key[:100]!r} occurs twice")
        kind = reader.number("I", key)
        metadata[key] = reader.array(key) if kind == ARRAY else reader.scalar(kind, key)
    return metadata


def _tensor(reader: _Reader, index: int) -> TensorInfo:
    name = reader.string(f"the name of tensor {index}")
    dimensions = reader.number("I", f"tensor {name}")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise _BadHeaderError(f"tensor {name} has {dimensions} dimensions, not 1 to {MAX_DIMENSIONS}")
    shape = tuple(reader.number("Q", f"tensor {name}") for _ in range(dimensions))
    kind = reader.number("I", f"tensor {name}")
    if kind not in TENSOR_TYPES:
        raise _BadHeaderError(f"tensor {name} has the unknown type {kind}")
    tensor_type = TENSOR_TYPES[kind]
    if min(shape) < 1 or shape[0] % tensor_type.block_elements:
        raise _BadHeaderError(f"tensor {name} of type {tensor_type.name} cannot have the shape {shape}")
    offset = reader.number("Q", f"tensor {name}")
    return TensorInfo(name, shape, tensor_type.name, offset, tensor_type.size(math.prod(shape)))


def _check_tensors(tensors: tuple[TensorInfo, ...], alignment: int, available: int) -> None:
    """Unique names, aligned offsets, and every last byte within the `available` bytes of tensor data."""
    names: set[str] = set()
    for tensor in tensors:
        if tensor.name in names:
            raise _BadHeaderError(f"tensor {tensor.name} occurs twice")
        names.add(tensor.name)
        if tensor.offset % alignment:
            raise _BadHeaderError(f"tensor {tensor.name} is not aligned to {alignment} bytes")
        if tensor.offset + tensor.size > available:
            missing = tensor.offset + tensor.size - max(available, 0)
            raise _BadHeaderError(
                f"it is truncated: tensor {tensor.name} ends {missing:,} bytes past the end of the file"
            )
