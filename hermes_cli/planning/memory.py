"""Memory of a loaded model by part and device, computed before anything is loaded.

Weights follow from the tensor table and the mix of the quantization, the KV cache from the architecture, the compute
buffer from llama.cpp's own graph and allocator (compute.py). docs/memory.md compares all of it with llama.cpp's logs.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal

from hermes_cli.catalog.models import Architecture, TensorShape, layer_tensors, outer_tensors
from hermes_cli.gguf.types import KvType, type_named
from hermes_cli.planning import compute as graphs
from hermes_cli.planning.compute import F16, F32
from hermes_cli.planning.file_architecture import FileArchitecture
from hermes_cli.planning.tensor_types import (
    LayerClass,
    layer_classes,
    layer_facts,
    part_of,
    type_of_part,
    type_of_tensor,
)

if TYPE_CHECKING:
    from hermes_cli.gguf.header import GGUFHeader

Pooling = Literal["mean", "cls", "last"]
CELLS = 256  # llama.cpp pads the context length to a multiple of it (src/llama-context.cpp)
MICRO_BATCH = 512  # llama.cpp's default n_ubatch
Kind = Literal["llama", "qwen3", "seed_oss"]
# The graph of planning/compute.py that an architecture has, by `general.architecture`; docs/memory.md lists them.
KINDS: dict[str, Kind] = {
    "llama": "llama",
    "internlm2": "llama",
    "qwen3": "qwen3",
    "qwen3moe": "qwen3",
    "seed_oss": "seed_oss",
    "qwen2": "seed_oss",
}
# Tensors of a layer that tell one graph from another, and those of each.
TELLING = {"attn_q.bias", "attn_q_norm.weight", "attn_qkv.weight", "ffn_up_shexp.weight", "attn_output.bias"}
TOLD: dict[Kind, set[str]] = {"llama": set(), "qwen3": {"attn_q_norm.weight"}, "seed_oss": {"attn_q.bias"}}
MOST_EXPERTS = 1024  # more than any model has; a file may claim any number
_LAYER = re.compile(r"blk\.([0-9]{1,4})\.")  # a file may claim any number; ten thousand layers are enough


@dataclass(frozen=True)
class ContextSettings:
    """The load parameters that memory depends on."""

    context: int  # tokens, of all slots together if the cache is `unified`, else of all slots' equal shares
    slots: int = 1  # sequences at once
    micro_batch: int = MICRO_BATCH  # tokens that one pass over the weights takes
    # k_type, v_type: types of the KV cache; a quantized V needs flash attention
    k_type: KvType = "f16"
    v_type: KvType = "f16"
    flash_attention: bool = True
    unified: bool = True
    # yarn_factor, yarn_original: the context is stretched by YaRN so many times beyond so many tokens; 0 if not
    yarn_factor: float = 0.0
    yarn_original: int = 0
    # how one embedding is made of the tokens of a text; None for a model that writes text
    pooling: Pooling | None = None

    @property
    def cells(self) -> int:
        """KV cells of one stream."""
        share = self.context if self.unified else math.ceil(self.context / self.slots)
        return math.ceil(share / CELLS) * CELLS

    @property
    def all_cells(self) -> int:
        """KV cells of all streams: one if the cache is unified, else one for each slot."""
        return self.cells * (1 if self.unified else self.slots)

    @property
    def batch_tokens(self) -> int:
        """Tokens of the largest pass that llama.cpp reserves room for."""
        return min(self.micro_batch, self.all_cells)


@dataclass(frozen=True)
class MemoryBreakdown:
    """Bytes on one device, by what they are for. `overhead` is the backend's own, the rest is llama.cpp's."""

    weights: int = 0
    kv_cache: int = 0
    compute: int = 0
    output: int = 0
    overhead: int = 0

    @property
    def total(self) -> int:
        """The sum."""
        return self.weights + self.kv_cache + self.compute + self.output + self.overhead

    def __add__(self, other: MemoryBreakdown) -> MemoryBreakdown:
        return MemoryBreakdown(
            self.weights + other.weights,
            self.kv_cache + other.kv_cache,
            self.compute + other.compute,
            self.output + other.output,
            self.overhead + other.overhead,
        )


@dataclass(frozen=True)
class Weights:
    """Bytes of a model's tensors: the embedding table, each layer, and what comes behind them (`output`).

    With `tied` embeddings the file has no output matrix: the embedding table is used a second time.
    """

    embedding: int
    layers: tuple[int, ...]
    output: int
    tied: bool = False

    @property
    def head(self) -> int:
        """Bytes on the device that computes the logits: it gets a copy of a tied embedding table."""
        return self.output + (self.embedding if self.tied else 0)

    @cached_property
    def total(self) -> int:
        """All tensors of the file."""
        return self.embedding + sum(self.layers) + self.output


@dataclass(frozen=True)
class FileFacts:
    """The facts of a file's header that plans depend on."""

    weights: Weights  # bytes of its tensors
    trained_context: int  # tokens; 0 if it does not say
    architecture: FileArchitecture | None  # None where the memory of its graph cannot be computed


