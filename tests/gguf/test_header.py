from __future__ import annotations

import ctypes
import random
import struct
import sys
import tracemalloc
from pathlib import Path

import pytest
from gguf_bytes import SMALL, SMALL_SHARD, Sparse, entry, gguf, parse_header, string, tensor
from hypothesis import given
from hypothesis import strategies as st
from llama_cpp._ctypes_extensions import load_shared_library
from llama_cpp._ggml import libggml_base_path

from hermes_cli.errors import IntegrityError, InvalidGGUFError
from hermes_cli.gguf.header import GGUFHeader, Split, read_header, read_source
from hermes_cli.gguf.reader import LONGEST_TEXT, MOST_KEPT, SCALARS, FileSource, SkippedValue
from hermes_cli.gguf.types import TENSOR_TYPES


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidGGUFError) as caught:
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
    assert isinstance(tokens, SkippedValue)
    assert tokens.count == 2
    assert [(t.name, t.shape, t.type_name, t.size) for t in header.tensors] == [
        ("one", (8, 2), "F32", 64),
        ("two", (32,), "Q8_0", 34),
    ]
    assert header.data_offset % 32 == 0


def test_every_truncation_is_refused() -> None:
    for size in range(len(SMALL)):
        refusal(SMALL[:size])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (gguf([], [], magic=b"GGML"), "does not start with the letters GGUF"),
        (gguf([], [], version=9), "version 9 is unknown"),
        (gguf([], [], version=1), "GGUF version 1, of August 2023"),
        (gguf([], [], version=3 << 24), "big-endian"),
        (b"tjgg" + bytes(40), "a GGJT file of 2023"),
        (b"PK\x03\x04" + bytes(40), "a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"", "it is empty"),
        (bytes(4096), "begins with zeros"),
        (b"Entry not found", "it is a text, perhaps the answer of a server: Entry not found"),
        (b'{"error": "Invalid username or password."}', "it is JSON, perhaps the answer of a server"),
        (b"\r\n<html><title>502</title>", "a web page"),
        (struct.pack("<Q", 90) + b'{"__metadata__":{}}', "safetensors"),
        (b"\x80\x02\x8a\n", "a Python pickle"),
        (b"\x00\x01\xfe" * 9, "does not start with the letters GGUF"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0),
            "at byte 8 it claims 9,223,372,036,854,775,808 tensors, more than",
        ),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "metadata entries, more than"),
        (gguf([entry("k", 8, struct.pack("<Q", 2**62))], []), "ends in the middle of k"),
        (gguf([entry("k", 9, struct.pack("<IQ", 8, 2**61))], []), "entries in k, more than"),
        (gguf([entry("k", 9, struct.pack("<IQ", 10, 2**61))], []), "entries in k, more than"),
        (gguf([entry("k", 9, struct.pack("<IQ", 9, 1))], []), "array of the unknown type 9"),
        (gguf([entry("k", 99, b"")], []), "unknown type 99"),
        (gguf([entry("k", 4, bytes(4)), entry("k", 4, bytes(4))], []), "'k' occurs twice"),
        (gguf([entry("general.alignment", 4, struct.pack("<I", 3))], []), "alignment 3 is not a power of two"),
        (gguf([entry("general.alignment", 10, struct.pack("<Q", 2**40))], []), "alignment 1099511627776 is not"),
        (gguf([entry("k" * 70_000, 4, bytes(4))], []), "has 70,000 bytes, more than the 65,535 allowed"),
        (gguf([], [tensor("t" * 64, (8,))], bytes(64)), "has 64 bytes, more than the 63 allowed"),
        (gguf([], [tensor("t", (1, 1, 1, 1, 1))], bytes(64)), "5 dimensions"),
        (gguf([], [tensor("t", (0,))], bytes(64)), "cannot have the shape (0,)"),
        (gguf([], [tensor("t", (31,), kind=8)], bytes(64)), "cannot have the shape (31,)"),
        (gguf([], [tensor("t", (8,), kind=999)], bytes(64)), "the type 999, which is unknown"),
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


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (b"GGUF" + struct.pack("<IQQ", 3, 2**35, 0), "34,359,738,368 tensors, more than the 65,536"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**36), "metadata entries, more than the 65,536"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry("k", 9, struct.pack("<IQ", 8, 2**36)), "texts, more than any"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 3) + entry("k", 8, struct.pack("<Q", 2**38)), "'' occurs twice"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 3) + entry("k", 9, struct.pack("<IQ", 12, 2**36)), "'' occurs twice"),
    ],
)
def test_a_huge_file_of_zeros_takes_neither_time_nor_memory(start: bytes, says: str) -> None:
    """The counts could be true of a file of a terabyte; reading stops at limits all the same."""
    tracemalloc.start()
    with pytest.raises(InvalidGGUFError, match=says):
        read_source(Sparse(start, 2**40), "it")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def long_texts(folder: Path, count: int) -> Path:
    """A file with so many texts of the longest kind that is kept, and holes in their place."""
    path = folder / "bomb.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, count))
        for number in range(count):
            file.write(string(f"k{number}") + struct.pack("<IQ", 8, LONGEST_TEXT))
            file.truncate(file.seek(LONGEST_TEXT, 1))
    return path


