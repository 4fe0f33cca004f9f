"""Writes a skeleton GGUF: real header and tensor table, and a hole where the weights would be.

llama.cpp can plan with it (`dry_run`, `no_alloc`) as with the real file, and it takes a few hundred kilobytes of disk.
It can even run it: every weight is zero, which takes as long to read and to multiply as any other number.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

from hermes_cli.catalog.models import model_tensors
from hermes_cli.gguf.header import DEFAULT_ALIGNMENT
from hermes_cli.gguf.types import TENSOR_TYPES, TYPE_NUMBERS
from hermes_cli.planning.tensor_types import tensor_types

if TYPE_CHECKING:
    from pathlib import Path

    from hermes_cli.catalog.models import Architecture

UINT32, FLOAT32, STRING = 4, 6, 8


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _entry(key: str, value: str | float) -> bytes:
    if isinstance(value, str):
        return _string(key) + struct.pack("<I", STRING) + _string(value)
    if isinstance(value, int):
        return _string(key) + struct.pack("<II", UINT32, value)
    return _string(key) + struct.pack("<If", FLOAT32, value)


def metadata(a: Architecture, context: int) -> dict[str, str | int | float]:
    """The keys that llama.cpp needs to build the model; the vocabulary has a size but no entries."""
    figures: dict[str, int | float] = {
        "block_count": a.layers,
        "context_length": context,
        "embedding_length": a.embedding_length,
        "feed_forward_length": a.feed_forward_length,
        "attention.head_count": a.heads,
        "attention.head_count_kv": a.kv_heads,
        "attention.key_length": a.head_length,
        "attention.value_length": a.head_length,
        "attention.layer_norm_rms_epsilon": a.norm_epsilon,
        "rope.dimension_count": a.head_length,
        "rope.freq_base": a.rope_base,
        "vocab_size": a.vocabulary,
    }
    if a.experts:
        figures |= {"expert_count": a.experts, "expert_used_count": a.experts_used}
    return {
        "general.architecture": a.kind,
        **{f"{a.kind}.{key}": value for key, value in figures.items()},
        "tokenizer.ggml.model": "no_vocab",
    }


def write_skeleton(path: Path, architecture: Architecture, context: int, quantization: str = "F16") -> None:
    """Write the file, with tensors of the types that llama.cpp's quantizer would give them."""
    types = tensor_types(architecture, quantization, imatrix=False)
    entries = [_entry(key, value) for key, value in metadata(architecture, context).items()]
    table, offset = [], 0
    for name, shape in model_tensors(architecture):
        kind = TYPE_NUMBERS[types[name].lower()]
        table.append(_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset))
        offset += math.ceil(TENSOR_TYPES[kind].size(math.prod(shape)) / DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT
    head = b"GGUF" + struct.pack("<IQQ", 3, len(table), len(entries)) + b"".join(entries + table)
    start = math.ceil(len(head) / DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT
    with path.open("wb") as file:
        file.write(head)
        file.truncate(start + offset)
