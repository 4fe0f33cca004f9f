"""The vocabulary of a model: tokenize, detokenize, and the tokens that are not text."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, islice, repeat
from typing import Any, NamedTuple, cast

from hermes_cli.engine.embedded.bindings import llama_cpp
from hermes_cli.engine.request import SHARE_OF_END, ReasoningOptions, check_tokens, encode, encode_each
from hermes_cli.errors import UsageError

END = ""
MARKED = (
    llama_cpp.LLAMA_TOKEN_ATTR_CONTROL
    | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
    | llama_cpp.LLAMA_TOKEN_ATTR_UNUSED
    | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED
)

# Longer texts are tokenized in pieces. llama.cpp's time is quadratic in the number of control tokens, and the splitters
# that it leaves to std::regex recurse for each character: 60,000 equal letters end a process whose stacks have 16 MiB.
PIECE = 8192  # characters
SMALL_PIECE = 1024  # characters, where the splitter (`tokenizer.ggml.pre`) takes the square of a run of digits
SLOW_SPLITTERS = frozenset({b"superbpe"})
_SEARCHED = 8  # the part of a piece, its last eighth, that is searched for a place to cut
_TRIED = 4  # places of each kind
_CONTEXT = 192  # characters on both sides that have to become the same tokens, whether cut or not
COUNTED, COUNTED_PER_TOKEN = 1 << 20, 8  # characters, in all or for each token of context: of longer prompts the number
# of tokens is not told exactly
# Places where tokens rarely reach across, the best first: before a space or a line break between two words, before
# what may be a control token, between words and other characters, anywhere.
_CUTS = tuple(
    map(re.compile, (r"(?<=\S)(?= \w)", r"(?<=\w)(?=\n\w)", r"(?=[<\[])", r"(?<=\w)(?=\W)|(?<=\W)(?=\w)", ""))
)


class Vocabulary:
    """The model's tokenizer; lives as long as its model."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - a LlamaModel, or whatever has llama.cpp's `handle`
        self._model = model
        self._vocab = llama_cpp.llama_model_get_vocab(model.handle)
        self.size: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self.bos: int = llama_cpp.llama_vocab_bos(self._vocab)  # the tokens that begin and end a text, or -1
        self.eos: int = llama_cpp.llama_vocab_eos(self._vocab)
        splitter = ctypes.create_string_buffer(64)
        llama_cpp.llama_model_meta_val_str(model.handle, b"tokenizer.ggml.pre", splitter, len(splitter))
        self._piece = SMALL_PIECE if splitter.value in SLOW_SPLITTERS else PIECE
        self.adds_bos = bool(llama_cpp.llama_vocab_get_add_bos(self._vocab))  # prompts begin with BOS

    def tokenize(self, text: str, *, special: bool, ends: bool = False) -> list[int]:
        """Return the token ids of a text; `special` lets it spell control tokens.

        Nothing is added at either end, unless `ends` asks for what the vocabulary begins and ends texts with.
        """
        if len(text) <= self._piece:
            return self._tokenize(text, special=special, ends=ends)
        tokens = list(chain.from_iterable(self.tokenize_each([text], special=special)))
        if ends:
            letter, ended = (self._tokenize("a", special=special, ends=wanted) for wanted in (False, True))
            start = ended.index(letter[0])
            tokens = [*ended[:start], *tokens, *ended[start + len(letter) :]]
        return tokens

    def tokenize_each(self, texts: Iterable[str], *, special: bool) -> Iterator[Sequence[int]]:
        """Yield the tokens of texts that follow each other, so that none reaches from one to the next.

        They come in parts that take some milliseconds each, however long a text is.
        """
        pieces = (piece for text in texts for piece in self._pieces(text, special=special))
        return encode_each(pieces, lambda piece: self._tokenize(piece, special=special))

    def _tokenize(self, text: str, *, special: bool, ends: bool = False) -> list[int]:
        raw = text.encode("utf-8", "replace")  # JSON escapes and command lines can hold half characters
        room = len(raw) + 8
        tokens = (llama_cpp.llama_token * room)()
        count: int = llama_cpp.llama_tokenize(self._vocab, raw, len(raw), tokens, room, ends, special)
        return tokens[:count]

    def _pieces(self, text: str, *, special: bool) -> Iterator[str]:
        """Cut a text into pieces that become the same tokens as the whole, but in runs that have no place to cut."""
        start = 0
        while len(text) - start > self._piece:
            end = self._cut(text, start + self._piece, special=special)
            yield text[start:end]
            start = end
        yield text[start:]

    def _cut(self, text: str, limit: int, *, special: bool) -> int:
        """Return the place for a cut, at most `limit`."""
        for kind in _CUTS:
            places = [match.start() for match in kind.finditer(text, limit - self._piece // _SEARCHED, limit)]
            for place in islice(reversed(places), _TRIED):
                sides = [text[place - _CONTEXT : place], text[place : place + _CONTEXT]]
                parts = encode(sides, lambda side: self._tokenize(side, special=special))
                if parts == self._tokenize("".join(sides), special=special):
                    return place
        return limit

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token, control tokens included; a character may span several tokens."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            written: int = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, size, 0, True)  # noqa: FBT003
            if written >= 0:
                return buffer.raw[:written]
            size = -written

    def detokenize(self, tokens: Sequence[int]) -> bytes:
        """Return the bytes that tokens stand for; a number that is not a token is a UsageError."""
        check_tokens(tokens, self.size)
        return b"".join(map(self.piece, tokens))

    def text_of(self, token: int) -> str:
        """Return the text of a token in the vocabulary; empty for -1, which means that there is none."""
        return "" if token < 0 else llama_cpp.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace")

    @property
    def fim(self) -> tuple[int, ...]:
        """The tokens before the prefix, the suffix and the middle of a text to be filled in, if there are all three."""
        tokens = [getattr(llama_cpp, f"llama_vocab_fim_{name}")(self._vocab) for name in ("pre", "suf", "mid")]
        return tuple(tokens) if min(tokens) >= 0 else ()

    @cached_property
    def marked(self) -> dict[int, int]:
        """Tokens that are not, or not only, text, with llama.cpp's attributes: 0.1 s for 262,144 tokens."""
        kinds = map(llama_cpp.llama_vocab_get_attr, repeat(self._vocab), range(self.size))
        return {token: kind for token, kind in enumerate(kinds) if kind & MARKED}

    def special_texts(self) -> tuple[list[str], list[str]]:
        """Return the texts of control tokens, and of user-defined ones."""
        control: list[str] = []
        added: list[str] = []
        for token, kind in self.marked.items():
            if kind & (llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN):
                control.append(self.text_of(token))
            elif kind & llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED:
                added.append(self.text_of(token))
        return control, added

    @cached_property
    def ends(self) -> set[int]:
        """The tokens that end a generation.

        llama.cpp makes control tokens of those that it knows by their spelling, and takes those that the file names,
        whatever they are (llama-vocab.cpp, `special_eog_ids`).
        """
        named = ("eos", "eot", "fim_pad", "fim_rep", "fim_sep")
        stated = {getattr(llama_cpp, f"llama_vocab_{name}")(self._vocab) for name in named} - {-1}
        return {token for token in {*self.marked, *stated} if self.ends_generation(token)}

    def ends_generation(self, token: int) -> bool:
        """Return whether a token ends a generation: end of turn, end of text, and their kin."""
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))


