"""Builds GGUF files byte by byte, right ones and wrong ones."""

from __future__ import annotations

import struct
from collections.abc import Collection
from pathlib import Path

from hermes_cli.gguf.header import GGUFHeader, read_source


def string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str, kind: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + value


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf(
    entries: list[bytes], tensors: list[bytes], data: bytes = b"", *, version: int = 3, magic: bytes = b"GGUF"
) -> bytes:
    head = magic + struct.pack("<IQQ", version, len(tensors), len(entries)) + b"".join(entries + tensors)
    return head + bytes(-len(head) % 32) + data


def write_shards(folder: Path, count: int = 3) -> list[Path]:
    """Write m-00001-of-0000N.gguf and so on, with a tensor each."""
    made = [folder / f"m-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
    for number, path in enumerate(made):
        entries = [
            entry("split.no", 2, struct.pack("<H", number)),
            entry("split.count", 2, struct.pack("<H", count)),
        ]
        path.write_bytes(gguf(entries, [tensor(f"t{number}", (8,))], bytes(32)))
    return made


SMALL = gguf(
    [
        entry("general.architecture", 8, string("llama")),
        entry("llama.block_count", 4, struct.pack("<I", 3)),
        entry("llama.rope.freq_base", 6, struct.pack("<f", 10_000.0)),
        entry("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + string("a") + string("é")),
        entry("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, 2) + struct.pack("<2f", 1.0, 2.0)),
        entry("tokenizer.ggml.add_bos_token", 7, b"\x01"),
    ],
    [tensor("one", (8, 2)), tensor("two", (32,), kind=8, offset=64)],
    bytes(64 + 34),
)


SMALL_SHARD = gguf(
    [
        entry("split.no", 2, struct.pack("<H", 1)),
        entry("split.count", 2, struct.pack("<H", 3)),
        entry("split.tensors.count", 5, struct.pack("<i", 1)),
    ],
    [tensor("one", (8, 2))],
    bytes(64),
)


class Sparse:
    """A source that is a few real bytes and then zeros, as large as it says: what a sparse file can be."""

    def __init__(self, start: bytes, size: int) -> None:
        self.start = start
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        piece = self.start[offset : offset + length]
        return piece + bytes(max(0, min(length, self.size - offset) - len(piece)))


def parse_header(data: bytes, *, file_size: int | None = None, arrays: Collection[str] = ()) -> GGUFHeader:
    """The header at the start of `data`; `file_size` if that is not the whole file."""
    return read_source(Sparse(bytes(data), len(data) if file_size is None else file_size), "it", arrays)
