from __future__ import annotations

import ctypes
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_cpp._ctypes_extensions import load_shared_library
from llama_cpp._ggml import libggml_base_path

from hermes_cli.errors import IntegrityError
from hermes_cli.gguf.header import ArrayInfo, Header, parse_header, read_header
from hermes_cli.gguf.types import TENSOR_TYPES


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


def refusal(data: bytes) -> str:
    with pytest.raises(IntegrityError) as caught:
        parse_header(data)
    return caught.value.message


def test_reads_metadata_and_tensors() -> None:
    header = parse_header(SMALL)
    assert header.version == 3
    assert header.metadata["general.architecture"] == "llama"
    assert header.metadata["llama.block_count"] == 3
    assert header.metadata["llama.rope.freq_base"] == 10_000.0
    assert header.metadata["tokenizer.ggml.add_bos_token"] is True
    tokens = header.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, ArrayInfo)
    assert tokens.count == 2
    assert [(t.name, t.shape, t.type_name, t.size) for t in header.tensors] == [
        ("one", (8, 2), "F32", 64),
        ("two", (32,), "Q8_0", 34),
    ]
    assert header.data_offset % 32 == 0


@pytest.mark.parametrize("size", range(len(SMALL)))
def test_every_truncation_is_refused(size: int) -> None:
    refusal(SMALL[:size])


@given(st.data())
def test_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    """Any bytes changed: either a header whose tensors lie inside the file, or an IntegrityError. Nothing else."""
    raw = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        header = parse_header(bytes(raw))
    except IntegrityError:
        return
    assert isinstance(header, Header)
    assert all(header.data_offset + t.offset + t.size <= len(raw) for t in header.tensors)


@given(st.binary(max_size=200))
def test_any_bytes_behind_the_magic_are_refused_or_harmless(tail: bytes) -> None:
    try:
        header = parse_header(b"GGUF" + tail)
    except IntegrityError:
        return
    assert not header.tensors


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (gguf([], [], magic=b"GGML"), "does not start with the letters GGUF"),
        (gguf([], [], version=9), "version 9 is unknown"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), "9,223,372,036,854,775,808 tensors, more than"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "metadata entries, more than"),
        (gguf([entry("k", 8, struct.pack("<Q", 2**62))], []), "ends in the middle of k"),
        (gguf([entry("k", 9, struct.pack("<IQ", 8, 2**61))], []), "entries in k, more than"),
        (gguf([entry("k", 9, struct.pack("<IQ", 10, 2**61))], []), "entries in k, more than"),
        (gguf([entry("k", 9, struct.pack("<IQ", 9, 1))], []), "array of the unknown type 9"),
        (gguf([entry("k", 99, b"")], []), "unknown type 99"),
        (gguf([entry("k", 4, bytes(4)), entry("k", 4, bytes(4))], []), "'k' occurs twice"),
        (gguf([entry("k", 8, struct.pack("<Q", 1) + b"\xff")], []), "not UTF-8"),
        (gguf([entry("general.alignment", 4, struct.pack("<I", 3))], []), "alignment 3 is not a power of two"),
        (gguf([], [tensor("t", (1, 1, 1, 1, 1))], bytes(64)), "5 dimensions"),
        (gguf([], [tensor("t", (0,))], bytes(64)), "cannot have the shape (0,)"),
        (gguf([], [tensor("t", (31,), kind=8)], bytes(64)), "cannot have the shape (31,)"),
        (gguf([], [tensor("t", (8,), kind=77)], bytes(64)), "unknown type 77"),
        (gguf([], [tensor("t", (8,), offset=4)], bytes(64)), "not aligned"),
        (gguf([], [tensor("t", (8,)), tensor("t", (8,))], bytes(64)), "tensor t occurs twice"),
        (
            gguf([], [tensor("t", (2**40, 2**20))], bytes(64)),
            "truncated: tensor t ends 4,611,686,018,427,387,840 bytes",
        ),
        (gguf([], [tensor("t", (8,), offset=2**63 + 32)], bytes(64)), "truncated: tensor t"),
    ],
)
def test_says_what_is_wrong(data: bytes, says: str) -> None:
    assert says in refusal(data)


def test_only_the_start_of_a_file_is_enough(demo_path: Path) -> None:
    whole = read_header(demo_path)
    start = demo_path.read_bytes()[: whole.data_offset]
    assert parse_header(start, file_size=demo_path.stat().st_size) == whole


def test_names_the_file_and_what_is_missing(demo_path: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(demo_path.read_bytes()[:-1000])
    with pytest.raises(IntegrityError) as caught:
        read_header(cut)
    assert str(cut) in caught.value.message
    assert "truncated" in caught.value.message


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that opens and does not read")
def test_a_file_that_cannot_be_read_is_no_crash() -> None:
    with pytest.raises(IntegrityError, match="/proc/self/mem cannot be read"):
        read_header(Path("/proc/self/mem"))


def test_type_sizes_agree_with_llama_cpp() -> None:
    library = load_shared_library("ggml-base", libggml_base_path)
    library.ggml_type_name.restype = ctypes.c_char_p
    library.ggml_type_size.restype = ctypes.c_size_t
    library.ggml_blck_size.restype = ctypes.c_int64
    for number, kind in TENSOR_TYPES.items():
        name = library.ggml_type_name(number).decode()
        assert (name.lower(), library.ggml_blck_size(number), library.ggml_type_size(number)) == (
            kind.name.lower(),
            kind.block_elements,
            kind.block_bytes,
        )
