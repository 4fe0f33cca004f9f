"""Files that our reader takes and llama.cpp does not."""

from __future__ import annotations

import struct
from pathlib import Path

from gguf_bytes import entry, gguf, string, tensor


def hostile(path: Path, **texts: str) -> Path:
    """A llama of one layer whose header our reader takes; `texts` are added to its metadata."""
    figures = {
        "block_count": 1,
        "context_length": 512,
        "embedding_length": 64,
        "feed_forward_length": 64,
        "attention.head_count": 1,
        "vocab_size": 4,
    }
    entries = [
        entry("general.architecture", 8, string("llama")),
        *(entry(f"llama.{key}", 4, struct.pack("<I", value)) for key, value in figures.items()),
        entry("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5)),
        entry("tokenizer.ggml.model", 8, string("no_vocab")),
        *(entry(key.replace("__", "."), 8, string(value)) for key, value in texts.items()),
    ]
    path.write_bytes(gguf(entries, [tensor("token_embd.weight", (64, 4))], bytes(1024)))
    return path
