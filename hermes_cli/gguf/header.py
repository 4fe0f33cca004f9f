"""Reads the header of a GGUF file: metadata and tensor table, never the weights.

A file may come from anywhere, so nothing in it is believed: every count and length is checked against the file's size
and against limits before anything is read or allocated, and every tensor must lie inside the file. llama.cpp checks
most of this too, but it is C++; what fails here never reaches it.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from hermes_cli.errors import IntegrityError, InvalidGGUFError
from hermes_cli.gguf.reader import BadHeaderError, ByteSource, FileSource, HeaderReader, Value
from hermes_cli.gguf.types import FILE_TYPES, TENSOR_TYPES, UPGRADE, why_not_loadable
from hermes_cli.paths import access_error

MAGIC = b"GGUF"
VERSIONS = (2, 3)
NEWEST_VERSION = 99  # a larger number is no version
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 20
MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
MAX_NAME = 63  # GGML_MAX_NAME without the closing zero: llama.cpp refuses longer names of tensors
MAX_KEY = 65_535  # the format's own limit
MAX_ENTRIES = 65_536  # of metadata, and of tensors; the largest known files have a few thousand
MOST_PADDING = 1 << 20  # bytes behind the last tensor of a file, at most
FETCH_AGAIN = "fetch the file again; its download may be incomplete."


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: `shape` in elements, row length first as in ggml; `size` in bytes; `offset` from `data_offset`."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Split:
    """A file made by gguf-split: number `number` (from 1) of `count`."""

    number: int
    count: int


@dataclass(frozen=True)
class GGUFHeader:
    """Metadata and tensor table of a file of `file_size` bytes; tensor data starts at byte `data_offset`."""

    version: int
    metadata: dict[str, Value]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    file_size: int

    @property
    def split(self) -> Split | None:
        """Return the shard's number and count, or None for a whole file."""
        number, count = self.metadata.get("split.no"), self.metadata.get("split.count")
        if not isinstance(number, int) or not isinstance(count, int) or count < 2:  # noqa: PLR2004 - one is no split
            return None
        return Split(number + 1, count)

    @property
    def file_type(self) -> str | None:
        """Return the mix of tensor types that it states, such as `Q4_K_M`; None if it states none that is known."""
        number = self.number("general.file_type")
        return None if number is None else FILE_TYPES.get(number)

    def text(self, key: str) -> str | None:
        """Return a metadata text, None if there is none of that name."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int | None:
        """Return a whole number of the architecture (`context_length`) or, with a dot in it, of the file."""
        value = self.metadata.get(key if "." in key else f"{self.text('general.architecture')}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_header(path: Path, arrays: Collection[str] = ()) -> GGUFHeader:
    """Read and check the header of a file; `arrays` names the metadata arrays to build as tuples.

    Raises:
        InvalidGGUFError: not GGUF, damaged, or made for another program than llama.cpp.
        IntegrityError: the file cannot be read.
        AccessError: it may not be read.
    """
    try:
        with path.open("rb") as file:
            return read_source(FileSource(file), str(path), arrays)
    except PermissionError as error:
        raise access_error(path, error) from None
    except OSError as error:
        raise IntegrityError(
            f"{path} cannot be read: {error.strerror or error}.",
            hint="check that the file is yours to read and its disk is well.",
        ) from error


def read_source(source: ByteSource, name: str, arrays: Collection[str] = ()) -> GGUFHeader:
    """Read and check the header of any source, which messages call `name`; raises as `read_header`."""
    reader = HeaderReader(source)
    if reader.start[:4] != MAGIC:
        what, hint = other_format(reader.start)
        raise InvalidGGUFError(f"{name} is not a GGUF file: {what}.", hint=hint)
    try:
        return _parse(reader, arrays)
    except BadHeaderError as error:
        if error.hint:
            raise InvalidGGUFError(f"llama.cpp cannot load {name}: {error}.", hint=error.hint) from None
        raise InvalidGGUFError(f"{name} is damaged: {error}.", hint=FETCH_AGAIN) from None


def _parse(reader: HeaderReader, arrays: Collection[str]) -> GGUFHeader:
    reader.take(4, "its magic number")
    version = _version(reader)
    tensor_count = _count(reader, "tensors", 24)
    metadata: dict[str, Value] = {}
    for index in range(_count(reader, "metadata entries", 13)):
        key = reader.string(f"the name of metadata entry {index}", MAX_KEY)
        if key in metadata:
            raise BadHeaderError(f"the metadata entry {key[:100]!r} occurs twice")
        metadata[key] = reader.value(key, build=key in arrays)
    tensors = tuple(_tensor(reader, index) for index in range(tensor_count))
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise BadHeaderError(f"its alignment {alignment!r} is not a power of two up to {MAX_ALIGNMENT:,}")
    data_offset = math.ceil(reader.position / alignment) * alignment
    _check_tensors(tensors, alignment, reader.size - data_offset)
    header = GGUFHeader(version, metadata, tensors, data_offset, reader.size)
    end = data_offset + max((tensor.offset + tensor.size for tensor in tensors), default=0)
    if header.split and _goes_on(reader, end, alignment):
        raise BadHeaderError(
            f"it is shard {header.split.number} of {header.split.count} with {reader.size - end:,} bytes more behind "
            "it, as if shards had been joined with cat",
            hint="give the first of the shards as they were, or merge them: llama-gguf-split --merge FIRST NEW.",
        )
    return header


def _goes_on(reader: HeaderReader, end: int, alignment: int) -> bool:
    """Return whether behind the tensors, and padding perhaps, there is another GGUF, or too much to be padding."""
    starts = {end, math.ceil(end / alignment) * alignment}
    return reader.size > end + MOST_PADDING or any(reader.peek(start, len(MAGIC)) == MAGIC for start in starts)


def _version(reader: HeaderReader) -> int:
    version = reader.number("I", "its version")
    if version in VERSIONS:
        return version
    # A small number read in the wrong byte order has its only byte on the left.
    if version and version % (1 << 24) == 0:
        raise BadHeaderError(
            "it is a big-endian GGUF, which this machine cannot load",
            hint="convert it with gguf_convert_endian.py of llama.cpp, or fetch the usual little-endian file.",
        )
    if version == 1:
        raise BadHeaderError(
            "it is GGUF version 1, of August 2023, which llama.cpp no longer loads", hint="fetch a newer conversion."
        )
    problem = f"GGUF version {version} is unknown; versions {VERSIONS[0]} and {VERSIONS[1]} are supported"
    raise BadHeaderError(problem, hint=f"{UPGRADE}." if VERSIONS[1] < version <= NEWEST_VERSION else "")


def _count(reader: HeaderReader, what: str, least_bytes: int) -> int:
    value = reader.count(what, least_bytes)
    if value > MAX_ENTRIES:
        raise BadHeaderError(f"it claims {value:,} {what}, more than the {MAX_ENTRIES:,} that any model has")
    return value


def _tensor(reader: HeaderReader, index: int) -> TensorInfo:
    name = reader.string(f"the name of tensor {index}", MAX_NAME)
    dimensions = reader.number("I", f"tensor {name}")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise BadHeaderError(f"tensor {name} has {dimensions} dimensions, not 1 to {MAX_DIMENSIONS}")
    layout = struct.Struct(f"<{dimensions}QIQ")
    *shape, kind, offset = layout.unpack(reader.take(layout.size, f"tensor {name}"))
    tensor_type = TENSOR_TYPES.get(kind)
    if tensor_type is None:
        why, hint = why_not_loadable(kind) or ("which is unknown", "")
        raise BadHeaderError(f"tensor {name} has the type {kind}, {why}", hint=hint)
    if min(shape) < 1 or shape[0] % tensor_type.block_elements:
        raise BadHeaderError(f"tensor {name} of type {tensor_type.name} cannot have the shape {tuple(shape)}")
    return TensorInfo(name, tuple(shape), tensor_type.name, offset, tensor_type.size(math.prod(shape)))


def _check_tensors(tensors: tuple[TensorInfo, ...], alignment: int, available: int) -> None:
    """Unique names, aligned offsets, and every last byte within the `available` bytes of tensor data."""
    names: set[str] = set()
    for tensor in tensors:
        if tensor.name in names:
            raise BadHeaderError(f"tensor {tensor.name} occurs twice")
        names.add(tensor.name)
        if tensor.offset % alignment:
            raise BadHeaderError(f"tensor {tensor.name} is not aligned to {alignment} bytes")
        if tensor.offset + tensor.size > available:
            missing = tensor.offset + tensor.size - max(available, 0)
            raise BadHeaderError(
                f"it is truncated: tensor {tensor.name} ends {missing:,} bytes past the end of the file"
            )


GIVE_A_GGUF = "give the path of a model in GGUF format; its name usually ends in .gguf."
CONVERT = "fetch a GGUF of the model, or make one with convert_hf_to_gguf.py of llama.cpp."
NEWER_CONVERSION = "fetch a conversion to GGUF; llama.cpp no longer loads these."
FETCH_THE_FILE = "fetch the file itself: hermes pull OWNER/REPOSITORY, or git lfs pull in a clone."
FETCH_AGAIN = "if a download made this file, fetch it again; for a gated or private repository log in: hf auth login"
LONGEST_EXCERPT = 60  # characters

# By the first bytes, white space left out.
_BY_START: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "it is a Git LFS pointer, not the model", FETCH_THE_FILE),
    (b"version https://hawser", "it is a Git LFS pointer, not the model", FETCH_THE_FILE),
    (b"tjgg", "it is a GGJT file of 2023, older than GGUF", NEWER_CONVERSION),
    (b"lmgg", "it is a GGML file of 2023, older than GGUF", NEWER_CONVERSION),
    (b"fmgg", "it is a GGMF file of 2023, older than GGUF", NEWER_CONVERSION),
    (b"PK\x03\x04", "it is a zip archive, perhaps PyTorch weights", CONVERT),
    (b"\x80\x02", "it is a Python pickle, perhaps PyTorch weights", CONVERT),
    (b"\x1f\x8b", "it is compressed with gzip", "unpack it first: gunzip."),
    (b"\x28\xb5\x2f\xfd", "it is compressed with Zstandard", "unpack it first: unzstd."),
    (b"<", "it is a web page", FETCH_AGAIN),
)
_SAFETENSORS = re.compile(rb"(?s).{6}\x00\x00\{\s*\"")


def other_format(start: bytes) -> tuple[str, str]:
    """Return what a file without GGUF's magic number is, by its first few hundred bytes, and what to do about it."""
    if not start:
        return "it is empty", "fetch the file again."
    if not start.strip(b"\0"):
        return "it begins with zeros: its place was reserved, but it was never written", "fetch the file again."
    bare = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, what, hint in _BY_START:
        if bare[: len(magic)].lower() == magic.lower():
            return what, hint
    if _SAFETENSORS.match(start):
        return "it has weights in the format safetensors", CONVERT
    text = bare.decode("utf-8", "ignore")
    if text and all(character.isprintable() or character.isspace() for character in text):
        line = " ".join(text.split())
        excerpt = line if len(line) <= LONGEST_EXCERPT else f"{line[:LONGEST_EXCERPT]}…"
        kind = "JSON" if bare[:1] in (b"{", b"[") else "a text"
        return f"it is {kind}, perhaps the answer of a server: {excerpt}", FETCH_AGAIN
    return "it does not start with the letters GGUF", GIVE_A_GGUF
