"""How much memory a model takes once loaded, part by part and device by device, before anything is loaded.

Weights follow from the tensor table and the mix of the quantization, the KV cache from the architecture, the compute
buffer from llama.cpp's own graph and allocator (compute.py). docs/memory.md compares all of it with llama.cpp's logs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

from hermes_cli.catalog.tensors import tensors
from hermes_cli.gguf.types import TENSOR_TYPES
from hermes_cli.planning.compute import Batch, compute_bytes
from hermes_cli.planning.mix import tensor_types

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_cli.catalog.models import Architecture

KvType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
KV_TYPES: tuple[KvType, ...] = get_args(KvType)
CELLS = 256  # llama.cpp pads the context length to a multiple of it (src/llama-context.cpp)
F32 = 4
MICRO_BATCH = 512  # llama.cpp's default n_ubatch

_TYPES = {kind.name.lower(): kind for kind in TENSOR_TYPES.values()}


@dataclass(frozen=True)
class Settings:
    """How a model is loaded, as far as memory goes.

    Attributes:
        context: tokens, of all slots together if the cache is `unified`, else of all slots' equal shares.
        slots: sequences at once.
        micro_batch: tokens that one pass over the weights takes.
        k_type, v_type: types of the KV cache; a quantized V needs flash attention.
    """

    context: int
    slots: int = 1
    micro_batch: int = MICRO_BATCH
    k_type: KvType = "f16"
    v_type: KvType = "f16"
    flash_attention: bool = True
    unified: bool = True

    @property
    def cells(self) -> int:
        """KV cells of one stream."""
        share = self.context if self.unified else math.ceil(self.context / self.slots)
        return math.ceil(share / CELLS) * CELLS

    @property
    def streams(self) -> int:
        """KV caches beside each other."""
        return 1 if self.unified else self.slots


@dataclass(frozen=True)
class Part:
    """Bytes on one device, by what they are for. `overhead` is the backend's own, the rest is llama.cpp's."""

    weights: int = 0
    kv_cache: int = 0
    compute: int = 0
    output: int = 0
    overhead: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.kv_cache + self.compute + self.output + self.overhead

    def __add__(self, other: Part) -> Part:
        return Part(
            self.weights + other.weights,
            self.kv_cache + other.kv_cache,
            self.compute + other.compute,
            self.output + other.output,
            self.overhead + other.overhead,
        )


@dataclass(frozen=True)
class Weights:
    """Bytes of a model's tensors: what is read once for each token (`layers`, `output`), and the embedding table."""

    embedding: int
    layers: tuple[int, ...]
    output: int

    @property
    def total(self) -> int:
        """All tensors of the file."""
        return self.embedding + sum(self.layers) + self.output


@lru_cache(maxsize=2048)
def weights(a: Architecture, quantization: str, *, imatrix: bool) -> Weights:
    """Bytes of the tensors in a quantization; with tied embeddings the output is the embedding table and counts 0."""
    types = tensor_types(a, quantization, imatrix=imatrix)
    layers = [0] * a.layers
    embedding = output = 0
    for name, shape in tensors(a):
        size = _TYPES[types[name].lower()].size(math.prod(shape))
        if name.startswith("blk."):
            layers[int(name.split(".")[1])] += size
        elif name.startswith("token_embd"):
            embedding += size
        else:
            output += size
    return Weights(embedding, tuple(layers), output)


def kv_bytes_per_layer(a: Architecture, settings: Settings) -> int:
    """Bytes of one layer's keys and values: cells x KV heads x head length of each type (src/llama-kv-cache.cpp)."""
    elements = settings.cells * settings.streams * a.kv_heads * a.head_length
    return sum(_TYPES[kind].size(elements) for kind in (settings.k_type, settings.v_type))


def output_bytes(a: Architecture, settings: Settings) -> int:
    """Bytes of the logits that are kept for the sampler: one row for each slot (`output_reserve`)."""
    return a.vocabulary * settings.slots * F32


def batch_of(a: Architecture, settings: Settings) -> Batch:
    """The largest pass that llama.cpp reserves room for."""
    tokens = min(settings.micro_batch, settings.cells * settings.streams)
    rotates = a.head_length % 64 == 0
    return Batch(
        tokens=tokens,
        outputs=tokens,
        cells=settings.cells,
        streams=settings.streams,
        flash_attention=settings.flash_attention,
        rotate_k=rotates and _is_quantized(settings.k_type),
        rotate_v=rotates and _is_quantized(settings.v_type),
    )


def on_cpu(a: Architecture, quantization: str, settings: Settings, *, imatrix: bool) -> Part:
    """Everything on the CPU."""
    return Part(
        weights=weights(a, quantization, imatrix=imatrix).total,
        kv_cache=kv_bytes_per_layer(a, settings) * a.layers,
        compute=compute_bytes(a, batch_of(a, settings)),
        output=output_bytes(a, settings),
    )


def host_inputs(a: Architecture, settings: Settings) -> int:
    """Bytes that stay on the CPU while devices compute: embeddings looked up there, and the attention mask."""
    batch = batch_of(a, settings)
    mask = batch.cells * batch.tokens * (2 if settings.flash_attention else 4)
    return batch.tokens * a.embedding_length * F32 + mask


def on_device(a: Architecture, settings: Settings, layers: Sequence[int], output: int | None) -> Part:
    """One device with some layers' weights (bytes each) and, unless None, the output matrix."""
    batch = replace(batch_of(a, settings), on_gpu=True, with_output=output is not None)
    return Part(
        weights=sum(layers) + (output or 0),
        kv_cache=kv_bytes_per_layer(a, settings) * len(layers),
        compute=compute_bytes(a, batch) if layers or output is not None else 0,
    )


def _is_quantized(kind: KvType) -> bool:
    return kind not in {"f32", "f16", "bf16"}
