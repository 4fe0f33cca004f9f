"""Log-probabilities of what a client is given: which tokens made which text, and how OpenAI's two APIs write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from hermes_cli.prompting.turn_grammar import TAGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hermes_cli.engine.protocol import Logprob, TokenLogprobs

LEAST = -9999.0  # as OpenAI writes what is impossible: JSON has no infinity
_TAGS = frozenset(tag.encode() for tag in TAGS)
_END_CALL = b"</tool_call>"


class TopLogprob(msgspec.Struct, frozen=True):
    """A token that was possible. `bytes` are its UTF-8, which may be part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(msgspec.Struct, frozen=True):
    """A token that was chosen, and the likeliest in its place."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct, frozen=True):
    """Tokens of the content; those of reasoning and of tool calls are not told."""

    content: list[ChatLogprob]
    refusal: None = None


class CompletionLogprobs(msgspec.Struct, frozen=True):
    """One entry in each list for each token; offsets are characters of the whole text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class Attribution:
    """Tokens as they come, until it is known what became of them.

    Not all became content: tags, calls, white space around them, and the token that ends the turn did not.
    """

    def __init__(self) -> None:
        self._waiting: list[TokenLogprobs] = []

    def add(self, tokens: Iterable[TokenLogprobs]) -> None:
        """More of them; those without a text become nothing."""
        self._waiting += [token for token in tokens if token.chosen.bytes]

    def take(self, text: str) -> list[TokenLogprobs]:
        """Those that a text is made of. What came before them is forgotten, what comes after them waits."""
        data = text.encode()
        self._drop_tags(data)
        whole = b"".join(token.chosen.bytes for token in self._waiting)
        begin = whole.find(data)
        found: list[TokenLogprobs] = []
        later: list[TokenLogprobs] = []
        if begin < 0:  # bytes that are no UTF-8 were replaced
            found, self._waiting = self._waiting, []
            return found
        at, end = 0, begin + len(data)
        for token in self._waiting:
            size = len(token.chosen.bytes)
            if at >= end:
                later.append(token)
            elif at + size > begin:
                found.append(token)
            at += size
        self._waiting = later
        return found

    def end_call(self) -> None:
        """A call was written; its tokens are not told."""
        at = 0
        for number, token in enumerate(self._waiting, 1):
            if token.chosen.bytes == _END_CALL:
                at = number
        self._waiting = self._waiting[at:] if at else []

    def _drop_tags(self, data: bytes) -> None:
        """Tags that are one token did not become text that does not spell them."""
        self._waiting = [
            token for token in self._waiting if token.chosen.bytes not in _TAGS or token.chosen.bytes in data
        ]


def for_chat(tokens: Iterable[TokenLogprobs]) -> ChatLogprobs:
    """As Chat Completions give them."""
    return ChatLogprobs(
        [ChatLogprob(*_told(token.chosen), [TopLogprob(*_told(other)) for other in token.top]) for token in tokens]
    )


def for_completion(tokens: Sequence[TokenLogprobs], offset: int, *, top: int) -> CompletionLogprobs:
    """As Completions give them.

    Args:
        tokens: that the text is made of.
        offset: characters before it.
        top: how many alternatives were asked for.
    """
    names = [_name(token.chosen) for token in tokens]
    offsets: list[int] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.chosen.bytes.decode("utf-8", "ignore"))
    return CompletionLogprobs(
        names,
        [_finite(token.chosen.logprob) for token in tokens],
        [_alternatives(token.top) for token in tokens] if top else None,
        offsets,
    )


def _told(token: Logprob) -> tuple[str, float, list[int]]:
    return token.bytes.decode("utf-8", "replace"), _finite(token.logprob), list(token.bytes)


def _alternatives(tokens: Iterable[Logprob]) -> dict[str, float]:
    found: dict[str, float] = {}
    for token in tokens:
        found.setdefault(_name(token), _finite(token.logprob))
    return found


def _name(token: Logprob) -> str:
    r"""Its text, or `bytes:\xe2\x80` where it is part of a character."""
    try:
        return token.bytes.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.bytes)


def _finite(logprob: float) -> float:
    return max(logprob, LEAST) if logprob == logprob else LEAST  # noqa: PLR0124 - not a number
