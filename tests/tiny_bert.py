"""Writes a BERT for embeddings, a few hundred kilobytes with random weights: llama.cpp runs it as any other."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from gguf_bytes import entry, gguf, string, tensor

LAYERS, WIDTH, HEADS, INNER, CONTEXT = 2, 32, 4, 64, 64
WORDS = ["the", "cat", "dog", "sat", "on", "a", "mat", "hermes", "is", "here", "and", "there", "##s", ".", ",", "?"]
LETTERS = [letter for at in map(chr, range(ord("a"), ord("z") + 1)) for letter in (at, f"##{at}")]
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys((*WORDS, *LETTERS))]
UNKNOWN, CLS, SEP = 1, 2, 3
POOLING = {"mean": 1, "cls": 2, "last": 3, "rank": 4}


def write_tiny_bert(
    path: Path, pooling: str | None = "mean", name: str = "Tiny BERT", tokens: Mapping[str, int] | None = None
) -> Path:
    """Write it; `pooling` as its file states it, and more special tokens by name."""
    figures: dict[str, int | float | bool] = {
        "bert.block_count": LAYERS,
        "bert.context_length": CONTEXT,
        "bert.embedding_length": WIDTH,
        "bert.feed_forward_length": INNER,
        "bert.attention.head_count": HEADS,
        "bert.attention.layer_norm_epsilon": 1e-12,
        "bert.attention.causal": False,
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.bos_token_id": CLS,
        "tokenizer.ggml.eos_token_id": SEP,
        "tokenizer.ggml.unknown_token_id": UNKNOWN,
        "tokenizer.ggml.seperator_token_id": SEP,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.cls_token_id": CLS,
        "tokenizer.ggml.mask_token_id": 4,
        **{f"tokenizer.ggml.{label}_token_id": token for label, token in (tokens or {}).items()},
        **({"bert.pooling_type": POOLING[pooling]} if pooling else {}),
    }
    # Words have a mark in front in GGUF files, and what goes on within a word has none.
    spelled = [token.removeprefix("##") if token[:2] == "##" else f"▁{token}" for token in TOKENS]
    spelled[:5] = TOKENS[:5]
    kinds = [3 if token.startswith("[") else 1 for token in TOKENS]
    entries = [
        entry("general.architecture", 8, string("bert")),
        entry("general.name", 8, string(name)),
        entry("tokenizer.ggml.model", 8, string("bert")),
        entry("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, len(spelled)) + b"".join(map(string, spelled))),
        entry("tokenizer.ggml.token_type", 9, struct.pack(f"<IQ{len(kinds)}i", 5, len(kinds), *kinds)),
        *(_entry(key, value) for key, value in figures.items()),
    ]
    table, data, source = [], b"", random.Random(name)
    for label, shape in _tensors():
        table.append(tensor(label, shape, kind=0, offset=len(data)))
        middle = 1.0 if "norm.weight" in label else 0.0
        values = [middle + source.gauss(0, 0.3) for _ in range(math.prod(shape))]
        data += struct.pack(f"<{len(values)}f", *values)
    path.write_bytes(gguf(entries, table, data))
    return path


def _entry(key: str, value: float) -> bytes:  # a bool and an int are floats, too
    if isinstance(value, bool):
        return entry(key, 7, struct.pack("<?", value))
    if isinstance(value, int):
        return entry(key, 4, struct.pack("<I", value))
    return entry(key, 6, struct.pack("<f", value))


def _tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (WIDTH, len(TOKENS))
    yield "token_types.weight", (WIDTH, 2)
    yield "position_embd.weight", (WIDTH, CONTEXT)
    yield from (("token_embd_norm." + part, (WIDTH,)) for part in ("weight", "bias"))
    for layer in range(LAYERS):
        for name, shape in (
            *((f"attn_{part}", (WIDTH, WIDTH)) for part in ("q", "k", "v", "output")),
            ("ffn_up", (WIDTH, INNER)),
            ("ffn_down", (INNER, WIDTH)),
        ):
            yield f"blk.{layer}.{name}.weight", shape
            yield f"blk.{layer}.{name}.bias", shape[1:]
        for norm in ("attn_output_norm", "layer_output_norm"):
            yield from ((f"blk.{layer}.{norm}.{part}", (WIDTH,)) for part in ("weight", "bias"))
