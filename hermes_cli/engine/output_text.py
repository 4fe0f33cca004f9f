"""The text of one answer as it comes: stop texts, which end it, and the tokens of its reasoning."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_cli.engine.request import ReasoningOptions


class StopTexts:
    """Finds stop texts wherever tokens cut them, and holds back text that may become one."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts = sorted(text for text in texts if text)
        self._begins = {text[0] for text in self._texts}
        self._held = ""  # the beginning of a stop text, if nothing else
        self.matched: str | None = None  # the stop text that ended the completion

    def feed(self, text: str) -> str:
        """Return the text that can be shown now."""
        if self.matched is not None:
            return ""
        if not self._texts:
            return text
        known, self._held = len(self._held), self._held + text
        # None ended before, so what ends now does in the new text.
        starts = ((max(known - len(stop) + 1, 0), stop) for stop in self._texts)
        ends = [(at, stop) for start, stop in starts if (at := self._held.find(stop, start)) >= 0]
        if ends:
            at, self.matched = min(ends)
            ready, self._held = self._held[:at], ""
            return ready
        # Each place that begins no stop text is given up for good: all in all few are looked at.
        place = next((at for at in range(len(self._held)) if self._may_begin(at)), len(self._held))
        ready, self._held = self._held[:place], self._held[place:]
        return ready

    def finish(self) -> str:
        """Return the text that was held back and became no stop text."""
        ready, self._held = self._held, ""
        return ready

    def _may_begin(self, at: int) -> bool:
        """Return whether the held text from a place on is the beginning of a stop text."""
        if self._held[at] not in self._begins:
            return False
        rest = self._held[at:]
        place = bisect_left(self._texts, rest)  # texts that begin with it come behind it
        return place < len(self._texts) and self._texts[place].startswith(rest)


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
        self.cut = False  # the budget ended it

    def read(self, text: str) -> None:
        """Count a generated token with this text."""
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
        self.cut = True
        return [*end, *self._forced[self._closing]]

    def _keep(self, characters: int) -> None:
        """Drop all but the last characters, which may be the beginning of a tag."""
        self._text = self._text[max(len(self._text) - characters, 0) :]
