"""Radix tree of the KV cache: each node continues the tokens of its parent.

    "You are Hermes. " ──┬── "Who are you?" ── "I am …"      cells that several sequences share are in one node;
                         └── "What is GGUF?"                 where they part, it branches

Two sequences that computed the same tokens each for itself have two nodes beside each other: equal tokens, other cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_cli.engine.tokens import common_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator


class RadixNode:
    """Cells at consecutive positions that the same sequences hold; the root has none.

    Attributes:
        parent: the node that it continues; None for the root.
        children: the nodes that continue it, by their first tokens.
        start: position of its first cell.
        tokens: those of its cells.
        sequences: the sequences that have it, and so all that it continues.
        active: how many of them are active.
        used: when it was last of use; larger is later.
    """

    __slots__ = ("active", "children", "parent", "sequences", "start", "tokens", "used")

    def __init__(self, parent: RadixNode | None = None, tokens: list[int] | None = None) -> None:
        self.parent = parent
        self.children: dict[int, list[RadixNode]] = {}
        self.start = parent.end if parent else 0
        self.tokens = tokens or []
        self.sequences: set[int] = set()
        self.active = self.used = 0
        self._attach()

    @property
    def end(self) -> int:
        """The position behind its last cell."""
        return self.start + len(self.tokens)

    @property
    def cached(self) -> int:
        """The number of its sequences that are not active."""
        return len(self.sequences) - self.active

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

    def matches(self, tokens: list[int]) -> list[tuple[int, RadixNode]]:
        """Return the nodes below this one that `tokens` lead through or end in.

        Returns:
            Each with the number of leading tokens that are equal up to there, which ends within the node or at its end.
        """
        matches: list[tuple[int, RadixNode]] = []
        pending = [self]
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

    def split(self, position: int) -> RadixNode:
        """Split the node at a position; return the new first half. This one becomes the second half."""
        self.detach()
        first = RadixNode(self.parent, self.tokens[: position - self.start])
        first.sequences, first.active, first.used = set(self.sequences), self.active, self.used
        self.parent, self.start, self.tokens = first, position, self.tokens[position - self.start :]
        self._attach()
        return first

    def detach(self) -> None:
        """Remove the node from its parent's children."""
        if self.parent:
            siblings = self.parent.children[self.tokens[0]]
            siblings.remove(self)
            if not siblings:
                del self.parent.children[self.tokens[0]]

    def _attach(self) -> None:
        if self.parent:
            self.parent.children.setdefault(self.tokens[0], []).append(self)