def facts_of(headers: Sequence[GGUFHeader]) -> FileFacts:
    """From the headers of a file, or of all its shards; the first has the metadata."""
    tensors = {tensor.name: tensor for header in headers for tensor in header.tensors}
    layers: Counter[int] = Counter()
    embedding = output = 0
    for name, tensor in tensors.items():
        if layer := _LAYER.match(name):
            layers[int(layer[1])] += tensor.size
        elif name.startswith("token_embd."):
            embedding += tensor.size
        else:
            output += tensor.size
    of_layers = tuple(layers[number] for number in range(max(layers, default=-1) + 1))
    table = Weights(embedding, of_layers, output, tied="output.weight" not in tensors)
    vocabulary = tensors["token_embd.weight"].shape[-1] if "token_embd.weight" in tensors else 0
    trained = headers[0].number("context_length") or 0
    telling = {part for part in TELLING if f"blk.0.{part}" in tensors}
    return FileFacts(table, max(trained, 0), _architecture(headers[0], table, vocabulary, telling))


def _architecture(header: GGUFHeader, table: Weights, vocabulary: int, telling: set[str]) -> FileArchitecture | None:
    """Return the figures that memory depends on; None where no rules are known."""
    name = header.text("general.architecture") or ""
    kind = KINDS.get(name)

    def number(key: str, default: int = 0) -> int:
        """0 stands for what cannot be computed with, such as heads that differ between layers."""
        return default if f"{name}.{key}" not in header.metadata else header.number(f"{name}.{key}") or 0

    heads, width = number("attention.head_count"), number("embedding_length")
    head_length = number("attention.key_length", width // heads if heads > 0 else 0)
    experts, used = number("expert_count"), number("expert_used_count")
    layers, inner = number("block_count"), number("feed_forward_length")
    inner = number("expert_feed_forward_length", inner) if experts else inner
    kv_heads = number("attention.head_count_kv", heads)
    sound = (
        min(heads, kv_heads, width, head_length, inner, vocabulary) > 0
        and 0 <= used <= experts <= MOST_EXPERTS
        and number("attention.value_length", head_length) == head_length
        and layers == len(table.layers)
    )
    if kind is None or not sound or telling != TOLD[kind] or header.metadata.get(f"{name}.attention.causal") is False:
        return None
    return FileArchitecture(
        kind=kind,
        layers=layers,
        embedding_length=width,
        heads=heads,
        kv_heads=kv_heads,
        head_length=head_length,
        feed_forward_length=inner,
        vocabulary=vocabulary,
        tied_embeddings=table.tied,
        experts=experts,
        experts_used=used,
        name=name,
        has_rules=True,
    )


@lru_cache(maxsize=2048)
def weights(architecture: Architecture, quantization: str, *, imatrix: bool) -> Weights:
    """Bytes of the tensors in a quantization."""
    if isinstance(architecture, FileArchitecture):
        return architecture.table(quantization)
    parts = _layer_parts(architecture)

    def in_layer(layer: LayerClass) -> int:
        facts = layer_facts(architecture, quantization, layer, imatrix=imatrix)
        return sum(type_named(type_of_part(part, rank, facts)).size(count) for part, rank, count in parts)

    def outside(tensor: TensorShape) -> int:
        kind = type_of_tensor(architecture, quantization, tensor.name, len(tensor.shape), imatrix=imatrix)
        return type_named(kind).size(math.prod(tensor.shape))

    # Only a few classes of layers differ, and every command that plans asks for hundreds of variants.
    classes = layer_classes(architecture.layers)
    by_class = {layer: in_layer(layer) for layer in set(classes)}
    (embedding, *before), after = outer_tensors(architecture)
    return Weights(
        outside(embedding),
        tuple(by_class[layer] for layer in classes),
        sum(map(outside, (*before, *after))),
        architecture.tied_embeddings,
    )


@lru_cache(maxsize=64)
def _layer_parts(architecture: Architecture) -> tuple[tuple[str, int, int], ...]:
    """Part, dimensions and elements of each tensor of a layer."""
    tensors = layer_tensors(architecture, 0)
    return tuple((part_of(tensor.name), len(tensor.shape), math.prod(tensor.shape)) for tensor in tensors)


@lru_cache(maxsize=4096)
def kv_bytes_per_layer(architecture: Architecture, settings: ContextSettings) -> int:
    """Bytes of one layer's keys and values: cells x KV heads x head length of each type (src/llama-kv-cache.cpp).

    A dry run tells all layers together; with a sliding window or recurrent layers this is their mean.
    """
    if isinstance(architecture, FileArchitecture) and (point := architecture.point(settings)):
        return math.ceil(point.kv_cache / architecture.layers)
    elements = settings.all_cells * architecture.kv_heads * architecture.head_length
    return sum(type_named(kind).size(elements) for kind in (settings.k_type, settings.v_type))


def output_bytes(architecture: Architecture, settings: ContextSettings) -> int:
    """Bytes of the logits that are kept for the sampler: one row for each slot (`output_reserve`)."""
    return architecture.vocabulary * settings.slots * F32


def compute_bytes(
    architecture: Architecture, settings: ContextSettings, *, on_gpu: bool = False, with_output: bool = True
) -> int:
    """Bytes of the compute buffer on one device; where only a dry run knows it, that of the whole graph on the CPU."""
    if isinstance(architecture, FileArchitecture) and (point := architecture.point(settings)):
        return point.compute
    return graphs.compute_bytes(architecture, settings, on_gpu=on_gpu, with_output=with_output)


def on_cpu(architecture: Architecture, table: Weights, settings: ContextSettings, overhead: int = 0) -> MemoryBreakdown:
    """Everything on the CPU."""
    return MemoryBreakdown(
        weights=table.total,
        kv_cache=kv_bytes_per_layer(architecture, settings) * architecture.layers,
        compute=compute_bytes(architecture, settings),
        output=output_bytes(architecture, settings),
        overhead=overhead,
    )


def beside_devices(
    architecture: Architecture, table: Weights, settings: ContextSettings, layers: int, overhead: int = 0
) -> MemoryBreakdown:
    """The CPU's share beside devices: the embedding table and the first `layers`."""
    if layers:
        compute = compute_bytes(architecture, settings, with_output=False)
    else:  # it hands over embeddings, as looked up and as copied, and the attention mask
        mask = settings.cells * settings.batch_tokens * (F16 if settings.flash_attention else F32)
        compute = 2 * settings.batch_tokens * architecture.embedding_length * F32 + mask
    return MemoryBreakdown(
        weights=table.embedding + sum(table.layers[:layers]),
        kv_cache=kv_bytes_per_layer(architecture, settings) * layers,
        compute=compute,
        output=output_bytes(architecture, settings),
        overhead=overhead,
    )


def on_device(
    architecture: Architecture, settings: ContextSettings, layers: Sequence[int], output: int | None, overhead: int = 0
) -> MemoryBreakdown:
    """One device with some layers' weights (bytes each) and, unless None, the output matrix."""
    with_output = output is not None
    used = bool(layers) or with_output
    return MemoryBreakdown(
        weights=sum(layers) + (output or 0),
        kv_cache=kv_bytes_per_layer(architecture, settings) * len(layers),
        compute=compute_bytes(architecture, settings, on_gpu=True, with_output=with_output) if used else 0,
        overhead=overhead,
    )
