"""The compute buffer: activations of one micro-batch, laid out as llama.cpp's graph allocator does.

The graph is that of llama.cpp's src/models/{llama,qwen3,seed-oss}.cpp and src/llama-graph.cpp: the same tensors in the
same order. Layers are alike, so a few of them show the peak of all. `Graph.peak` is a replica, without data, of ggml's
graph allocator (ggml/src/ggml-alloc.c, functions named in the comments). Its answer depends on the order of allocations
and on which holes are left, so no formula of sizes alone gives it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from hermes_cli.catalog.models import Architecture
    from hermes_cli.planning.memory import ContextSettings

LAYERS = 4  # first, two in the middle, last
F32, F16, I32, I64 = 4, 2, 4, 8  # bytes
UNQUANTIZED = {"f32", "f16", "bf16"}
K_ROTATION_SIZES = (64, 128, 256, 512)
V_ROTATION_SIZE = 64
ALIGNMENT = 32  # bytes; TENSOR_ALIGNMENT of ggml-impl.h
ENDLESS = 1 << 62


def compute_bytes(
    architecture: Architecture,  # of the model
    settings: ContextSettings,  # the context and the micro-batch
    *,
    on_gpu: bool = False,  # the embedding is looked up on the CPU, and its result is copied to the device
    with_output: bool = True,  # the device holds the output matrix, so the logits are computed there
) -> int:
    """Bytes of the compute buffer on one device, for the largest pass that llama.cpp reserves room for."""
    without, with_all = _peaks(architecture, settings, on_gpu)
    return with_all if with_output else without


@lru_cache(maxsize=4096)
def _peaks(architecture: Architecture, settings: ContextSettings, on_gpu: bool) -> tuple[int, int]:  # noqa: FBT001
    return _peaks_of_shape(_shape(architecture, settings), on_gpu)


class _GraphShape(NamedTuple):
    """All that a graph depends on. Fine-tunes of one base model have the same, and so do many types of KV cache."""

    kind: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_length: int
    feed_forward_length: int
    vocabulary: int
    experts: int
    experts_used: int
    cells: int
    rows: int
    flash_attention: bool
    rotate_k: bool
    rotate_v: bool


def _shape(architecture: Architecture, settings: ContextSettings) -> _GraphShape:
    # quantized caches are rotated by a Hadamard matrix first
    rotates = architecture.head_length % V_ROTATION_SIZE == 0
    return _GraphShape(
        kind=architecture.kind,
        layers=min(architecture.layers, LAYERS),
        width=architecture.embedding_length,
        heads=architecture.heads,
        kv_heads=architecture.kv_heads,
        head_length=architecture.head_length,
        feed_forward_length=architecture.feed_forward_length,
        vocabulary=architecture.vocabulary,
        experts=architecture.experts,
        experts_used=architecture.experts_used,
        cells=settings.cells,
        rows=settings.batch_tokens,  # logits of all are wanted: llama.cpp reserves room for them
        flash_attention=settings.flash_attention,
        rotate_k=rotates and settings.k_type not in UNQUANTIZED,
        rotate_v=rotates and settings.v_type not in UNQUANTIZED,
    )


@lru_cache(maxsize=4096)
def _peaks_of_shape(shape: _GraphShape, on_gpu: bool) -> tuple[int, int]:  # noqa: FBT001
    """Bytes without the output matrix and with it: the graph with it begins with the same tensors."""
    graph, before_output = _GraphBuilder(shape).graph(on_gpu=on_gpu)
    peaks = graph.peaks()
    return peaks[before_output], peaks[-1]


class _GraphBuilder:
    """Builds the graph; methods are named after those of llama-graph.cpp."""

    def __init__(self, shape: _GraphShape) -> None:
        self.shape = shape
        self.width = shape.width
        self.head_length = shape.head_length
        self.flash_attention = shape.flash_attention
        self.cells = shape.cells
        self.rows = shape.rows
        self.rotate_k = shape.rotate_k
        self.rotate_v = shape.rotate_v
        self.g = Graph()
        values = shape.kv_heads * self.head_length
        self.tokens = _input(self.rows * I32)
        self.embeddings = _input(self.rows * self.width * F32, (self.width, self.rows))
        self.positions = _input(self.rows * I32)
        self.k_cells = _input(self.rows * I64)
        self.v_cells = _input(self.rows * I64 * (1 if self.flash_attention else values))
        self.mask = _input(self.cells * self.rows * (F16 if self.flash_attention else F32))
        self.outputs = _input(self.rows * I32)
        rotation = max(size for size in K_ROTATION_SIZES if self.head_length % size == 0) if self.rotate_k else 0
        self.k_rotation = _input(rotation * rotation * F32)
        self.v_rotation = _input(V_ROTATION_SIZE * V_ROTATION_SIZE * F32)

    def graph(self, *, on_gpu: bool) -> tuple[Graph, int]:
        """The whole graph of one micro-batch, and the position of the last tensor before the output matrix."""
        current = self.embeddings
        if not on_gpu:
            current = self.g.expand(_new(self.width, self.rows, sources=(self.tokens,)))
        self.g.expand(self.embeddings)
        layers = min(self.shape.layers, LAYERS)
        for layer in range(layers):
            current = self._layer(current, last=layer == layers - 1)
        self.g.expand(current)
        before_output = len(self.g.nodes) - 1
        logits = _new(self.shape.vocabulary, self.rows, sources=(_norm(current),))
        logits.is_output = True
        self.g.expand(logits)
        return self.g, before_output

    def _layer(self, start: GraphTensor, *, last: bool) -> GraphTensor:
        attended, kept = self._attention(_norm(start)), start
        if last:
            attended = _new(self.width, self.rows, sources=(attended, self.outputs))
            kept = _new(self.width, self.rows, sources=(kept, self.outputs))
        summed = _in_place(attended, kept)
        feed_forward = self._experts if self.shape.experts else self._feed_forward
        return _in_place(feed_forward(_norm(summed)), summed)

    def _attention(self, normed: GraphTensor) -> GraphTensor:
        heads, kv_heads, rows = self.shape.heads, self.shape.kv_heads, self.rows
        query = self._projected(normed, heads, norm=True, rope=True)
        key = self._projected(normed, kv_heads, norm=True, rope=True)
        value = self._projected(normed, kv_heads)
        if self.rotate_k:
            query, key = _rotated(query, self.k_rotation), _rotated(key, self.k_rotation)
        if self.rotate_v:
            value = _rotated(value, self.v_rotation)
        for tensor in (query, value, key):
            self.g.expand(tensor)
        for tensor, cells in ((key, self.k_cells), (value, self.v_cells)):
            self.g.expand(GraphTensor(0, (), (_view(tensor), cells), is_external=True))
        seen = _view(_view(query))
        if self.flash_attention:
            mixed = _view(_new(self.head_length, heads, rows, sources=(seen, self.mask)))
        else:
            scores = _new(self.cells, rows, heads, sources=(seen,))
            weights = _in_place(scores, self.mask)
            by_head = _new(self.head_length, rows, heads, sources=(weights,))
            mixed = _new(heads * self.head_length, rows, sources=(_view(by_head),))
        self.g.expand(mixed)
        if self.rotate_v:
            mixed = _rotated(mixed, self.v_rotation)
        return _new(self.width, rows, sources=(mixed,))

    def _projected(self, normed: GraphTensor, heads: int, *, norm: bool = False, rope: bool = False) -> GraphTensor:
        flat = _new(heads * self.head_length, self.rows, sources=(normed,))
        if self.shape.kind == "seed_oss":
            flat = _in_place(flat)
        shaped = _view(flat, (self.head_length, heads, self.rows))
        if norm and self.shape.kind == "qwen3":
            shaped = _norm(shaped)
        return _in_place(shaped, self.positions) if rope else shaped

    def _feed_forward(self, normed: GraphTensor) -> GraphTensor:
        inner = self.shape.feed_forward_length
        up = _new(inner, self.rows, sources=(normed,))
        gate = _new(inner, self.rows, sources=(normed,))
        return _new(self.width, self.rows, sources=(_new(inner, self.rows, sources=(gate, up)),))

    def _experts(self, normed: GraphTensor) -> GraphTensor:
        experts, used = self.shape.experts, self.shape.experts_used
        inner, width, rows = self.shape.feed_forward_length, self.width, self.rows
        probabilities = _in_place(_new(experts, rows, sources=(normed,)))
        order = _new(experts, rows, sources=(probabilities,))
        chosen = _view(order, (used, rows))
        weights = _new(1, used, rows, sources=(_view(probabilities, (1, experts, rows)), chosen))
        flat = _view(weights, (used, rows))
        total = _in_place(_new(1, rows, sources=(flat,)))
        share = self.g.expand(_view(_in_place(flat, total), (1, used, rows)))
        wide = _view(normed, (width, 1, rows))
        up = _new(inner, used, rows, sources=(wide, chosen))
        gate = _new(inner, used, rows, sources=(wide, chosen))
        down = _new(width, used, rows, sources=(_new(inner, used, rows, sources=(gate, up)), chosen))
        weighted = self.g.expand(_in_place(down, share))
        parts = [self.g.expand(_view(weighted, (width, rows))) for _ in range(used)]
        result = parts[0]
        for part in parts[1:]:
            result = self.g.expand(_in_place(result, part))
        return result


def _new(*shape: int, sources: tuple[GraphTensor, ...]) -> GraphTensor:
    """Activations are F32."""
    return GraphTensor(F32 * math.prod(shape), shape, sources)


def _in_place(*sources: GraphTensor) -> GraphTensor:
    shape = sources[0].shape
    return GraphTensor(F32 * math.prod(shape), shape, sources, in_place=True)


def _norm(tensor: GraphTensor) -> GraphTensor:
    """RMS norm, then times its weight; each writes over its source where nobody else needs it."""
    return _in_place(_in_place(tensor))


def _rotated(tensor: GraphTensor, rotation: GraphTensor) -> GraphTensor:
    flat = _view(tensor, (rotation.size, tensor.size))
    return _view(GraphTensor(tensor.size, flat.shape, (rotation, flat)), tensor.shape)


def _input(size: int, shape: tuple[int, ...] = ()) -> GraphTensor:
    return GraphTensor(size, shape or (size,), is_input=True)


def _view(tensor: GraphTensor, shape: tuple[int, ...] | None = None) -> GraphTensor:
    return GraphTensor(tensor.size, shape or tensor.shape, (tensor,), view_of=tensor.view_of or tensor)


@dataclass(eq=False, slots=True)
class GraphTensor:
    """A tensor of a graph."""

    size: int  # bytes
    # elements by dimension; a tensor can take the place of its source only if both have the same shape
    shape: tuple[int, ...]
    # what it is computed from, in ggml's order. Weights and the KV cache are not tensors here
    sources: tuple[GraphTensor, ...] = ()
    in_place: bool = False  # its operation may write over a source (`ggml_op_can_inplace`)
    view_of: GraphTensor | None = None  # the tensor whose memory it is a view of
    is_input: bool = False  # given from outside, so allocated before the first operation
    is_output: bool = False  # read from outside, so never freed
    is_external: bool = False  # it lies in the KV cache, not in this buffer
    # What ggml keeps in `struct hash_node`.
    children: int = 0
    views: int = 0
    owned: bool = False
    offset: int = 0


class Graph:
    """Tensors in the order in which they are computed."""

    def __init__(self) -> None:
        self.nodes: list[GraphTensor] = []
        self.leaves: list[GraphTensor] = []
        self._seen: set[int] = set()

    def expand(self, tensor: GraphTensor) -> GraphTensor:
        """Add a tensor behind everything that it needs (`ggml_build_forward_expand`)."""
        if id(tensor) not in self._seen:
            self._seen.add(id(tensor))
            for source in tensor.sources:
                if id(source) not in self._seen:
                    self.expand(source)
            (self.leaves if tensor.is_input else self.nodes).append(tensor)
        return tensor

    def peak(self) -> int:
        """Bytes of the buffer that the whole graph needs."""
        return self.peaks()[-1]

    def peaks(self) -> list[int]:
        """Bytes of the buffer that the graph needs up to each node (`ggml_gallocr_alloc_graph_impl`)."""
        buffer, peaks = _Buffer(), []
        for leaf in self.leaves:
            buffer.allocate(leaf)
        for node in self.nodes:
            if node.view_of:
                node.view_of.views += 1
            for source in node.sources:
                source.children += 1
        for node in self.nodes:
            buffer.allocate(node)
            peaks.append(buffer.peak)
            for source in node.sources:
                buffer.release(source)
        return peaks


class _Buffer:
    """Free blocks in order of address, the last one endless (`struct ggml_dyn_tallocr`)."""

    def __init__(self) -> None:
        self.peak = 0
        self._free = [[0, ENDLESS]]  # offset, size

    def allocate(self, node: GraphTensor) -> None:
        """`ggml_gallocr_allocate_node`."""
        if node.owned or node.view_of or node.is_external:
            return
        node.owned = True
        for source in node.sources if node.in_place else ():
            # the source's place, if that has no other reader; views own none
            alone = source.children == 1 and source.views == 0
            if source.owned and alone and node.shape == source.shape and not source.is_output:
                node.offset = source.offset
                source.owned = False  # not to be freed: it lives on as this node
                return
        node.offset = self._take(_aligned(node.size))

    def release(self, source: GraphTensor) -> None:
        """One reader less (the end of `ggml_gallocr_alloc_graph_impl`)."""
        source.children -= 1
        if source.children or source.views:
            return
        owner = source
        if source.view_of:
            owner = source.view_of
            owner.views -= 1
            if owner.views or owner.children:
                return
        if owner.owned and not owner.is_output:  # `ggml_gallocr_free_node`
            self._give(owner.offset, _aligned(owner.size))
            owner.owned = False

    def _take(self, size: int) -> int:
        """Allocate from the smallest free block that fits, of equal ones the last (`ggml_dyn_tallocr_alloc`)."""
        best = len(self._free) - 1
        for index, (_, room) in enumerate(self._free[:-1]):
            if size <= room and (best == len(self._free) - 1 or room <= self._free[best][1]):
                best = index
        block = self._free[best]
        offset = block[0]
        block[0] += size
        block[1] -= size
        if block[1] == 0:
            del self._free[best]
        self.peak = max(self.peak, offset + size)
        return offset

    def _give(self, offset: int, size: int) -> None:
        """Free a block and join it with its neighbours (`ggml_dyn_tallocr_free_bytes`)."""
        index = next(i for i, block in enumerate(self._free) if block[0] >= offset + size)
        self._free.insert(index, [offset, size])
        if self._free[index][0] + self._free[index][1] == self._free[index + 1][0]:
            self._free[index][1] += self._free.pop(index + 1)[1]
        if index and self._free[index - 1][0] + self._free[index - 1][1] == self._free[index][0]:
            self._free[index - 1][1] += self._free.pop(index)[1]


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
