"""Long pastes in a line: a word stands for each of them."""

from __future__ import annotations

SHOWN_LINES = 200
SHOWN_CHARACTERS = 100_000


class Pastes:
    """Long pastes, and the words that stand for them in a line."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def shown(self, text: str) -> str:
        """The text itself, or a word for it."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        lines = text.removesuffix("\n").count("\n") + 1
        if lines <= SHOWN_LINES and len(text) <= SHOWN_CHARACTERS:
            return text
        size = f"{lines:,} lines" if lines > SHOWN_LINES else f"{len(text):,} characters"
        word, number = f"[pasted {size}]", 1
        while self._texts.get(word, text) != text:
            number += 1
            word = f"[pasted {size}, {number}]"
        self._texts[word] = text
        return word

    def stands_for_one(self, line: str) -> bool:
        """Whether there is a word for a paste in it."""
        return any(word in line for word in self._texts)

    def whole(self, line: str) -> str:
        """A line with the texts in place of the words."""
        for word, text in self._texts.items():
            if word in line:
                line = line.replace(word, text)
        return line
