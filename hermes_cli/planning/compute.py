"""The compute buffer: activations of one micro-batch, laid out as llama.cpp's graph allocator does.

The graph is that of llama.cpp's src/models/{llama,qwen3,seed-oss}.cpp and src/llama-graph.cpp: the same tensors in the
same order. Layers are alike, so a few of them show the peak of all. `Graph.peak` is a replica, without data, of ggml's
graph allocator (ggml/src/ggml-alloc.c, functions named in the comments). Its answer depends on the order of allocations
and on which holes are left, so no formula of sizes alone gives it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_cli.catalog.models import Architecture

LAYERS = 4  # first, two in the middle, last
F32, F16, I32, I64 = 4, 2, 4, 8  # bytes
K_ROTATION_SIZES = (64, 128, 256, 512)
V_ROTATION_SIZE = 64


@dataclass(frozen=True)
class BatchShape:
    """The shape of one micro-batch.

    Attributes:
        tokens: tokens of the micro-batch.
        outputs: tokens whose logits are wanted; llama.cpp reserves room for all.
        cells: KV cells of one stream.
        streams: 1 if the cache is unified, else one for each sequence.
        flash_attention: whether attention is fused.
        rotate_k, rotate_v: quantized caches are rotated by a Hadamard matrix first.
        on_gpu: the embedding is looked up on the CPU, and its result is copied to the device.
        with_output: the device holds the output matrix, so the logits are computed there.
    """

    tokens: int
    outputs: int
    cells: int
    streams: int
    flash_attention: bool
    rotate_k: bool
    rotate_v: bool
    on_gpu: bool = False
    with_output: bool = True


@lru_cache(maxsize=4096)
def compute_bytes(a: Architecture, batch: BatchShape) -> int:
    """Bytes of the compute buffer on one device that holds all layers."""
    return _Builder(a, batch).graph().peak()


class _Builder:
    """Builds the graph; methods are named after those of llama-graph.cpp."""

    def __init__(self, a: Architecture, batch: BatchShape) -> None:
        self.a = a
        self.batch = batch
        self.g = Graph()
        n, queries, values = batch.tokens, a.heads * a.head_length, a.kv_heads * a.head_length
        mask = F16 if batch.flash_attention else F32
        self.tokens = _input(n * I32)
        self.embeddings = _input(n * a.embedding_length * F32, (a.embedding_length, n))
        self.positions = _input(n * I32)
        self.k_cells = _input(n * I64)
        self.v_cells = _input(n * I64 * (1 if batch.flash_attention else values))
        self.mask = _input(batch.cells * n * mask)
        self.outputs = _input(batch.outputs * I32)
        rotation = max(size for size in K_ROTATION_SIZES if a.head_length % size == 0) if batch.rotate_k else 0
        self.k_rotation = _input(rotation * rotation * F32)
        self.v_rotation = _input(V_ROTATION_SIZE * V_ROTATION_SIZE * F32)
        self.query_width = queries

    def graph(self) -> Graph:
        """The whole graph of one micro-batch."""
        a, n = self.a, self.batch.tokens
        if self.batch.on_gpu:
            current = self.embeddings
        else:
            current = self._new(a.embedding_length, n, sources=(self.tokens,))
            self.g.expand(current)
        self.g.expand(self.embeddings)
        layers = min(a.layers, LAYERS)
        for layer in range(layers):
            current = self._layer(current, last=layer == layers - 1)
        if not self.batch.with_output:
            self.g.expand(current)
            return self.g
        normed = self._norm(current)
        logits = self._new(a.vocabulary, self.batch.outputs, sources=(normed,))
        logits.is_output = True
        self.g.expand(logits)
        return self.g

    def _layer(self, start: GraphTensor, *, last: bool) -> GraphTensor:
        attended, kept = self._attention(self._norm(start)), start
        if last:
            width, rows = self.a.embedding_length, self.batch.outputs
            attended = self._new(width, rows, sources=(attended, self.outputs))
            kept = self._new(width, rows, sources=(kept, self.outputs))
        summed = self._in_place(attended, kept)
        forwarded = (self._experts if self.a.experts else self._feed_forward)(self._norm(summed))
        return self._in_place(forwarded, summed)

    def _attention(self, normed: GraphTensor) -> GraphTensor:
        a, b, n = self.a, self.batch, self.batch.tokens
        query = self._projected(normed, a.heads, norm=True, rope=True)
        key = self._projected(normed, a.kv_heads, norm=True, rope=True)
        value = self._projected(normed, a.kv_heads)
        if b.rotate_k:
            query, key = self._rotated(query, self.k_rotation), self._rotated(key, self.k_rotation)
        if b.rotate_v:
            value = self._rotated(value, self.v_rotation)
        for tensor in (query, value, key):
            self.g.expand(tensor)
        self._store(key, self.k_cells)
        self._store(value, self.v_cells)
        seen = _view(_view(query))
        if b.flash_attention:
            mixed = _view(self._new(a.head_length, a.heads, n, sources=(seen, self.mask)))
        else:
            scores = self._new(b.cells, n, a.heads, sources=(seen,))
            weights = self._in_place(scores, self.mask)
            heads = self._new(a.head_length, n, a.heads, sources=(weights,))
            mixed = self._new(self.query_width, n, sources=(_view(heads),))
        self.g.expand(mixed)
        if b.rotate_v:
            mixed = self._rotated(mixed, self.v_rotation)
        return self._new(a.embedding_length, n, sources=(mixed,))

    def _projected(self, normed: GraphTensor, heads: int, *, norm: bool = False, rope: bool = False) -> GraphTensor:
        a, n = self.a, self.batch.tokens
        flat = self._new(heads * a.head_length, n, sources=(normed,))
        if a.kind == "seed_oss":
            flat = self._in_place(flat)
        shaped = _view(flat, (a.head_length, heads, n))
        if norm and a.kind == "qwen3":
            shaped = self._norm(shaped)
        return self._in_place(shaped, self.positions) if rope else shaped

    def _rotated(self, tensor: GraphTensor, rotation: GraphTensor) -> GraphTensor:
        flat = _view(tensor, (rotation.size, tensor.size))
        turned = GraphTensor(tensor.size, flat.shape, (rotation, flat))
        return _view(turned, tensor.shape)

    def _store(self, tensor: GraphTensor, cells: GraphTensor) -> None:
        self.g.expand(GraphTensor(0, (), (_view(tensor), cells), is_external=True))

    def _norm(self, tensor: GraphTensor) -> GraphTensor:
        """RMS norm, then times its weight; each writes over its source where nobody else needs it."""
        return self._in_place(self._in_place(tensor))

    def _feed_forward(self, normed: GraphTensor) -> GraphTensor:
        inner, width, rows = self.a.feed_forward_length, self.a.embedding_length, normed.shape[-1]
        up = self._new(inner, rows, sources=(normed,))
        gate = self._new(inner, rows, sources=(normed,))
        return self._new(width, rows, sources=(self._new(inner, rows, sources=(gate, up)),))

    def _experts(self, normed: GraphTensor) -> GraphTensor:
        a, rows = self.a, normed.shape[-1]
        inner, width, used = a.feed_forward_length, a.embedding_length, a.experts_used
        probabilities = self._in_place(self._new(a.experts, rows, sources=(normed,)))
        order = self._new(a.experts, rows, sources=(probabilities,))
        chosen = _view(order, (used, rows))
        weights = self._new(1, used, rows, sources=(_view(probabilities, (1, a.experts, rows)), chosen))
        flat = _view(weights, (used, rows))
        total = self._in_place(self._new(1, rows, sources=(flat,)))
        share = _view(self._in_place(flat, total), (1, used, rows))
        self.g.expand(share)
        wide = _view(normed, (width, 1, rows))
        up = self._new(inner, used, rows, sources=(wide, chosen))
        gate = self._new(inner, used, rows, sources=(wide, chosen))
        down = self._new(width, used, rows, sources=(self._new(inner, used, rows, sources=(gate, up)), chosen))
        weighted = self.g.expand(self._in_place(down, share))
        parts = [self.g.expand(_view(weighted, (width, rows))) for _ in range(used)]
        result = parts[0]
        for part in parts[1:]:
            result = self.g.expand(self._in_place(result, part))
        return result

    def _new(self, *shape: int, sources: tuple[GraphTensor, ...]) -> GraphTensor:
        return GraphTensor(_activation_bytes(shape), shape, sources)

    def _in_place(self, *sources: GraphTensor) -> GraphTensor:
        shape = sources[0].shape
        return GraphTensor(_activation_bytes(shape), shape, sources, in_place=True)


def _activation_bytes(shape: tuple[int, ...]) -> int:
    """Activations are F32."""
    return F32 * math.prod(shape)


def _input(size: int, shape: tuple[int, ...] = ()) -> GraphTensor:
    return GraphTensor(size, shape or (size,), is_input=True)


def _view(tensor: GraphTensor, shape: tuple[int, ...] | None = None) -> GraphTensor:
    return GraphTensor(tensor.size, shape or tensor.shape, (tensor,), view_of=tensor.view_of or tensor)


ALIGNMENT = 32  # bytes; TENSOR_ALIGNMENT of ggml-impl.h
ENDLESS = 1 << 62


@dataclass(eq=False)
class GraphTensor:
    """A tensor of a graph.

    Attributes:
        size: bytes.
        shape: elements by dimension; a tensor can take the place of its source only if both have the same shape.
        sources: what it is computed from, in ggml's order. Weights and the KV cache are not tensors here.
        in_place: its operation may write over a source (`ggml_op_can_inplace`).
        view_of: the tensor whose memory it is a view of.
        is_input: given from outside, so allocated before the first operation.
        is_output: read from outside, so never freed.
        is_external: it lies in the KV cache, not in this buffer.
    """

    size: int
    shape: tuple[int, ...]
    sources: tuple[GraphTensor, ...] = ()
    in_place: bool = False
    view_of: GraphTensor | None = None
    is_input: bool = False
    is_output: bool = False
    is_external: bool = False
    # What ggml keeps in `struct hash_node`.
    children: int = field(default=0, init=False)
    views: int = field(default=0, init=False)
    owned: bool = field(default=False, init=False)
    offset: int = field(default=0, init=False)


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
                self.expand(source)
            (self.leaves if tensor.is_input else self.nodes).append(tensor)
        return tensor

    def peak(self) -> int:
        """Bytes of the buffer that the whole graph needs (`ggml_gallocr_alloc_graph_impl`)."""
        memory = _Memory()
        for leaf in self.leaves:
            _allocate(memory, leaf)
        for node in self.nodes:
            if node.view_of:
                node.view_of.views += 1
            for source in node.sources:
                source.children += 1
        for node in self.nodes:
            _allocate(memory, node)
            for source in node.sources:
                _release(memory, source)
        return memory.peak


class _Memory:
    """Free blocks in order of address, the last one endless (`struct ggml_dyn_tallocr`)."""

    def __init__(self) -> None:
        self.peak = 0
        self._free = [[0, ENDLESS]]  # offset, size

    def take(self, size: int) -> int:
        """Allocate from the smallest free block that fits, of equal ones the last (`ggml_dyn_tallocr_alloc`)."""
        size = _aligned(size)
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

    def give(self, offset: int, size: int) -> None:
        """Free a block and join it with its neighbours (`ggml_dyn_tallocr_free_bytes`)."""
        size = _aligned(size)
        index = next(i for i, block in enumerate(self._free) if block[0] >= offset + size)
        self._free.insert(index, [offset, size])
        if self._free[index][0] + self._free[index][1] == self._free[index + 1][0]:
            self._free[index][1] += self._free.pop(index + 1)[1]
        if index and self._free[index - 1][0] + self._free[index - 1][1] == self._free[index][0]:
            self._free[index - 1][1] += self._free.pop(index)[1]


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _allocate(memory: _Memory, node: GraphTensor) -> None:
    """`ggml_gallocr_allocate_node`."""
    if node.owned or node.view_of or node.is_external:
        return
    node.owned = True
    for source in node.sources if node.in_place else ():
        if _can_take_place_of(node, source):
            node.offset = source.offset
            source.owned = False  # not to be freed: it lives on as this node
            return
    node.offset = memory.take(node.size)


def _can_take_place_of(node: GraphTensor, source: GraphTensor) -> bool:
    """Return whether the source owns its memory and has no other reader; views never do."""
    alone = source.children == 1 and source.views == 0
    return source.owned and alone and node.shape == source.shape and not source.is_output


def _release(memory: _Memory, source: GraphTensor) -> None:
    """One reader less (the end of `ggml_gallocr_alloc_graph_impl`)."""
    source.children -= 1
    if source.children or source.views:
        return
    if source.view_of:
        root = source.view_of
        root.views -= 1
        if root.views == 0 and root.children == 0:
            _free(memory, root)
    else:
        _free(memory, source)


def _free(memory: _Memory, tensor: GraphTensor) -> None:
    """`ggml_gallocr_free_node`."""
    if tensor.owned and not tensor.is_output:
        memory.give(tensor.offset, tensor.size)
        tensor.owned = False
