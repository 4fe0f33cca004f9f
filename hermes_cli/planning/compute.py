"""The compute buffer: activations of one micro-batch, laid out as llama.cpp's graph allocator does.

The graph is that of llama.cpp's src/models/{llama,qwen3,seed-oss}.cpp and src/llama-graph.cpp: the same tensors in the
same order. Layers are alike, so a few of them show the peak of all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from hermes_cli.planning.allocator import Graph, GraphTensor

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
