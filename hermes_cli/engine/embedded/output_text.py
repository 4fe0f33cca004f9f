"""The text of one answer as it comes: stop texts, which end it, and the tokens of its reasoning."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_cli.engine.request import ReasoningOptions


class StopTexts:
    """Finds stop texts wherever tokens cut them, and holds back text that may become one."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts = tuple(text for text in texts if text)
        self._held = ""
        self.matched: str | None = None  # the stop text that ended the completion

    def feed(self, text: str) -> str:
        """Return the text that can be shown now."""
        if self.matched is not None:
            return ""
        if not self._texts:
            return text
        self._held += text
        ends = [(at, stop) for stop in self._texts if (at := self._held.find(stop)) >= 0]
        if ends:
            at, self.matched = min(ends)
            ready, self._held = self._held[:at], ""
            return ready
        keep = max(map(self._begun, self._texts))
        ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return ready

    def finish(self) -> str:
        """Return the text that was held back and became no stop text."""
        ready, self._held = self._held, ""
        return ready

    def _begun(self, stop: str) -> int:
        """Return how many characters of a stop text the held text ends with."""
        longest = min(len(stop) - 1, len(self._held))
        return next((size for size in range(longest, 0, -1) if self._held.endswith(stop[:size])), 0)


class ReasoningTracker:
    """The place of a request in its reasoning, read off the text of each token.

    Reasoning opens at the start of a line, white space aside: that is where prompting reads it, too. All tokens behind
    the one that completes the opening tag are counted, with those of the closing tag; what the prompt opened counts
    from the first token.
    """

    def __init__(self, options: ReasoningOptions, forced: Mapping[str, Sequence[int]]) -> None:
        """Start before the first token; `forced` has, by closing tag, the tokens that end used-up reasoning.

        Those under an empty text come before them, and count as its last ones.
        """
        self.tokens = 0  # of reasoning so far
        self._options, self._forced = options, forced
        self._closing = options.tags[0][1] if options.inside else ""  # the tag that ends the reasoning; empty outside
        self._line_start = True
        self._line_end = re.compile("|".join(map(re.escape, ("\n", *options.line_ends))))
        self._overlap = max(map(len, options.line_ends), default=1) - 1
        self._text = ""  # not decided yet
        self._over = False  # the budget was used up
        self._tags = tuple(tag for pair in options.tags for tag in pair)
        self._tail = ""  # of what was written, as much as a tag may begin with

    def read(self, text: str) -> None:
        """Count a generated token with this text."""
        self._tail = (self._tail + text)[-max(map(len, self._tags), default=1) :]
        self.tokens += bool(self._closing)
        self._text += text
        while True:  # up to the next change of state
            if self._closing:
                _, found, rest = self._text.partition(self._closing)
                if not found:
                    self._keep(len(self._closing) - 1)
                    return
                self._text, self._closing, self._line_start = rest, "", True
            elif self._line_start:
                self._text = self._text.lstrip()
                opened = [pair for pair in self._options.tags if self._text.startswith(pair[0])]
                if opened:
                    opening, self._closing = opened[0]
                    self._text = self._text[len(opening) :]
                elif any(opening.startswith(self._text) for opening, _ in self._options.tags):
                    return
                else:
                    self._line_start = False
            elif end := self._line_end.search(self._text):
                self._text, self._line_start = self._text[end.end() :], True
            else:
                self._keep(self._overlap)
                return

    def due(self) -> Sequence[int]:
        """Return the tokens that have to come next if the budget is used up, else none."""
        budget = self._options.budget
        end = self._forced.get("", ())
        if not self._closing or budget is None or self.tokens < budget - len(end):
            return ()
        self._over = True
        return [*end, *self._forced[self._closing]]

    def forbids(self, text: str) -> bool:
        """Return whether a token with this text would write a tag after reasoning was ended: models try to end it."""
        return self._over and any(tag in self._tail[len(self._tail) - len(tag) + 1 :] + text for tag in self._tags)

    def _keep(self, characters: int) -> None:
        """Drop all but the last characters, which may be the beginning of a tag."""
        self._text = self._text[max(len(self._text) - characters, 0) :]
