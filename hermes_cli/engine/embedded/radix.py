"""What the KV cache holds as a tree: each run of cells continues the one that it hangs on.

    "You are Hermes. " ──┬── "Who are you?" ── "I am …"      cells that several sequences share are in one run;
                         └── "What is GGUF?"                 where they part, it branches

Two sequences that computed the same tokens each for itself have two runs beside each other: equal tokens, other cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_cli.engine.tokens import common_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator


class RadixNode:
    """Cells at consecutive positions that the same sequences hold; the root has none.

    Attributes:
        parent: what it continues; None for the root.
        children: the runs that continue it, by their first tokens.
        start: position of its first cell.
        tokens: what its cells were computed from.
        holders: the sequences that have it, and so all that it continues.
        working: how many of them are at work.
        used: when it was last of use; larger is later.
    """

    __slots__ = ("children", "holders", "parent", "start", "tokens", "used", "working")

    def __init__(self, parent: RadixNode | None = None, tokens: list[int] | None = None) -> None:
        self.parent = parent
        self.children: dict[int, list[RadixNode]] = {}
        self.start = parent.end if parent else 0
        self.tokens = tokens or []
        self.holders: set[int] = set()
        self.working = self.used = 0
        self._attach()

    @property
    def end(self) -> int:
        """The position behind its last cell."""
        return self.start + len(self.tokens)

    @property
    def kept(self) -> int:
        """How many of those that hold it are not at work."""
        return len(self.holders) - self.working

    def path(self) -> Iterator[RadixNode]:
        """The run itself, what it continues, and so on up to the root, which is left out."""
        run = self
        while run.parent:
            yield run
            run = run.parent

    def content(self) -> list[int]:
        """All tokens up to the end of this run."""
        tokens: list[int] = []
        for run in reversed(list(self.path())):
            tokens += run.tokens
        return tokens

    def matches(self, tokens: list[int]) -> list[tuple[int, RadixNode]]:
        """The runs below this one that `tokens` lead through or end in.

        Returns:
            Each with the number of leading tokens that are equal up to there, which ends within the run or at its end.
        """
        found: list[tuple[int, RadixNode]] = []
        ahead = [self]
        while ahead:
            run = ahead.pop()
            if run.end == len(tokens):
                continue
            for child in run.children.get(tokens[run.end], ()):
                shared = common_prefix(child.tokens, tokens[child.start : child.end])
                found.append((child.start + shared, child))
                if shared == len(child.tokens):
                    ahead.append(child)
        return found

    def split(self, position: int) -> RadixNode:
        """Make two runs of it, for the same sequences; this one is the second. The first, up to `position`, is new."""
        self.detach()
        first = RadixNode(self.parent, self.tokens[: position - self.start])
        first.holders, first.working, first.used = set(self.holders), self.working, self.used
        self.parent, self.start, self.tokens = first, position, self.tokens[position - self.start :]
        self._attach()
        return first

    def detach(self) -> None:
        """Take it out of its parent's children."""
        if self.parent:
            siblings = self.parent.children[self.tokens[0]]
            siblings.remove(self)
            if not siblings:
                del self.parent.children[self.tokens[0]]

    def _attach(self) -> None:
        if self.parent:
            self.parent.children.setdefault(self.tokens[0], []).append(self)
