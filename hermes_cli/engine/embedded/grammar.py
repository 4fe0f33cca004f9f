"""Constrained decoding with llguidance: the tokens that a grammar allows next, and those that it forces.

A grammar is a text (llguidance's, as JSON); where it comes from is not known here. One `Grammars` serves a model, one
`Matcher` a request. The cheapest way to use a matcher, and the same distribution as with a mask in every step:

    append what `forced()` returns, without sampling;
    else draw a token as if there were no grammar, and keep it if `try_accept()` takes it;
    else draw again among what `mask()` allows (`apply_mask`), and `accept()` that;
    stop when `finished`, or when a token ends the generation.

Everything that goes wrong inside of llguidance is an error here; it never goes on as if there were no grammar.
"""

from __future__ import annotations

import ctypes
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from hermes_cli.engine.embedded.bindings import llama_cpp
from hermes_cli.errors import EngineError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from llguidance import LLMatcher, LLTokenizer
    from numpy.typing import NDArray

    from hermes_cli.engine.embedded.vocabulary import Vocabulary

T = TypeVar("T")

MOST_COMPILED = 16  # grammars that are kept (0.1 to 60 MB); agents come back with the same tools in every turn

# What one request may cost, in llguidance's units. A lexer state has 1 to 2 KB, and all requests with a grammar share
# them; a long text of free prose takes 10,000. Where rules are ambiguous the time for an item grows with the square of
# the others: a mask of 20,000 items takes 0.4 s, of the default (50,000) 2.6 s. Honest ones stay below 10,000.
MOST_STATES, MOST_SYMBOLS, MOST_ITEMS = 50_000, 100_000, 20_000

# Processor time, in seconds, that a request may take from all others: at first, and for each question to its matcher.
# Honest grammars take 5 ms for a mask of 128,000 tokens, and 0.1 ms for anything else.
CREDIT, CREDIT_PER_CALL = 1.0, 0.010
# Digits in a row, unless they stand in a text or only more of them may follow: numbers of JSON have no end by
# themselves, and a small model may never find one. No number of 64 bits has more.
MOST_DIGITS = 320
LONG = 16  # bytes; taking a token has no limits of llguidance's, and takes time for each byte of it

_SPECIAL = b"\xff"  # llguidance's mark for tokens that are not text
_NO_TEXT = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN | llama_cpp.LLAMA_TOKEN_ATTR_UNUSED
_BRACKETED = re.compile(rb"<[^<>\s]+>|\[[^\[\]\s]+\]")  # how special tokens are spelled that somebody added
_BUG = "this is a bug in hermes or llguidance; please report it with the schema or the tools."


