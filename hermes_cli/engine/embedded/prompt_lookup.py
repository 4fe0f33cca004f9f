"""Prompt lookup: drafts the tokens that followed the last time that the last few tokens occurred.

Text that repeats its input (edited code, JSON, tool calls) is drafted mostly right this way, in microseconds.
Occurrences are found as deflate finds them: a table from the hash of three tokens to the last position behind such,
and for every position the one before it with the same hash.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING

from hermes_cli.engine.tokens import common_prefix

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_MATCH = 3  # tokens that have to be equal; the hash forgets a token after so many others: 3 * SHIFT >= BITS
BITS, SHIFT = 16, 6
MASK = (1 << BITS) - 1
MAX_MATCH = 16  # tokens; whether 16 or 60 are equal says the same about the next
MAX_CANDIDATES = 8  # the last ones; more find nothing better
BEHIND, AHEAD = 8, 16  # tokens around the position that was followed, within which a copy goes on after an edit

# Acceptance rate of the next token, by how many before it are equal: what 160 real edits, conversions to JSON and
# texts showed. It is where each text begins, and counts as so many observations.
PRIORS = ((1, 0.35), (2, 0.45), (3, 0.5), (4, 0.6), (5, 0.65), (6, 0.7), (8, 0.85), (12, 0.9), (MAX_MATCH, 0.96))
WEIGHT = 8
FADE = 0.97  # weight of an observation after each further one


class PromptLookup:
    """The tokens of one request, indexed to draft from."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._hash = 0
        self._last = array("i", bytes(4 << BITS))  # by hash, the last position behind such three tokens; 0 is none
        self._before = array("i", [0])  # for each position the one before it with the same hash
        self._source = 0  # the position that is followed; 0 is none
        self._match = 0  # tokens before it that equal the last ones
        self._searched = -1  # how many tokens there were when it was looked for
        self._accepted = [WEIGHT * acceptance_rate for _, acceptance_rate in PRIORS]
        self._drafted = [float(WEIGHT)] * len(PRIORS)

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens of the prompt or the completion, and learn from them how good the last draft was."""
        if self._match and self._searched == len(self._tokens):
            self._learn(tokens)
        if self._source:
            self._source += len(tokens)
        value, latest, append = self._hash, self._last, self._before.append
        for position, token in enumerate(tokens, len(self._tokens) + 1):
            value = (value << SHIFT ^ token) & MASK
            append(latest[value])
            latest[value] = position
        self._hash = value
        self._tokens += tokens

    @property
    def acceptance_rate(self) -> float:
        """The probability that each next token of a draft is accepted if those before it are; 0 without a draft."""
        self._search()
        if not self._match:
            return 0.0
        bucket = self._bucket()
        return self._accepted[bucket] / self._drafted[bucket]

    def draft(self, limit: int) -> list[int]:
        """Return the `limit` tokens that followed the longest and latest occurrence; none if there was none."""
        self._search()
        return self._continuation(limit) if self._match else []

    def _continuation(self, count: int) -> list[int]:
        following = self._tokens[self._source : self._source + max(count, 0)]
        if len(following) < count:  # text that repeats itself goes on repeating itself
            following = (following * (count // len(following) + 1))[:count]
        return following

    def _bucket(self) -> int:
        return bisect_right(PRIORS, (self._match, 1.0)) - 1

    def _learn(self, tokens: Sequence[int]) -> None:
        accepted = common_prefix(self._continuation(min(len(tokens), MAX_MATCH)), list(tokens[:MAX_MATCH]))
        drafted = min(accepted + 1, len(tokens), MAX_MATCH)
        bucket = self._bucket()
        self._accepted[bucket] = self._accepted[bucket] * FADE + accepted
        self._drafted[bucket] = self._drafted[bucket] * FADE + drafted

    def _search(self) -> None:
        """Find the position to follow: the one followed already, unless another has a longer match."""
        if self._searched == len(self._tokens):
            return
        self._searched = len(self._tokens)
        match, source = self._match_before(self._source), self._source
        position = self._before[-1]
        for _ in range(MAX_CANDIDATES):
            if not position or match == MAX_MATCH:
                break
            if (length := self._match_before(position)) > match and length >= MIN_MATCH:
                match, source = length, position
            position = self._before[position]
        if not match and source:
            source = self._nearby(source)
            match = self._match_before(source)
        self._match = match
        self._source = source or self._source

    def _match_before(self, position: int) -> int:
        """Return how many tokens before a position equal the last ones."""
        tokens, end = self._tokens, len(self._tokens)
        limit, count = min(position, MAX_MATCH), 0
        while count < limit and tokens[position - 1 - count] == tokens[end - 1 - count]:
            count += 1
        return count

    def _nearby(self, position: int) -> int:
        """Return the nearest position with the last token before it; 0 if there is none near."""
        tokens = self._tokens
        latest, end = tokens[-1], len(tokens)
        for distance in range(1, AHEAD + 1):
            if position + distance < end and tokens[position + distance - 1] == latest:
                return position + distance
            if distance <= BEHIND and position > distance and tokens[position - distance - 1] == latest:
                return position - distance
        return 0
