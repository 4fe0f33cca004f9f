"""Guesses what comes next: what followed the last time that the last few tokens stood there.

Text that repeats its input (edited code, JSON of what was told, tool calls) is guessed mostly right this way, and it
costs microseconds. Occurrences are found as deflate finds them: a table from the hash of three tokens to the last
place behind such, and for every place the one before it with the same hash.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING

from hermes_cli.engine.tokens import common_prefix

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST = 3  # tokens that have to be equal; the hash forgets a token after so many others: 3 * SHIFT >= BITS
BITS, SHIFT = 16, 6
MASK = (1 << BITS) - 1
MOST_COMPARED = 16  # tokens; whether 16 or 60 are equal says the same about the next
MOST_PLACES = 8  # the last ones; more find nothing better
BEHIND, AHEAD = 8, 16  # tokens around the place that was followed, within which a copy goes on after an edit

# How often the next token is right, by how many before it are equal: what 160 real edits, conversions to JSON and
# texts showed. It is where each text begins, and counts as so many observations.
KNOWN = ((1, 0.35), (2, 0.45), (3, 0.5), (4, 0.6), (5, 0.65), (6, 0.7), (8, 0.85), (12, 0.9), (MOST_COMPARED, 0.96))
WEIGHT = 8
FADE = 0.97  # what an observation is worth after each further one


class PromptLookup:
    """The tokens of one request, and what they suggest to come next."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._hash = 0
        self._last = array("i", bytes(4 << BITS))  # by hash, the last place behind such three tokens; 0 is none
        self._before = array("i", [0])  # for each place the one before it with the same hash
        self._source = 0  # the place that is followed; 0 is none
        self._equal = 0  # tokens before it that equal the last ones
        self._searched = -1  # how many tokens there were when it was looked for
        self._right = [WEIGHT * chance for _, chance in KNOWN]
        self._seen = [float(WEIGHT)] * len(KNOWN)

    def extend(self, tokens: Sequence[int]) -> None:
        """These come next: the prompt, then whatever was chosen. Learns from them how good the last guess was."""
        if self._equal and self._searched == len(self._tokens):
            self._learn(tokens)
        if self._source:
            self._source += len(tokens)
        value, last, note = self._hash, self._last, self._before.append
        for place, token in enumerate(tokens, len(self._tokens) + 1):
            value = (value << SHIFT ^ token) & MASK
            note(last[value])
            last[value] = place
        self._hash = value
        self._tokens += tokens

    @property
    def chance(self) -> float:
        """How likely each next token of a guess is right, if those before it are; 0 if there is none."""
        self._search()
        if not self._equal:
            return 0.0
        kind = self._kind()
        return self._right[kind] / self._seen[kind]

    def guess(self, most: int) -> list[int]:
        """The tokens, `most` of them, that followed the longest and latest occurrence; none if there was none."""
        self._search()
        return self._continuation(most) if self._equal else []

    def _continuation(self, count: int) -> list[int]:
        following = self._tokens[self._source : self._source + max(count, 0)]
        if len(following) < count:  # text that repeats itself goes on repeating itself
            following = (following * (count // len(following) + 1))[:count]
        return following

    def _kind(self) -> int:
        return bisect_right(KNOWN, (self._equal, 1.0)) - 1

    def _learn(self, tokens: Sequence[int]) -> None:
        right = common_prefix(self._continuation(min(len(tokens), MOST_COMPARED)), list(tokens[:MOST_COMPARED]))
        tried = min(right + 1, len(tokens), MOST_COMPARED)
        kind = self._kind()
        self._right[kind] = self._right[kind] * FADE + right
        self._seen[kind] = self._seen[kind] * FADE + tried

    def _search(self) -> None:
        """Find the place to follow: the one that is followed already, unless more tokens are equal before another."""
        if self._searched == len(self._tokens):
            return
        self._searched = len(self._tokens)
        equal, source = self._equal_before(self._source), self._source
        place = self._before[-1]
        for _ in range(MOST_PLACES):
            if not place or equal == MOST_COMPARED:
                break
            if (here := self._equal_before(place)) > equal and here >= LEAST:
                equal, source = here, place
            place = self._before[place]
        if not equal and source:
            source = self._nearby(source)
            equal = self._equal_before(source)
        self._equal = equal
        self._source = source or self._source

    def _equal_before(self, place: int) -> int:
        """How many tokens before a place equal the last ones."""
        tokens, end = self._tokens, len(self._tokens)
        most, count = min(place, MOST_COMPARED), 0
        while count < most and tokens[place - 1 - count] == tokens[end - 1 - count]:
            count += 1
        return count

    def _nearby(self, place: int) -> int:
        """The nearest place with the last token before it; 0 if there is none near."""
        tokens = self._tokens
        last, end = tokens[-1], len(tokens)
        for distance in range(1, AHEAD + 1):
            if place + distance < end and tokens[place + distance - 1] == last:
                return place + distance
            if distance <= BEHIND and place > distance and tokens[place - distance - 1] == last:
                return place - distance
        return 0
