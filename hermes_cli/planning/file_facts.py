"""What planning knows of a file: the size of each of its parts, and its architecture if it is one of the family's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_cli.catalog.models import Architecture
from hermes_cli.planning.memory import Weights

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from hermes_cli.gguf.header import GGUFHeader

# What planning/compute.py knows the graph of, by `general.architecture`.
KINDS: dict[str | None, Literal["llama", "qwen3", "seed_oss"]] = {
    "llama": "llama",
    "qwen3": "qwen3",
    "seed_oss": "seed_oss",
}
MOST_EXPERTS = 1024  # more than any model has; a file may claim any number


@dataclass(frozen=True)
class FileFacts:
    """What a file's header says.

    Attributes:
        weights: bytes of its tensors.
        trained_context: tokens; 0 if it does not say.
        architecture: None where the memory of its graph cannot be computed.
    """

    weights: Weights
    trained_context: int
    architecture: Architecture | None


def facts_of(headers: Sequence[GGUFHeader]) -> FileFacts:
    """From the headers of a file, or of all its shards; the first has the metadata."""
    tensors = {tensor.name: tensor for header in headers for tensor in header.tensors}
    weights = Weights.of((name, tensor.size) for name, tensor in tensors.items())
    embedding = tensors.get("token_embd.weight")
    vocabulary = embedding.shape[-1] if embedding else 0
    trained = headers[0].number("context_length") or 0
    return FileFacts(weights, max(trained, 0), _architecture(headers[0], weights, vocabulary))


def _architecture(header: GGUFHeader, weights: Weights, vocabulary: int) -> Architecture | None:
    """The figures that memory depends on. What it does not depend on (tokenizer, base of RoPE) is made up."""
    name = header.text("general.architecture")
    kind = KINDS.get(name)

    def number(key: str, usual: int = 0) -> int:
        """0 stands for what cannot be computed with, such as heads that differ between layers."""
        return usual if f"{name}.{key}" not in header.metadata else header.number(f"{name}.{key}") or 0

    heads, width = number("attention.head_count"), number("embedding_length")
    head_length = number("attention.key_length", width // heads if heads > 0 else 0)
    experts, used = number("expert_count"), number("expert_used_count")
    layers, inner = number("block_count"), number("feed_forward_length")
    kv_heads = number("attention.head_count_kv", heads)
    sound = (
        min(heads, kv_heads, width, head_length, inner, vocabulary) > 0
        and 0 <= used <= experts <= MOST_EXPERTS
        and number("attention.value_length", head_length) == head_length
        and layers == len(weights.layers)
    )
    if kind is None or not sound:
        return None
    return Architecture(
        kind=kind,
        layers=layers,
        embedding_length=width,
        heads=heads,
        kv_heads=kv_heads,
        head_length=head_length,
        feed_forward_length=inner,
        vocabulary=vocabulary,
        tokenizer="llama",
        rope_base=10_000.0,
        tied_embeddings=weights.tied,
        experts=experts,
        experts_used=used,
    )
