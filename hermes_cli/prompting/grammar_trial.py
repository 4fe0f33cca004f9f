"""Grammars are compiled in a sandbox first, without a vocabulary, where one that takes too much does no harm.

A grammar of a few hundred bytes can take the grammar engine (llguidance 1.9) minutes and gigabytes, or all of a
thread's stack: its own limits do not hold while it compiles. Only one that passes here goes on to the engine's process,
which serves everybody.

Grammars in llama.cpp's syntax (GBNF) are converted to Lark's here, too, by llguidance. It gets numbers for characters
wrong, and rules that are named as Lark's first one; both are mended before. Rules that only spell characters become
lexemes, which take as many characters as they can, so `[a-z]+ "end"` never ends. Such a grammar allows less than in
llama.cpp, never more.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from hermes_cli.prompting.sandbox import Sandbox
from hermes_cli.prompting.schema_keywords import MOST_SYMBOLS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llguidance import LLTokenizer

TOO_MUCH = "it is too complex: it takes too much time or memory to compile"

# The largest honest schemas and sets of tools measured take 0.4 s and 20 MB.
LIMITS: dict[str, Any] = {"seconds": 1.0, "new_bytes": 64 << 20}

# In llguidance's units; the engine's limits are the same or laxer (engine/embedded/grammar.py).
MOST_ITEMS, MOST_STATES, LEXER_FUEL = 20_000, 20_000, 1_000_000

_NUMBER = re.compile(r"\\(?:(\\)|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")
_START = re.compile(r'("(?:[^"\\\n]|\\.)*"|\[(?:[^\]\\\n]|\\.)*\]|#[^\n]*)|(?<![\w-])start(?![\w-])')
_LAST_ASCII = 0x7F

_sandbox = Sandbox("hermes_cli.prompting.grammar_trial")


def grammar_fault(grammar: Mapping[str, object]) -> str | None:
    """Return why the grammar engine refuses a grammar, None if it takes it.

    Args:
        grammar: in llguidance's JSON form.

    Raises:
        EngineError: the process for it cannot be started.
    """
    fault = _sandbox.call("compile_fault", json.dumps(grammar), **LIMITS)
    return TOO_MUCH if fault is None else fault or None


def to_lark(grammar: str) -> str:
    """Return a GBNF grammar in Lark's syntax; `root` becomes `start`. The time grows with the square of the rules.

    Raises:
        ValueError: it is no such grammar, or takes too long; the message says where it goes wrong.
        EngineError: the process for it cannot be started.
    """
    lark, fault = _sandbox.call("convert", grammar, **LIMITS) or ("", TOO_MUCH)
    if fault:
        raise ValueError(fault)
    return str(lark)


# In the sandbox


def prepare_sandbox() -> None:
    """Import the grammar engine before memory is limited."""
    import llguidance  # noqa: F401, PLC0415 - only in the sandbox is it needed


def compile_fault(grammar: str) -> str:
    """Return what the grammar engine says against a grammar and its first step, empty if nothing."""
    from llguidance import LLMatcher, LLParserLimits  # noqa: PLC0415 - as above

    limits = LLParserLimits(
        initial_lexer_fuel=LEXER_FUEL,
        step_max_items=MOST_ITEMS,
        max_lexer_states=MOST_STATES,
        max_grammar_size=MOST_SYMBOLS,
        verbose_errors=False,
    )
    fault = LLMatcher.validate_grammar(grammar, limits=limits)
    if not fault:
        matcher = LLMatcher(_tokenizer(), grammar, log_level=0, limits=limits)
        if not matcher.is_error():
            matcher.try_consume_tokens(matcher.compute_ff_tokens())
            matcher.compute_bitmask()
        fault = matcher.get_error()
    return fault.strip()


@cache
def _tokenizer() -> LLTokenizer:
    """Return a vocabulary of bytes."""
    from llguidance import LLTokenizer  # noqa: PLC0415 - as above

    return LLTokenizer("byte")


def convert(grammar: str) -> tuple[str, str]:
    """Return a GBNF grammar in Lark's syntax, and what is wrong with it; one of them is empty."""
    from llguidance.gbnf_to_lark import gbnf_to_lark  # noqa: PLC0415 - as above

    try:
        grammar = _NUMBER.sub(_character, grammar)
        return gbnf_to_lark(_START.sub(lambda match: match[1] or "start-rule", grammar)), ""
    except RecursionError:
        return "", "it is too deep"
    except Exception as error:  # noqa: BLE001 - it raises plain `Exception` for missing and repeated rules
        return "", str(error) or "it is no such grammar"


def _character(match: re.Match[str]) -> str:
    if match[1]:
        return match[0]
    code = int(match[2] or match[3] or match[4], 16)
    if code <= _LAST_ASCII:
        return f"\\x{code:02x}"
    if 0xD800 <= code < 0xE000 or code > 0x10FFFF:  # noqa: PLR2004 - surrogates; the last code point
        raise ValueError(f"`{match[0]}` is no character")
    return chr(code)