def test_header_bomb(tmp_path: Path) -> None:
    """Texts that are allowed one by one, and are too many."""
    path = long_texts(tmp_path, 500)
    tracemalloc.start()
    with pytest.raises(InvalidGGUFError, match=r"up to 'k6[0-9]' it has more than 67,108,864 bytes"):
        read_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST_KEPT + 8 * LONGEST_TEXT


def test_no_byte_is_read_twice(tmp_path: Path) -> None:
    read: list[int] = []

    class Counted(FileSource):
        def read(self, offset: int, length: int) -> bytes:
            read.append(length)
            return super().read(offset, length)

    path = long_texts(tmp_path, 5)
    with path.open("rb") as file:
        read_source(Counted(file), "it")
    assert sum(read) <= path.stat().st_size + 512


def test_a_text_as_long_as_a_tokenizer_is_stepped_over() -> None:
    long = "x" * (LONGEST_TEXT + 1)
    header = parse_header(gguf([entry("a", 8, string(long)), entry("b", 4, struct.pack("<I", 7))], []))
    assert header.metadata["a"] == SkippedValue(len(long), 45)
    assert header.metadata["b"] == 7


def test_arrays_are_built_when_asked_for() -> None:
    header = parse_header(SMALL, arrays=("tokenizer.ggml.tokens", "tokenizer.ggml.scores"))
    assert header.metadata["tokenizer.ggml.tokens"] == ("a", "é")
    assert header.metadata["tokenizer.ggml.scores"] == (1.0, 2.0)


def test_arrays_too_large_to_build_are_refused() -> None:
    start = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry("k", 9, struct.pack("<IQ", 12, 2**30))
    with pytest.raises(InvalidGGUFError, match="1,073,741,824 entries, too many to read"):
        read_source(Sparse(start, 2**40), "it", ("k",))


def test_bytes_that_are_no_utf_8_are_replaced_as_llama_cpp_does_not_look_at_them() -> None:
    latin = "C:\\Mödelle\\im.dat".encode("latin-1")
    header = parse_header(gguf([entry("quantize.imatrix.file", 8, struct.pack("<Q", len(latin)) + latin)], []))
    assert header.metadata["quantize.imatrix.file"] == "C:\\M\ufffddelle\\im.dat"


def test_every_valid_type_of_value_is_read() -> None:
    whole = [entry(str(kind), kind, bytes(struct.calcsize(code))) for kind, code in SCALARS.items()]
    arrays = [entry(f"a{kind}", 9, struct.pack("<IQ", kind, 0)) for kind in (*SCALARS, 8)]
    assert len(parse_header(gguf([*whole, *arrays], [])).metadata) == 2 * len(SCALARS) + 1


