"""Texts of a grammar, letter by letter: whether it takes one, and how one of its own looks."""

from __future__ import annotations

import random

from llguidance import LLMatcher, LLTokenizer

from hermes_cli.prompting.turn_grammar import AnswerGrammar, SpecialTokens, Thinking, ToolGrammar, turn_grammar

BYTES = LLTokenizer("byte")  # each byte is a token
NO_TOKENS = SpecialTokens({})
ENDS = b'"}]>'
COMMON = b'"}], :{[<>/0123456789.-etrufalsn\n'


def grammar_of(answer: AnswerGrammar | None, calls: ToolGrammar | None = None, thinking: Thinking = "no") -> str:
    grammar = turn_grammar(answer, calls, thinking=thinking, tokens=NO_TOKENS)
    assert grammar is not None
    return grammar


def matcher(grammar: str) -> LLMatcher:
    made = LLMatcher(BYTES, grammar, log_level=0)
    assert not made.is_error(), made.get_error()
    return made


def accepts(grammar: str, text: str) -> bool:
    """Whether the whole text is one of the grammar's."""
    reader, raw = matcher(grammar), list(text.encode())
    return reader.try_consume_tokens(raw) == len(raw) and reader.is_accepting()


def walk(grammar: str, seed: int, most: int = 400) -> str | None:
    """A text of the grammar by chance, None if it did not end; after `most` bytes it hurries to an end."""
    reader, chance, out = matcher(grammar), random.Random(seed), bytearray()
    while not reader.is_stopped():
        mask = reader.compute_bitmask()
        assert not reader.is_error(), reader.get_error()
        allowed = [byte for byte in range(256) if mask[byte >> 3] >> (byte & 7) & 1]
        if reader.is_accepting() and (not allowed or len(out) > most or chance.random() < 0.05):
            break
        if len(out) > 4 * most:
            return None
        weights = [_weight(byte, hurry=len(out) > most) for byte in allowed]
        (byte,) = chance.choices(allowed, weights)
        out.append(byte)
        assert reader.consume_token(byte), reader.get_error()
    return out.decode()


def _weight(byte: int, *, hurry: bool) -> float:
    if hurry:
        return 1000 if byte in ENDS else 1
    return 30 if byte in COMMON else 3 if byte < 127 else 1
