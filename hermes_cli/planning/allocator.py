"""Memory of a compute graph whose buffers are reused as soon as they are free.

A replica, without data, of ggml's graph allocator (ggml/src/ggml-alloc.c, functions named in the comments). Its answer
depends on the order of allocations and on which holes are left, so no formula of sizes alone gives it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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