@pytest.mark.parametrize(
    ("kind", "says", "do"),
    [
        (4, "Q4_2, which llama.cpp removed in 2023", "a newer conversion"),
        (5, "Q4_3, which llama.cpp removed in 2023", "a newer conversion"),
        (31, "Q4_0_4_4, which llama.cpp has removed", "take Q4_0,"),
        (33, "Q4_0_8_8, which llama.cpp has removed", "take Q4_0,"),
        (38, "IQ4_NL_8_8, which llama.cpp has removed", "take IQ4_NL,"),
        (36, "I2_S of bitnet.cpp", "take IQ4_NL,"),
        (144, "only ik_llama.cpp knows", "made for ik_llama.cpp"),
        (156, "only ik_llama.cpp knows", "made for ik_llama.cpp"),
        (43, "needs a newer llama.cpp", "pip install --upgrade"),
    ],
)
def test_a_type_that_llama_cpp_does_not_load_is_no_damage(kind: int, says: str, do: str) -> None:
    with pytest.raises(InvalidGGUFError) as caught:
        parse_header(gguf([], [tensor("t", (256,), kind=kind)], bytes(512)))
    assert says in caught.value.message
    assert do in caught.value.hint
    assert "damaged" not in caught.value.message
    assert "again" not in caught.value.hint


def test_shards_joined_with_cat_are_no_model() -> None:
    assert parse_header(SMALL_SHARD + bytes(64)).split, "a little padding is nothing"
    with pytest.raises(InvalidGGUFError, match="shards had been joined with cat"):
        parse_header(SMALL_SHARD + SMALL_SHARD)
    with pytest.raises(InvalidGGUFError, match="shards had been joined with cat") as caught:
        parse_header(SMALL_SHARD, file_size=3 << 20)
    assert "llama-gguf-split --merge" in caught.value.hint


def test_shards_are_recognised() -> None:
    assert parse_header(SMALL_SHARD).split == Split(2, 3)
    assert parse_header(SMALL).split is None


@pytest.mark.parametrize("chunk", [1, 7, 8, 9, 64])
def test_chunks_of_any_size_read_the_same(chunk: int, demo_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_header(demo_path, ("tokenizer.ggml.tokens",))
    monkeypatch.setattr("hermes_cli.gguf.reader.FIRST_CHUNK", chunk)
    monkeypatch.setattr("hermes_cli.gguf.reader.LARGEST_CHUNK", chunk)
    assert read_header(demo_path, ("tokenizer.ggml.tokens",)) == whole
    assert parse_header(SMALL, arrays=("tokenizer.ggml.tokens",)).metadata["tokenizer.ggml.tokens"] == ("a", "é")


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """The bytes with up to eight changes: overwritten, cut, doubled, or with a number put in its place."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data))
        match rng.randrange(6):
            case 0 | 1:
                data[at] = rng.randrange(256)
            case 2:
                data[at : at + 8] = struct.pack("<Q", rng.choice([0, 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1]))
            case 3:
                del data[at : at + rng.randint(1, 40)]
            case 4:
                data[at:at] = data[at : at + rng.randint(1, 40)]
            case _:
                data[at : at + 4] = struct.pack("<I", rng.randrange(14))
        if not data:
            return b""
    return bytes(data)


def is_refused_or_harmless(data: bytes) -> bool:
    """Parse: True for a header whose tensors lie inside the file, False for InvalidGGUFError. Nothing else may be."""
    try:
        header = parse_header(data)
    except InvalidGGUFError:
        return False
    assert isinstance(header, GGUFHeader)
    assert all(header.data_offset + t.offset + t.size <= len(data) for t in header.tensors)
    return True


@pytest.mark.parametrize("seed", range(10))
def test_two_thousand_mutations_of_a_small_header(seed: int) -> None:
    """With the next test: 20,000 inputs and more."""
    rng = random.Random(seed)
    read = sum(is_refused_or_harmless(mutated(rng.choice([SMALL, SMALL_SHARD]), rng)) for _ in range(2000))
    assert 0 < read < 1500


def test_two_thousand_mutations_of_a_real_header(demo_path: Path) -> None:
    rng = random.Random("real")
    raw = demo_path.read_bytes()
    header, data = raw[: read_header(demo_path).data_offset], raw[read_header(demo_path).data_offset :]
    read = 0
    for _ in range(2000):
        head = mutated(header, rng)
        try:
            parse_header(head, file_size=len(head) + len(data))
            read += 1
        except InvalidGGUFError:
            continue
    assert 0 < read < 1500


@given(st.binary(max_size=300))
def test_any_bytes_behind_the_magic_are_refused_or_harmless(tail: bytes) -> None:
    is_refused_or_harmless(b"GGUF" + struct.pack("<I", 3) + tail)


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
