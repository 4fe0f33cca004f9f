"""From a prompt to its tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hermes_cli.engine.embedded.vocabulary import Vocabulary
    from hermes_cli.engine.request import ReasoningOptions

    Tokenize = Callable[[str], Sequence[int]]

BLOCK = 256  # tokens


def prompt_tokens(vocabulary: Vocabulary, prompt: Sequence[str] | Sequence[int]) -> list[int]:
    """The tokens of pieces of text, or those that are given; the begin-of-text token stands there once if it has to.

    Raises:
        UsageError: there are none, one does not exist, or a text is too long to tokenize.
    """
    if prompt and isinstance(prompt[0], int):
        tokens = list(cast("Sequence[int]", prompt))
        if wrong := next((token for token in tokens if not 0 <= token < vocabulary.size), None):
            raise UsageError(
                f"the prompt has token {wrong}, and this model's go from 0 to {vocabulary.size - 1:,}.",
                hint="tokenize with this model, or send text.",
            )
    else:
        pieces = cast("Sequence[str]", prompt)
        tokens = encode(pieces, lambda text: vocabulary.tokenize(text, special=True))
    # Some templates spell the begin-of-text token, some leave it to the tokenizer.
    if vocabulary.adds_bos and tokens[:1] != [vocabulary.bos]:
        tokens.insert(0, vocabulary.bos)
    if not tokens:
        raise UsageError("the prompt is empty.", hint="type a prompt after the model's name, or pipe one in.")
    return tokens


def closing_tokens(vocabulary: Vocabulary, reasoning: ReasoningOptions | None) -> dict[str, list[int]]:
    """Return, by closing tag, the tokens that end reasoning whose budget is used up; none where there is no budget."""
    if reasoning is None or reasoning.budget is None:
        return {}
    return {tag: vocabulary.tokenize(f"\n{tag}\n", special=True) for _, tag in reasoning.tags}


def encode(pieces: Sequence[str], tokenize: Tokenize) -> list[int]:
    """The tokens of a prompt.

    Args:
        pieces: texts that are tokenized one by one, so that no token reaches across.
        tokenize: text to tokens, control tokens parsed, nothing added at either end.
    """
    if not pieces:
        return []
    tokens, line = list(tokenize(pieces[0])), list(tokenize("\n")) if len(pieces) > 1 else []
    for piece in pieces[1:]:
        # SentencePiece vocabularies put a space before what they are given, but not behind a line break, and there the
        # line break is always a token of its own.
        whole = list(tokenize("\n" + piece))
        tokens += whole[len(line) :] if whole[: len(line)] == line else tokenize(piece)
    return tokens


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences of the same kind (both lists, say) share at their start.

    It compares blocks, and halves the one that differs: 2 ms for 100,000 tokens.
    """
    end = min(len(left), len(right))
    low = 0
    while low < end and left[low : low + BLOCK] == right[low : low + BLOCK]:
        low += BLOCK
    high = min(low + BLOCK, end)
    if low >= end:
        return end
    while low < high:  # the first `low` are equal; they differ before `high`, or `high` is the shorter one's end
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
