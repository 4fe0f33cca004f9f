"""Who has which cells of llama.cpp's unified KV cache, and the only caller of what shares and forgets them.

A cell holds one position for a set of sequences. Sharing a prefix adds a sequence to its cells, without a copy;
forgetting takes it out, and a cell that nobody holds is free. Only the first ids can be decoded: those are at work, one
for each request. The others keep what ended requests have computed, until the room is needed:

    open ──► extend, cut ──► keep ──► shared by a later open, or evicted by make_room
                        └──► drop

The cache must be unified, empty at the beginning, and changed by nobody else except by decoding.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Protocol

from hermes_cli.engine.embedded.radix import RadixNode
from hermes_cli.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SEQUENCES = 256  # ids that llama.cpp has (LLAMA_MAX_SEQ, src/llama-cparams.h)
EVICTED_AT_ONCE = 256  # cells, if what is evicted has so many: llama.cpp looks at every cell each time


class SequenceMemory(Protocol):
    """The cache itself; `engine.llama.Context` is one."""

    def share(self, source: int, target: int, end: int) -> None:
        """Add `target` to the cells of `source` before position `end`."""

    def forget(self, sequence: int, start: int = 0) -> bool:
        """Take a sequence out of its cells from position `start` on; false where nothing changed, as that cannot be."""


class KVCache:
    """The cells of one context. Belongs to one thread.

    Attributes:
        divisible: whether a part of a sequence can be shared and forgotten. Recurrent models have one state for all
            that they have read; with them nothing is reused, and `cut` forgets more than it is asked to.
    """

    def __init__(
        self, memory: SequenceMemory, capacity: int, slots: int, *, covers: Callable[[int, int], bool] | None = None
    ) -> None:
        """Start with an empty cache.

        Args:
            memory: the cache.
            capacity: its cells.
            slots: sequences that can be at work at once, as the context was made for; their ids are the first ones.
            covers: whether the cache has everything that a token at this position of this sequence looks at. Models
                with sliding windows may have lost cells that only one sequence held, once they were out of its window.
                None means that everything is always there.
        """
        self._memory, self._capacity, self._slots = memory, capacity, slots
        self._covers = covers
        self._root = RadixNode()
        self._tips: dict[int, RadixNode] = {}  # where each sequence ends
        self._idle = list(reversed(range(slots)))
        self._spare = list(reversed(range(slots, SEQUENCES)))
        self._used = self._reusable = 0
        self._clock = 0
        # A recurrent cache has no other ids than those that can be decoded and says so; all others accept any.
        self.divisible = bool(self._spare) and memory.forget(self._spare[-1])

    @property
    def used(self) -> int:
        """Cells that hold something; a shared one counts once."""
        return self._used

    @property
    def reusable(self) -> int:
        """Used cells that only kept sequences hold: `make_room` can free all of them."""
        return self._reusable

    @property
    def free(self) -> int:
        """Cells that hold nothing."""
        return self._capacity - self._used

    def length(self, sequence: int) -> int:
        """Tokens that a working sequence holds.

        Raises:
            EngineError: it is not at work.
        """
        return self._tip(sequence).end

    def match(self, tokens: Sequence[int]) -> int:
        """How many of the leading tokens `open` would share now."""
        return self._best(self._matches(tokens))[0]

    def open(self, tokens: Sequence[int]) -> tuple[int, int]:
        """Put a sequence to work, with as many of the leading tokens as are in the cache already.

        A token whose output is wanted has to be decoded, so leave out the last one of a prompt.

        Returns:
            The sequence, and how many tokens it has.

        Raises:
            EngineError: as many are at work as can be.
        """
        if not self._idle:
            raise _bug(f"more than {self._slots} sequences were put to work")
        sequence = self._idle.pop()
        length, source, run = self._best(self._matches(tokens))
        if length:
            self._memory.share(source, sequence, length)
            if length < run.end:
                run = run.split(length)
            for part in run.path():
                self._join(part, sequence)
            self._touch(run)
        self._tips[sequence] = run
        return sequence, length

    def extend(self, sequence: int, tokens: Sequence[int]) -> None:
        """Note that tokens were decoded, or restored, behind those that a working sequence holds.

        Raises:
            EngineError: it is not at work.
        """
        tip = self._tip(sequence)
        if not tokens:
            return
        self._used += len(tokens)
        if len(tip.holders) == 1:
            tip.tokens.extend(tokens)
            return
        run = self._tips[sequence] = RadixNode(tip, list(tokens))
        run.holders.add(sequence)
        run.working, run.used = 1, self._clock

    def cut(self, sequence: int, length: int) -> None:
        """Forget what a working sequence holds from position `length` on.

        Where the cache is not divisible it forgets everything: `length()` is 0 then, and all has to be decoded anew.

        Raises:
            EngineError: it is not at work.
        """
        if length >= self._tip(sequence).end:
            return
        if not length or not self._memory.forget(sequence, length):
            self._memory.forget(sequence)
            length = 0
        self._shorten(sequence, length)

    def keep(self, sequence: int) -> None:
        """End a working sequence; what it holds can be shared from now on and is the last to be evicted.

        Nothing is held twice for that: if a kept sequence begins with all of its tokens, that one stays instead, and
        those go that are a part of this one. If no id is left, that one goes which was not used for longest.

        Raises:
            EngineError: it is not at work.
        """
        tip = self._tip(sequence)
        self._touch(tip)
        matches = self._matches(tip.content())
        if not matches or self._is_kept(tip.end, matches):
            self._forget(sequence)
            return
        within = {run for length, run in matches if length == run.end}
        for other in [other for other in self._kept() if self._tips[other] in within]:
            length = self._tips[other].end
            if self._has(sequence, length) or not self._has(other, length):
                self._forget(other)
        if not self._spare:
            self._forget(min(self._kept(), key=self._last_use))
        target = self._spare.pop()
        self._memory.share(sequence, target, tip.end)
        self._tips[target] = tip
        for part in tip.path():
            self._join(part, target)
        self._forget(sequence)

    def drop(self, sequence: int) -> None:
        """End a working sequence and forget it.

        Raises:
            EngineError: it is not at work.
        """
        self._tip(sequence)
        self._forget(sequence)

    def make_room(self, count: int) -> bool:
        """Evict kept tokens until so many cells are free.

        What was not used for longest goes first, from the end: what several sequences share goes after all of their
        tails. Cells of working sequences stay.

        Returns:
            Whether so many are free now. If not, all kept ones together would not do, and nothing was evicted.
        """
        if count > self.free + self._reusable:
            return False
        while self.free < count:
            tails = (kept for kept in self._kept() if len(self._tips[kept].holders) == 1)
            self._evict(min(tails, key=self._last_use), count - self.free)
        return True

    def clear(self) -> None:
        """Forget everything."""
        for sequence in list(self._tips):
            self._forget(sequence)

    def kept(self) -> Iterator[tuple[int, list[int]]]:
        """The kept sequences and their tokens, the last used first."""
        for sequence in sorted(self._kept(), key=self._last_use, reverse=True):
            yield sequence, self._tips[sequence].content()

    def _kept(self) -> list[int]:
        return [sequence for sequence in self._tips if sequence >= self._slots]

    def _tip(self, sequence: int) -> RadixNode:
        tip = self._tips.get(sequence)
        if tip is None or sequence >= self._slots:
            raise _bug(f"sequence {sequence} is not at work")
        return tip

    def _last_use(self, sequence: int) -> int:
        return self._tips[sequence].used

    def _touch(self, run: RadixNode) -> None:
        self._clock += 1
        for part in run.path():
            part.used = self._clock

    def _matches(self, tokens: Sequence[int]) -> list[tuple[int, RadixNode]]:
        """Where the leading tokens are, as `RadixNode.matches` says it; nowhere if nothing can be shared."""
        return self._root.matches(tokens if isinstance(tokens, list) else list(tokens)) if self.divisible else []

    def _best(self, matches: list[tuple[int, RadixNode]], first: int = 0) -> tuple[int, int, RadixNode]:
        """The longest match that one sequence (with this id or a higher one) has: its length, who, and its last run.

        If there is none, the length is 0, and the run is the root.
        """
        failed: set[int] = set()  # who lacks something for a prefix lacks it for a shorter one, too
        for length, run in sorted(matches, key=itemgetter(0), reverse=True):
            for holder in run.holders:
                if holder < first or holder in failed:
                    continue
                if self._has(holder, length):
                    return length, holder, run
                failed.add(holder)
        return 0, 0, self._root

    def _has(self, sequence: int, length: int) -> bool:
        return self._covers is None or self._covers(sequence, length)

    def _is_kept(self, length: int, matches: list[tuple[int, RadixNode]]) -> bool:
        """Whether a kept sequence has a match of this length; it was of use again then."""
        longest, _, run = self._best(matches, self._slots)
        if longest < length:
            return False
        self._touch(run)
        return True

    def _evict(self, sequence: int, count: int) -> None:
        """Free so many cells at the end of a kept sequence, a few more to do it rarely, or all of its last run."""
        tip = self._tips[sequence]
        length = max(tip.start, tip.end - max(count, EVICTED_AT_ONCE))
        # What would be left is of no use without cells, or if another one has them.
        useless = not length or (tip.parent is not None and length == tip.start and tip.parent.kept > 1)
        if useless or not self._memory.forget(sequence, length):
            self._forget(sequence)
        else:
            self._shorten(sequence, length)

    def _forget(self, sequence: int) -> None:
        self._memory.forget(sequence)
        self._shorten(sequence, 0)
        del self._tips[sequence]
        (self._idle if sequence < self._slots else self._spare).append(sequence)

    def _shorten(self, sequence: int, length: int) -> None:
        """Count a sequence's cells from position `length` on as not its own any more."""
        run = self._tips[sequence]
        while run.end > length and run.parent:
            if run.start < length:
                if len(run.holders) == 1:
                    self._used -= run.end - length
                    self._reusable -= 0 if run.working else run.end - length
                    del run.tokens[length - run.start :]
                    break
                run.split(length)
            parent = run.parent
            self._leave(run, sequence)
            run = parent
        self._tips[sequence] = run

    def _join(self, run: RadixNode, sequence: int) -> None:
        if sequence < self._slots:
            if not run.working:
                self._reusable -= len(run.tokens)
            run.working += 1
        run.holders.add(sequence)

    def _leave(self, run: RadixNode, sequence: int) -> None:
        run.holders.remove(sequence)
        if sequence < self._slots:
            run.working -= 1
            if not run.working:
                self._reusable += len(run.tokens)
        if not run.holders:
            self._used -= len(run.tokens)
            self._reusable -= len(run.tokens)
            run.detach()


def _bug(what: str) -> EngineError:
    return EngineError(f"{what}.", hint="this is a bug in hermes; please report it.")