class Grammars:
    """Compiles grammars for one model's vocabulary. Threads may share it."""

    def __init__(self, vocabulary: Vocabulary, tags: Iterable[str] = ()) -> None:
        """Look for special tokens, such as `<tool_call>` in `tags`; `tokenizer` reads the rest of the vocabulary."""
        tokenized = ((tag, vocabulary.tokenize(tag, special=True)) for tag in tags)
        self.vocabulary = vocabulary  # of a model that stays open as long as this is used
        # those of the given texts that are one token, and so no ordinary text
        self.tags = {tag: tokens[0] for tag, tokens in tokenized if len(tokens) == 1}
        self._ends = sorted(vocabulary.ends)
        known = {*self._ends, *self.tags.values()}
        others = []
        for token, kind in vocabulary.marked.items():
            is_tag = kind & llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED and _BRACKETED.fullmatch(vocabulary.piece(token))
            if (kind & _NO_TEXT or is_tag) and token not in known:
                others.append(token)
        self.others = tuple(others)  # all other tokens that are not text, without those that end a generation
        self._tokenizer: LLTokenizer | None = None
        self._long: frozenset[int] = frozenset()
        self._digits: dict[int, int] = {}  # tokens that are digits, and how many
        self._letter = 0
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = Lock()

    def tokenizer(self) -> LLTokenizer:
        """Return llguidance's tokenizer; the first call reads the vocabulary, 0.8 s for 128,000 tokens."""
        from llguidance import LLTokenizer  # noqa: PLC0415 - 0.1 s, and most models never need it

        with self._lock:
            if self._tokenizer is None:
                if not self._ends:
                    raise UsageError(
                        "this model's vocabulary has no token that ends an answer, so nothing can be constrained.",
                        hint="use another file of this model.",
                    )
                pieces = _pieces(self.vocabulary, {*self._ends, *self.tags.values(), *self.others})
                self._long = frozenset(token for token, piece in enumerate(pieces) if len(piece) > LONG)
                self._letter = self.vocabulary.tokenize("k", special=False)[0]
                self._digits = {token: len(piece) for token, piece in enumerate(pieces) if piece.isdigit()}
                self._tokenizer = LLTokenizer.from_llamacpp(  # type: ignore[attr-defined] # not in its stub
                    tokens=pieces,
                    vocab_ptr=ctypes.cast(self.vocabulary._vocab, ctypes.c_void_p).value,  # noqa: SLF001 - llguidance tokenizes itself
                    tokenize_fptr=ctypes.cast(llama_cpp._lib.llama_tokenize, ctypes.c_void_p).value,  # noqa: SLF001 - as above
                    eos_token=self._ends,
                )
            return self._tokenizer

    def start(self, grammar: str) -> Matcher:
        """Return a matcher at the beginning of a grammar. Compiling takes milliseconds to a second, once."""
        with self._lock:
            matcher = self._compiled.get(grammar)
        if matcher is None:
            matcher = self._compile(grammar)
        with self._lock:
            self._compiled[grammar] = matcher
            self._compiled.move_to_end(grammar)
            while len(self._compiled) > MOST_COMPILED:
                self._compiled.popitem(last=False)
            spoiled = partial(self._forget, grammar, matcher)
            return Matcher(matcher.deep_copy(), self._long, spoiled, digits=self._digits, letter=self._letter)

    def _forget(self, grammar: str, matcher: LLMatcher) -> None:
        """Compile a grammar anew the next time: copies share the states of its lexer, and so a failure of that."""
        with self._lock:
            if self._compiled.get(grammar) is matcher:
                del self._compiled[grammar]

    def _compile(self, grammar: str) -> LLMatcher:
        from llguidance import LLMatcher, LLParserLimits  # noqa: PLC0415 - as above

        limits = LLParserLimits(
            step_max_items=MOST_ITEMS,
            max_lexer_states=MOST_STATES,
            max_grammar_size=MOST_SYMBOLS,
            verbose_errors=False,
        )
        matcher = LLMatcher(self.tokenizer(), grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise UsageError(
                f"the grammar cannot be used with this model: {_first_line(matcher)}.",
                hint="simplify it; docs/constraints.md has the limits.",
            )
        return matcher


class Matcher:
    """The state of one request's grammar. Belongs to one thread at a time.

    What cannot be met, or takes too much time or memory, is an EngineError of each method.
    """

    def __init__(
        self,
        matcher: LLMatcher,  # llguidance's
        long: Container[int],  # tokens to check before
        spoiled: Callable[[], None],  # called when llguidance gives up
        *,
        digits: Mapping[int, int],  # tokens that are digits, and how many
        letter: int,  # a token that may come next in texts, and not in numbers
    ) -> None:
        """Use `Grammars.start`."""
        self._matcher, self._long, self._spoiled = matcher, long, spoiled
        self._digits, self._letter = digits, letter
        self._digits_in_a_row = 0
        self._credit = CREDIT

    @property
    def finished(self) -> bool:
        """True if only the end may follow."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def mask(self) -> bytes:
        """Return the tokens that may come next: bit `i % 8` of byte `i // 8` is token `i`."""
        mask = self._timed(self._matcher.compute_bitmask)
        self._check()
        if self._digits_in_a_row < MOST_DIGITS or _has(mask, self._letter):
            return mask
        others = bytearray(mask)
        for token in self._digits:
            others[token >> 3] &= ~(1 << (token & 7))
        return bytes(others) if any(others) else mask

    def forced(self) -> list[int]:
        """Return the tokens that must come next, as the tokenizer would write them; `accept` them one by one."""
        return self._timed(self._matcher.compute_ff_tokens)

    def try_accept(self, token: int) -> bool:
        """Accept a token and return True if it may come next; else do nothing."""
        too_many = self._digits_in_a_row >= MOST_DIGITS and token in self._digits
        if (too_many or token in self._long) and not _has(self.mask(), token):  # masks have limits
            return False
        taken = self._timed(lambda: self._matcher.try_consume_tokens([token])) == 1
        if taken:
            self._digits_in_a_row = self._digits_in_a_row + self._digits[token] if token in self._digits else 0
        else:
            self._check()
        return taken

    def begin(self, spellings: Iterable[Sequence[int]]) -> None:
        """Accept the first of several spellings of a text that may come next; UsageError if none may."""
        for tokens in spellings:
            taken = sum(1 for _ in takewhile(self.try_accept, tokens))
            if taken == len(tokens):
                return
            self._matcher.rollback(taken)
        raise UsageError(
            "the answer that is begun cannot go on to what the schema, the grammar or the tools ask for.",
            hint="begin it as they want it, or leave its beginning out.",
        )

    def accept(self, token: int) -> None:
        """Accept a token that may come next."""
        if not self.try_accept(token):
            raise EngineError(f"the grammar does not allow token {token} here.", hint=_BUG)

    def acceptable(self, tokens: Sequence[int]) -> int:
        """Return how many of these tokens may come next, one after the other, or fewer; accept none."""
        short = list(takewhile(lambda token: token not in self._long, tokens))
        taken = self._timed(lambda: self._matcher.try_consume_tokens(short))
        if taken:
            self._matcher.rollback(taken)
        self._check()
        return taken

    def _timed(self, ask: Callable[[], T]) -> T:
        """Return the result of llguidance, if the request has not taken too much time yet."""
        started = time.thread_time()
        result = ask()
        self._credit = min(self._credit + CREDIT_PER_CALL - (time.thread_time() - started), CREDIT)
        if self._credit < 0:
            raise EngineError(
                "the grammar or schema takes too much time for each token.",
                hint="make it less ambiguous; docs/constraints.md has the limits.",
            )
        return result

    def _check(self) -> None:
        if self._matcher.is_error():
            self._spoiled()
            raise EngineError(
                f"what the grammar or schema asks for cannot be written from here: {_first_line(self._matcher)}.",
                hint="simplify the grammar or schema; docs/constraints.md has the limits.",
            )


def _has(mask: bytes, token: int) -> bool:
    return bool(mask[token >> 3] >> (token & 7) & 1)


def apply_mask(mask: bytes, logits: NDArray[np.float32]) -> None:
    """Set the logits of all tokens that a mask (`Matcher.mask`) does not allow to -inf, in place."""
    import numpy as np  # noqa: PLC0415 - whoever has logits in an array has it loaded

    allowed = np.unpackbits(np.frombuffer(mask, np.uint8), count=logits.size, bitorder="little")
    logits[allowed == 0] = -np.inf


def _pieces(vocabulary: Vocabulary, special: set[int]) -> list[bytes]:
    """Return the bytes of all tokens, marked if they are not text."""
    vocab = vocabulary._vocab  # noqa: SLF001 - as above
    write = llama_cpp.llama_token_to_piece
    room = 4096
    buffer = ctypes.create_string_buffer(room)
    pieces = []
    for token in range(vocabulary.size):
        size = write(vocab, token, buffer, room, 0, True)  # noqa: FBT003 - a C function
        pieces.append(ctypes.string_at(buffer, size) if size >= 0 else vocabulary.piece(token))
    for token in special:
        pieces[token] = _SPECIAL + pieces[token]
    return pieces


def _first_line(matcher: LLMatcher) -> str:
    error = matcher.get_error().strip().partition("\n")[0].rstrip(".")
    return "no token fits" if error.startswith("NoExtension") else error
