"""Control tokens that users and tools spell stay text: marks in content, and prompts cut at them.

A tokenizer cannot tell the `<|im_end|>` of a template from one that a user typed. So content gets a mark beside every
character with which a special token may begin, before a template sees it. A special token in the rendered prompt with a
mark in it was not written by the template alone: the prompt is cut in two inside of it. Every piece can then be
tokenized with special tokens parsed, and nothing that somebody says can end a turn or begin another. Prompts without
such spelling, nearly all, stay whole, so that they are tokenized as in training.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import Any

# A noncharacter: no text that is meant for interchange contains it (Unicode 16, section 23.7).
MARK = "\ufdd0"
_ESCAPED_MARK = "\\ufdd0"  # by json.dumps with ensure_ascii

# Tags that the models were trained on as parts of system prompts and of their own turns. Uppercase: Hermes 3's report
# (arXiv 2408.11857, section 2). None of them ends a turn.
_TAG_NAMES = (
    "tools tool_call tool_response schema think scratch_pad SCRATCHPAD REASONING INNER_MONOLOGUE PLAN EXECUTION "
    "REFLECTION THINKING SOLUTION EXPLANATION UNIT_TEST"
)
TAGS = tuple(f"<{slash}{name}>" for name in _TAG_NAMES.split() for slash in ("", "/"))


class SpecialTexts:
    """The texts that a vocabulary turns into one token each where special tokens are parsed."""

    def __init__(
        self,
        control: Iterable[str] = (),  # texts of the vocabulary's control tokens (llama.cpp's CONTROL and UNKNOWN)
        # texts of its USER_DEFINED tokens. Some vocabularies have ordinary text among them, like runs of spaces; only
        # those count that are tags, look like control tokens, or are written by the template
        added: Iterable[str] = (),
        template: str = "",  # source of the chat template
    ) -> None:
        """Prepare the search for them."""
        texts = {text for text in control if text}
        texts |= {text for text in added if text in TAGS or text.startswith("<|")}
        texts |= {text for text in added if text.startswith("<") and text in template}
        # The longest first: so llama.cpp looks for them.
        self._texts = re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True)))) if texts else None
        self._beginnings = sorted({text[0] for text in texts})
        self._tag_or_beginning = re.compile(f"({'|'.join(TAGS)})|({'|'.join(map(re.escape, self._beginnings))})")
        self._longest = max(map(len, texts), default=0)
        self._tails = {text[size:] for text in texts for size in range(1, len(text))}
        self._all = "\0".join(texts)

    def guard(
        self,
        text: str,  # from a user, a tool or a model
        *,
        keep_tags: bool = False,  # `TAGS` in it count as the template's: for system prompts and for turns of the model
        # also mark text that a template could put into the middle of a special token (`<|` + text + `|>`). Not for
        # names in JSON, which templates compare
        alone: bool = True,
    ) -> str:
        """Return content with marks, so that `cut` sees what of it a special token is made of."""
        text = text.replace(MARK, "\ufffd")
        if self._texts is None:
            return text
        start = len(text) - len(text.lstrip())  # a template may trim the white space before it
        # Content that begins so may go on with a special token that the template began, or be the middle of one.
        beginning = text[start : start + self._longest].rstrip()
        continues = any(beginning[:size] in self._tails for size in range(1, len(beginning) + 1))
        if continues or (alone and 0 < len(beginning) < self._longest and beginning in self._all):
            text = text[:start] + MARK + text[start:]
        if keep_tags:
            return self._tag_or_beginning.sub(lambda match: match[1] or f"{MARK}{match[2]}{MARK}", text)
        for character in self._beginnings:
            text = text.replace(character, f"{MARK}{character}{MARK}")
        return text

    def guard_all(self, value: Any) -> Any:  # noqa: ANN401 - anything of JSON
        """Return the same JSON value with every string in it guarded, keys too."""
        if isinstance(value, str):
            return self.guard(value, alone=False)
        if isinstance(value, dict):
            return {self.guard_all(key): self.guard_all(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.guard_all(item) for item in value]
        return value

    def cut(self, text: str) -> tuple[str, ...]:
        """Return a rendered prompt in pieces without marks; joined, they are its plain text.

        No piece spells a special token but where the template alone wrote it.
        """
        parts = text.replace(_ESCAPED_MARK, MARK).split(MARK)
        text, marks = "".join(parts), list(accumulate(map(len, parts[:-1])))
        cuts, at = [0], 0
        while marks and self._texts and (match := self._texts.search(text, at)):
            at = match.end()
            following = bisect_right(marks, match.start())
            if following < len(marks) and marks[following] < at:
                at = match.start() + 1
                cuts.append(at)
        return tuple(text[start:end] for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True) if start < end)


def plain(text: str) -> str:
    """Return a rendered prompt without its marks."""
    return text.replace(_ESCAPED_MARK, "").replace(MARK, "")
