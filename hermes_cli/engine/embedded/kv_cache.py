"""Allocation of the cells of llama.cpp's unified KV cache to sequences, with prefix sharing.

A cell holds one position for a set of sequences. Sharing a prefix adds a sequence to its cells, without a copy;
removing a sequence takes it out, and a cell without sequences is free. Only the first ids can be decoded: those of
active sequences, one for each request. The others are cached: the tokens of ended requests, until the cells are needed:

    start ──► extend, truncate ──► finish ──► shared by a later start, or evicted by ensure_free
                        └──► discard

The cache must be unified, empty at the beginning, and changed by nobody else except by decoding. Cells are found in a
radix tree, where each node continues the tokens of its parent:

    "You are Hermes. " ──┬── "Who are you?" ── "I am …"      cells that several sequences share are in one node;
                         └── "What is GGUF?"                 where they part, it branches

Two sequences that computed the same tokens each for itself have two nodes beside each other: equal tokens, other cells.
A sequence that is not active where it has to be is an EngineError everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING

from hermes_cli.errors import EngineError

if TYPE_CHECKING:
    from hermes_cli.engine.embedded.llama import LlamaContext

SEQUENCES = 256  # ids that llama.cpp has (LLAMA_MAX_SEQ, src/llama-cparams.h)
BLOCK = 256  # tokens that are compared at once
EVICTED_AT_ONCE = 256  # cells, if what is evicted has so many: llama.cpp looks at every cell each time


class KVCache:
    """The KV cells of one context. Belongs to one thread."""

    def __init__(self, context: LlamaContext, slots: int) -> None:
        """Start with an empty cache; the first `slots` ids are those of active sequences."""
        self._context, self._slots = context, slots
        self._root = RadixNode()
        self._tails: dict[int, RadixNode] = {}  # where each sequence ends
        self._free_slots = list(reversed(range(slots)))
        self._free_cache_ids = list(reversed(range(slots, SEQUENCES)))
        self.used = 0  # cells; a shared one counts once
        self.reusable = 0  # of those, cells that only cached sequences hold: `ensure_free` can free all of them
        self._clock = 0
        # A part of a sequence can be shared and removed. Recurrent models have one state for all tokens: nothing is
        # reused, and `truncate` removes everything. Their caches know no ids but those that can be decoded, others any.
        self.can_truncate = bool(self._free_cache_ids) and context.forget(self._free_cache_ids[-1])

    @property
    def free(self) -> int:
        """The number of empty cells."""
        return self._context.length - self.used

    def length(self, sequence: int) -> int:
        """Return the number of tokens of an active sequence."""
        return self._tail(sequence).end

    def match(self, tokens: list[int]) -> int:
        """Return how many of the leading tokens `start` would share now."""
        return self._longest(self._matches(tokens))[0]

    def start(self, tokens: list[int]) -> tuple[int, int]:
        """Start an active sequence that shares the leading tokens in the cache; return it and how many tokens it has.

        A token whose output is wanted has to be decoded, so leave out the last one of a prompt.
        """
        if not self._free_slots:
            raise _bug(f"more than {self._slots} sequences were started")
        sequence = self._free_slots.pop()
        length, source, node = self._longest(self._matches(tokens))
        if length:
            self._context.share(source, sequence, length)
            if length < node.end:
                node = node.split(length)
            for part in node.path():
                self._join(part, sequence)
            self._touch(node)
        self._tails[sequence] = node
        return sequence, length

    def extend(self, sequence: int, tokens: Sequence[int]) -> None:
        """Record tokens that were decoded, or restored, behind those of an active sequence."""
        tail = self._tail(sequence)
        if not tokens:
            return
        self.used += len(tokens)
        if len(tail.sequences) == 1:
            tail.tokens.extend(tokens)
            return
        node = self._tails[sequence] = RadixNode(tail, list(tokens))
        node.sequences.add(sequence)
        node.active, node.used = 1, self._clock

    def truncate(self, sequence: int, length: int) -> None:
        """Remove the cells of an active sequence from position `length` on.

        Where the cache cannot be truncated it removes everything: `length()` is 0 then, and all has to be decoded anew.
        """
        if length >= self._tail(sequence).end:
            return
        if not length or not self._context.forget(sequence, length):
            self._context.forget(sequence)
            length = 0
        self._shorten(sequence, length)

    def finish(self, sequence: int) -> None:
        """End an active sequence; its tokens stay cached, and are the last to be evicted.

        Nothing is cached twice: if a cached sequence begins with all of its tokens, that one stays instead, and cached
        sequences go that are a part of this one. If no id is left, the least recently used one goes.
        """
        tail = self._tail(sequence)
        self._touch(tail)
        matches = self._matches(tail.content())
        cached, _, node = self._longest(matches, self._slots)
        if not matches or cached >= tail.end:
            self._touch(node)
            self._forget(sequence)
            return
        within = {node for length, node in matches if length == node.end}
        for other in [other for other in self._cached() if self._tails[other] in within]:
            length = self._tails[other].end
            if self._context.covers(sequence, length) or not self._context.covers(other, length):
                self._forget(other)
        if not self._free_cache_ids:
            self._forget(min(self._cached(), key=self._last_use))
        target = self._free_cache_ids.pop()
        self._context.share(sequence, target, tail.end)
        self._tails[target] = tail
        for part in tail.path():
            self._join(part, target)
        self._forget(sequence)

    def discard(self, sequence: int) -> None:
        """End an active sequence and free its cells."""
        self._tail(sequence)
        self._forget(sequence)

    def ensure_free(self, count: int) -> bool:
        """Evict cached tokens until so many cells are free.

        The least recently used goes first, from the end: what several sequences share goes after all of their
        tails. Cells of active sequences stay.

        Returns:
            True if so many are free now. If not, all cached ones together would not do, and nothing was evicted.
        """
        if count > self.free + self.reusable:
            return False
        while self.free < count:
            alone = (cached for cached in self._cached() if len(self._tails[cached].sequences) == 1)
            sequence = min(alone, key=self._last_use)
            tail = self._tails[sequence]
            # So many cells at the end, some more to do it rarely, or all of the last node.
            length = max(tail.start, tail.end - max(count - self.free, EVICTED_AT_ONCE))
            # The rest is of no use without cells, or if another sequence has them.
            parent = tail.parent
            shared = parent is not None and length == tail.start and len(parent.sequences) - parent.active > 1
            if not length or shared or not self._context.forget(sequence, length):
                self._forget(sequence)
            else:
                self._shorten(sequence, length)
        return True

    def cached(self) -> Iterator[tuple[int, list[int]]]:
        """Yield the cached sequences and their tokens, the last used first."""
        for sequence in sorted(self._cached(), key=self._last_use, reverse=True):
            yield sequence, self._tails[sequence].content()

    def _cached(self) -> list[int]:
        return [sequence for sequence in self._tails if sequence >= self._slots]

    def _tail(self, sequence: int) -> RadixNode:
        tail = self._tails.get(sequence)
        if tail is None or sequence >= self._slots:
            raise _bug(f"sequence {sequence} is not active")
        return tail

    def _last_use(self, sequence: int) -> int:
        return self._tails[sequence].used

    def _touch(self, node: RadixNode) -> None:
        self._clock += 1
        for part in node.path():
            part.used = self._clock

    def _matches(self, tokens: list[int]) -> list[tuple[int, RadixNode]]:
        """Return the nodes that `tokens` lead through or end in, each with the number of leading tokens up to there."""
        matches: list[tuple[int, RadixNode]] = []
        pending = [self._root] if self.can_truncate else []  # else nothing can be shared
        while pending:
            node = pending.pop()
            if node.end == len(tokens):
                continue
            for child in node.children.get(tokens[node.end], ()):
                shared = common_prefix(child.tokens, tokens[child.start : child.end])
                matches.append((child.start + shared, child))
                if shared == len(child.tokens):
                    pending.append(child)
        return matches

    def _longest(self, matches: list[tuple[int, RadixNode]], first: int = 0) -> tuple[int, int, RadixNode]:
        """Return the longest match that a sequence with this id or a higher one has: length, sequence, last node.

        If there is none, the length is 0 and the node is the root.
        """
        failed: set[int] = set()  # lacking something for a prefix, they lack it for a shorter one, too
        for length, node in sorted(matches, key=itemgetter(0), reverse=True):
            for holder in node.sequences:
                if holder < first or holder in failed:
                    continue
                if self._context.covers(holder, length):
                    return length, holder, node
                failed.add(holder)
        return 0, 0, self._root

    def _forget(self, sequence: int) -> None:
        self._context.forget(sequence)
        self._shorten(sequence, 0)
        del self._tails[sequence]
        (self._free_slots if sequence < self._slots else self._free_cache_ids).append(sequence)

    def _shorten(self, sequence: int, length: int) -> None:
        """Remove a sequence from the nodes behind position `length`."""
        node = self._tails[sequence]
        while node.end > length and node.parent:
            if node.start < length:
                if len(node.sequences) == 1:
                    self.used -= node.end - length
                    self.reusable -= 0 if node.active else node.end - length
                    del node.tokens[length - node.start :]
                    break
                node.split(length)
            parent = node.parent
            node.sequences.remove(sequence)
            if sequence < self._slots:
                node.active -= 1
                if not node.active:
                    self.reusable += len(node.tokens)
            if not node.sequences:
                self.used -= len(node.tokens)
                self.reusable -= len(node.tokens)
                node.detach()
            node = parent
        self._tails[sequence] = node

    def _join(self, node: RadixNode, sequence: int) -> None:
        if sequence < self._slots:
            if not node.active:
                self.reusable -= len(node.tokens)
            node.active += 1
        node.sequences.add(sequence)


def _bug(what: str) -> EngineError:
    return EngineError(f"{what}.", hint="this is a bug in hermes; please report it.")


class RadixNode:
    """Cells at consecutive positions that the same sequences hold; the root has none."""

    __slots__ = ("active", "children", "parent", "sequences", "start", "tokens", "used")

    def __init__(self, parent: RadixNode | None = None, tokens: list[int] | None = None) -> None:
        self.parent = parent  # the node that it continues; None for the root
        self.children: dict[int, list[RadixNode]] = {}  # the nodes that continue it, by their first tokens
        self.start = parent.end if parent else 0  # position of its first cell
        self.tokens = tokens or []  # of its cells
        self.sequences: set[int] = set()  # the sequences that have it, and so all that it continues
        self.active = 0  # how many of them are active
        self.used = 0  # when it was last of use; larger is later
        self.attach()

    @property
    def end(self) -> int:
        """The position behind its last cell."""
        return self.start + len(self.tokens)

    def path(self) -> Iterator[RadixNode]:
        """Yield this node, its parent, and so on up to the root, which is left out."""
        node = self
        while node.parent:
            yield node
            node = node.parent

    def content(self) -> list[int]:
        """Return all tokens from the root to the end of this node."""
        tokens: list[int] = []
        for node in reversed(list(self.path())):
            tokens += node.tokens
        return tokens

    def split(self, position: int) -> RadixNode:
        """Split the node at a position; return the new first half. This one becomes the second half."""
        self.detach()
        first = RadixNode(self.parent, self.tokens[: position - self.start])
        first.sequences, first.active, first.used = set(self.sequences), self.active, self.used
        self.parent, self.start, self.tokens = first, position, self.tokens[position - self.start :]
        self.attach()
        return first

    def detach(self) -> None:
        """Remove the node from its parent's children."""
        if self.parent:
            siblings = self.parent.children[self.tokens[0]]
            siblings.remove(self)
            if not siblings:
                del self.parent.children[self.tokens[0]]

    def attach(self) -> None:
        """Add the node to its parent's children."""
        if self.parent:
            self.parent.children.setdefault(self.tokens[0], []).append(self)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Return the number of leading tokens that two sequences of the same type have in common.

    It compares blocks, and halves the one that differs: 2 ms for 100,000 tokens.
    """
    end = min(len(left), len(right))
    low = 0
    while low < end and left[low : low + BLOCK] == right[low : low + BLOCK]:
        low += BLOCK
    high = min(low + BLOCK, end)
    if low >= end:
        return end
    while low < high:  # the first `low` are equal; they differ before `high`, or `high` is the shorter one's end
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
