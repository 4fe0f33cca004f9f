"""A prompt as pieces of text that are to be tokenized one by one, with control tokens parsed.

A tokenizer cannot tell the `<|im_end|>` of a template from one that a user typed. So the prompt is cut in two inside
every control token that content spells: each piece is then safe to tokenize with control tokens, and nothing that
somebody says can end a turn or begin another. Prompts without such spelling, nearly all, stay whole, so that they are
tokenized as in training.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hermes_cli.prompting.text import CONTENT, TAGS, origin, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Tokenize = Callable[[str], Sequence[int]]


class Specials:
    """The texts that a vocabulary turns into one token each, where they are parsed."""

    def __init__(self, control: Iterable[str], added: Iterable[str] = (), template: str = "") -> None:
        """Prepare.

        Args:
            control: texts of its control tokens (llama.cpp's CONTROL and UNKNOWN).
            added: texts of its USER_DEFINED tokens. Some vocabularies have ordinary text among them, like runs of
                spaces; only those count that are tags, look like control tokens, or are written by the template.
            template: source of the chat template.
        """
        texts = {text for text in control if text}
        texts |= {text for text in added if text in TAGS or text.startswith("<|")}
        texts |= {text for text in added if text.startswith("<") and text in template}
        # The longest first: that is how llama.cpp looks for them.
        self._pattern = re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True)))) if texts else None

    def cut(self, text: str) -> tuple[str, ...]:
        """The text in pieces; joined, they are the text.

        No piece spells a special token but where the template alone wrote it.
        """
        mask, cuts, at = origin(text), [0], 0
        while self._pattern and (found := self._pattern.search(text, at)):
            at = found.end()
            if CONTENT in mask[found.start() : at]:
                at = found.start() + 1
                cuts.append(at)
        return tuple(
            plain(text[start:end]) for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True) if start < end
        )


def single_tokens(texts: Iterable[str], tokenize: Tokenize) -> dict[str, int]:
    """Which texts are one token, by asking the tokenizer: ids differ between models and are never written down."""
    found = {text: list(tokenize(text)) for text in texts}
    return {text: tokens[0] for text, tokens in found.items() if len(tokens) == 1}
