"""The vocabulary of a model: texts to tokens and back, and which tokens are no text."""

from __future__ import annotations

import ctypes
from functools import cached_property
from itertools import repeat
from typing import Any, NamedTuple, Protocol

from hermes_cli.engine.embedded.bindings import llama_cpp
from hermes_cli.errors import UsageError

MARKED = (
    llama_cpp.LLAMA_TOKEN_ATTR_CONTROL
    | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
    | llama_cpp.LLAMA_TOKEN_ATTR_UNUSED
    | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED
)


class Owner(Protocol):
    """A loaded model."""

    @property
    def handle(self) -> Any:  # noqa: ANN401 - ctypes pointers have no common type
        """llama.cpp's pointer to it."""


class Vocabulary:
    """The model's tokenizer; lives as long as its model."""

    def __init__(self, model: Owner) -> None:
        self._model = model
        self._vocab = llama_cpp.llama_model_get_vocab(model.handle)
        self.size: int = llama_cpp.llama_vocab_n_tokens(self._vocab)

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`; `special` lets the text spell control tokens. Nothing is added at either end.

        Raises:
            UsageError: the text is too long for llama.cpp to count its tokens.
        """
        raw = text.encode("utf-8", "replace")  # JSON escapes and command lines can hold half characters
        room = len(raw) + 8
        tokens = (llama_cpp.llama_token * room)()
        count: int = llama_cpp.llama_tokenize(self._vocab, raw, len(raw), tokens, room, False, special)  # noqa: FBT003
        if count < 0:
            raise UsageError(f"a text of {len(raw):,} bytes cannot be tokenized.", hint="shorten it.")
        return list(tokens[:count])

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for, tags included; a character may span several tokens."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            written: int = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, size, 0, True)  # noqa: FBT003
            if written >= 0:
                return buffer.raw[:written]
            size = -written

    def text_of(self, token: int) -> str:
        """How the vocabulary spells a token; empty for -1, which means the model has none of that kind."""
        return "" if token < 0 else llama_cpp.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace")

    @cached_property
    def marked(self) -> dict[int, int]:
        """Tokens that are not, or not only, ordinary text, with llama.cpp's attributes: 0.1 s for 262,144 tokens."""
        kinds = map(llama_cpp.llama_vocab_get_attr, repeat(self._vocab), range(self.size))
        return {token: kind for token, kind in enumerate(kinds) if kind & MARKED}

    def special_texts(self) -> tuple[list[str], list[str]]:
        """How control tokens are spelled, and those that whoever made the vocabulary added to it."""
        control: list[str] = []
        added: list[str] = []
        for token, kind in self.marked.items():
            if kind & (llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN):
                control.append(self.text_of(token))
            elif kind & llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED:
                added.append(self.text_of(token))
        return control, added

    def ends(self) -> set[int]:
        """The tokens that end an answer.

        llama.cpp makes control tokens of those that it knows by their spelling, and takes those that the file names,
        whatever they are (llama-vocab.cpp, `special_eog_ids`).
        """
        named = ("eos", "eot", "fim_pad", "fim_rep", "fim_sep")
        stated = {getattr(llama_cpp, f"llama_vocab_{name}")(self._vocab) for name in named} - {-1}
        return {token for token in {*self.marked, *stated} if self.ends_generation(token)}

    @property
    def bos(self) -> int:
        """The token that begins a text, or -1."""
        token: int = llama_cpp.llama_vocab_bos(self._vocab)
        return token

    @property
    def eos(self) -> int:
        """The token that ends a text, or -1."""
        token: int = llama_cpp.llama_vocab_eos(self._vocab)
        return token

    @property
    def adds_bos(self) -> bool:
        """Whether prompts are to start with the begin-of-text token."""
        return bool(llama_cpp.llama_vocab_get_add_bos(self._vocab))

    def ends_generation(self, token: int) -> bool:
        """Whether the token ends an answer: end of turn, end of text, and their kin."""
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))


class TokenPiece(NamedTuple):
    """The bytes of a token, and whether it ends an answer."""

    bytes: bytes
    ends: bool


class TokenPieces(dict[int, TokenPiece]):
    """Token ids to pieces, filled as they are needed: a call into C for every token of every step would add up."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self._vocabulary = vocabulary

    def __missing__(self, token: int) -> TokenPiece:
        piece = self[token] = TokenPiece(self._vocabulary.piece(token), self._vocabulary.ends_generation(token))
        return piece
