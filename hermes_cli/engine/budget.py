"""Counts the tokens of reasoning in a request, and has it closed when they are used up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_cli.engine.request import ThinkingBudget


class Reasoning:
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
