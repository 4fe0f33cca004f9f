"""The text of one answer as it comes: stop texts, which end it, and the budget of its reasoning."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hermes_cli.engine.request import ThinkingBudget


class StopTexts:
    """Holds back what may become a stop text; once one is whole, `found` is it and nothing comes any more."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts = tuple(text for text in texts if text)
        self._held = ""
        self.found: str | None = None

    def feed(self, text: str) -> str:
        """What can be shown after this text."""
        if self.found is not None:
            return ""
        if not self._texts:
            return text
        self._held += text
        ends = [(at, stop) for stop in self._texts if (at := self._held.find(stop)) >= 0]
        if ends:
            at, self.found = min(ends)
            ready, self._held = self._held[:at], ""
            return ready
        keep = max(map(self._begun, self._texts))
        ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return ready

    def finish(self) -> str:
        """What was held back and became nothing."""
        ready, self._held = self._held, ""
        return ready

    def _begun(self, stop: str) -> int:
        """How much of a stop text the held text ends with."""
        longest = min(len(stop) - 1, len(self._held))
        return next((size for size in range(longest, 0, -1) if self._held.endswith(stop[:size])), 0)


class ReasoningBudget:
    """Where a request is in its reasoning, read off the text as it comes.

    Reasoning opens at the start of a line, white space aside: that is where prompting reads it, too. What the prompt
    opened counts from the first token.
    """

    def __init__(self, budget: ThinkingBudget, forced: Sequence[int]) -> None:
        """Begin.

        Args:
            budget: what was asked for.
            forced: the tokens of `budget.forced`.
        """
        self._closing = budget.closing
        self._opening = re.compile(rf"(?:\A|\n)\s*{re.escape(budget.opening)}")
        self._forced = list(forced)
        self._left = budget.tokens
        self._inside = budget.inside
        self._text = ""  # as far back as it can matter

    def read(self, text: str) -> None:
        """One more token was generated, with this text."""
        self._text += text
        if self._inside:
            self._left -= 1
            if self._closing in self._text:
                self._inside, self._text = False, "x"  # what follows stands not at the start of a line
            self._text = self._text[-len(self._closing) :]
        elif found := self._opening.search(self._text):
            self._inside, self._text = True, self._text[found.end() :]
        elif "\n" in self._text:
            self._text = self._text[self._text.rindex("\n") :]
        elif self._text and not self._text.isspace():
            self._text = self._text[:256]  # a line that began otherwise stays so

    def due(self) -> list[int]:
        """The tokens that have to come next if the budget is used up; else none."""
        return self._forced if self._inside and self._left <= 0 else []
