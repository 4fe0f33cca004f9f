"""Which tensors a model of a given architecture consists of.

Names and shapes are those of llama.cpp's `load_arch_tensors` in src/models/{llama,qwen3,seed-oss}.cpp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_cli.catalog.models import Architecture


class TensorShape(NamedTuple):
    """One tensor: `shape` in elements, row length first as in ggml. One-dimensional ones are always F32."""

    name: str
    shape: tuple[int, ...]


def model_tensors(architecture: Architecture) -> tuple[TensorShape, ...]:
    """Every tensor of the file, in the order of converted files: embedding, layers, output."""
    before, after = outer_tensors(architecture)
    layers = (one for layer in range(architecture.layers) for one in layer_tensors(architecture, layer))
    return (*before, *layers, *after)


def outer_tensors(a: Architecture) -> tuple[list[TensorShape], list[TensorShape]]:
    """The tensors before the layers, of which the first is the embedding, and those after them."""
    before = [TensorShape("token_embd.weight", (a.embedding_length, a.vocabulary))]
    if a.rope_scaling:
        before.append(TensorShape("rope_freqs.weight", (a.head_length // 2,)))
    after = [TensorShape("output_norm.weight", (a.embedding_length,))]
    if not a.tied_embeddings:
        after.append(TensorShape("output.weight", (a.embedding_length, a.vocabulary)))
    return before, after


def layer_tensors(a: Architecture, layer: int) -> Iterator[TensorShape]:
    """The tensors of one layer; their shapes are the same in all layers."""
    name = f"blk.{layer}"
    width, queries, keys = a.embedding_length, a.heads * a.head_length, a.kv_heads * a.head_length
    yield TensorShape(f"{name}.attn_norm.weight", (width,))
    for part, length in (("q", queries), ("k", keys), ("v", keys)):
        yield TensorShape(f"{name}.attn_{part}.weight", (width, length))
        if a.kind == "seed_oss":
            yield TensorShape(f"{name}.attn_{part}.bias", (length,))
    if a.kind == "qwen3":
        yield TensorShape(f"{name}.attn_q_norm.weight", (a.head_length,))
        yield TensorShape(f"{name}.attn_k_norm.weight", (a.head_length,))
    yield TensorShape(f"{name}.attn_output.weight", (queries, width))
    after_attention = "post_attention_norm" if a.kind == "seed_oss" else "ffn_norm"
    yield TensorShape(f"{name}.{after_attention}.weight", (width,))
    yield from _feed_forward(a, name)


def _feed_forward(a: Architecture, name: str) -> Iterator[TensorShape]:
    width, inner = a.embedding_length, a.feed_forward_length
    if a.experts:
        yield TensorShape(f"{name}.ffn_gate_inp.weight", (width, a.experts))
        yield TensorShape(f"{name}.ffn_gate_exps.weight", (width, inner, a.experts))
        yield TensorShape(f"{name}.ffn_up_exps.weight", (width, inner, a.experts))
        yield TensorShape(f"{name}.ffn_down_exps.weight", (inner, width, a.experts))
    else:
        yield TensorShape(f"{name}.ffn_gate.weight", (width, inner))
        yield TensorShape(f"{name}.ffn_up.weight", (width, inner))
        yield TensorShape(f"{name}.ffn_down.weight", (inner, width))