class TokenPiece(NamedTuple):
    """The bytes of a token; `ends` if it ends a generation."""

    bytes: bytes
    ends: bool


class TokenPieces(dict[int, TokenPiece]):
    """Pieces by token id, filled on demand: a call into C for every token of every step would add up."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self._vocabulary = vocabulary

    def __missing__(self, token: int) -> TokenPiece:
        piece = self[token] = TokenPiece(self._vocabulary.piece(token), self._vocabulary.ends_generation(token))
        return piece


def prompt_tokens(
    vocabulary: Vocabulary, prompt: Sequence[str | int], context: int
) -> Generator[None, None, list[int]]:
    """Return the tokens of a prompt, which begin with BOS if the model wants that; yield between its parts.

    A very long one (`COUNTED`) is not tokenized to its end once it has more tokens than the context.

    Raise UsageError if the prompt is empty, or has a number that is not a token.
    """
    tokens: list[int] = []
    if prompt and isinstance(prompt[0], int):
        tokens = list(cast("Sequence[int]", prompt))
        if wrong := next((token for token in tokens if not 0 <= token < vocabulary.size), None):
            raise UsageError(
                f"the prompt has token {wrong}, and this model's go from 0 to {vocabulary.size - 1:,}.",
                hint="tokenize with this model, or send text.",
            )
    else:
        texts = cast("Sequence[str]", prompt)
        most = context if sum(map(len, texts)) > max(COUNTED, COUNTED_PER_TOKEN * context) else math.inf
        for part in vocabulary.tokenize_each(texts, special=True):
            tokens += part
            if len(tokens) > most:
                break
            yield
    # Some templates spell the begin-of-text token, some leave it to the tokenizer.
    if vocabulary.adds_bos and tokens[:1] != [vocabulary.bos]:
        tokens.insert(0, vocabulary.bos)
    if not tokens:
        raise UsageError("the prompt is empty.", hint="type a prompt after the model's name, or pipe one in.")
    return tokens


def closing_tokens(vocabulary: Vocabulary, reasoning: ReasoningOptions | None) -> dict[str, list[int]]:
    """Return, by closing tag, the tokens that end reasoning whose budget is used up; none where there is no budget.

    Under `END` are those of the sentence before the tag.
    """
    if reasoning is None or reasoning.budget is None:
        return {}
    end = vocabulary.tokenize(f"\n{reasoning.end}", special=False) if reasoning.end else []
    closing = {tag: vocabulary.tokenize(f"\n{tag}\n", special=True) for _, tag in reasoning.tags}
    return {END: end, **closing} if len(end) * SHARE_OF_END <= reasoning.budget else closing
