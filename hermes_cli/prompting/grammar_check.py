"""Checks of grammars and schemas by the grammar engine, in a sandbox, and the part of a schema that it refuses.

A grammar of a few hundred bytes can take the grammar engine (llguidance 1.9) minutes and gigabytes, or all of a
thread's stack: its own limits do not hold while it compiles. Only one that passes here, compiled without a vocabulary,
goes on to the engine's process, which serves everybody.

Grammars in llama.cpp's syntax (GBNF) are converted to Lark's here, too, by llguidance. It gets numbers for characters
wrong, and rules that are named as Lark's first one; both are mended before. Rules that only spell characters become
lexemes, which take as many characters as they can, so `[a-z]+ "end"` never ends. Such a grammar allows less than in
llama.cpp, never more.

Whatever runs in the sandbox raises EngineError where no process can be started.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

from hermes_cli.errors import UsageError
from hermes_cli.prompting.sandbox import Sandbox
from hermes_cli.prompting.schema import Checker
from hermes_cli.prompting.schema_keywords import IN_PLACE, MOST_NOTES, MOST_SYMBOLS
from hermes_cli.prompting.schema_relations import DEFINITIONS, Json

if TYPE_CHECKING:
    from llguidance import LLTokenizer

# JSON as json.dumps writes it, and as the models were trained: `{"a": 1, "b": "é"}`. `\u` is left out because a name
# that is written with it could repeat one of the schema's properties; so control characters without a letter of their
# own (U+0000 and the like) cannot be written.
_WRITING = {
    "item_separator": ", ",
    "key_separator": ": ",
    "whitespace_flexible": False,
    "json_allowed_escapes": 'nrbtf\\"',
}
_SECONDS_TO_BLAME = 1.0
_MOST_NAMES = 50  # of properties that are compared with a pattern
_SECONDS_TO_RELAX = 2.0

# Texts that have to meet several expressions at once: the work for one letter doubles with each of them, and may come
# only after letters that were harmless.
MOST_AT_ONCE = 8

# Strings, regular expressions and comments of Lark. What lacks its end is taken up to that of the line: if
# each quote were a new beginning, the time would grow with their square.
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*+"?|//[^\n]*+|/(?:[^/\\\n]|\\.)++/?')

# Messages of the engine, and ours in their place.
_MESSAGES = {
    r"oneOf constraints": "two schemas of `oneOf` may be met at once, as far as can be told",
    r"min/maxProperties only": "`minProperties` or `maxProperties` with optional properties",
    r"schema too large|symbols\) too big|fuel|too complex|limit exceeded|Too many items|Current row has"
    r"|too many (?:states|expressions)": "it is too complex",
    r"NoExtension": "nothing can meet it",
    r"Unsatisfiable schema: (.*)": r"nothing can meet it: \1",
}

TOO_MUCH = "it is too complex: it takes too much time or memory to compile"

# The largest honest schemas and sets of tools measured take 0.4 s and 20 MB.
LIMITS: dict[str, Any] = {"seconds": 1.0, "new_bytes": 64 << 20}

# In llguidance's units; the engine's limits are the same or laxer (engine/embedded/grammar.py).
MOST_ITEMS, MOST_STATES, LEXER_FUEL = 20_000, 20_000, 1_000_000

MOST_KEPT, MOST_KEPT_CHARACTERS = 1024, 16_000_000  # schemas that are kept, of all requests

_NUMBER = re.compile(r"\\(?:(\\)|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")
_START = re.compile(r'("(?:[^"\\\n]|\\.)*+"?|\[(?:[^\]\\\n]|\\.)*+\]?|#[^\n]*)|(?<![\w-])start(?![\w-])')
_LAST_ASCII = 0x7F

_sandbox = Sandbox("hermes_cli.prompting.grammar_check")


def with_options(schema: Mapping[str, Json]) -> str:
    """Return a schema as Lark's `%json` takes it."""
    return json.dumps({**schema, "x-guidance": _WRITING}, ensure_ascii=False)


def rules_fault(grammars: Mapping[str, str]) -> str | None:
    """Return why the engine refuses grammars in Lark's syntax (by name) or has too much work, None if it takes them."""
    for rules in grammars.values():
        bare = _QUOTED.sub("", rules)
        count = bare.count("&") + bare.count("~")
        if count > MOST_AT_ONCE:
            return f"it has {count:,} times `&` and `~`; at most {MOST_AT_ONCE} are taken"
        if "%json" in bare and any(map(_is_all_of, _QUOTED.findall(rules))):
            return "`allOf` in `%json` is not taken; send it as a JSON schema"
    fault = grammar_fault({"grammars": [{"name": name, "lark_grammar": rules} for name, rules in grammars.items()]})
    return "nothing can meet it" if fault and fault.startswith("NoExtension") else fault


def _is_all_of(text: str) -> bool:
    with suppress(ValueError):
        return bool(json.loads(text) == "allOf")
    return False


def enforceable(schema: Json, about: str, *, notes: list[str] | None = None, lenient: bool = False) -> str:
    """Return a schema, checked and compiled, as Lark's `%json` takes it; see schema.py's `Checker` for the arguments.

    Raise UsageError if it cannot be enforced; the message says what of it, and where.
    """
    try:
        text = json.dumps(schema)
    except (RecursionError, TypeError, ValueError):
        raise UsageError(f"{about}: it is not JSON, or too deep.", hint="write it as JSON.") from None
    key = hashlib.sha256(repr((text, about, notes is None, lenient)).encode()).digest()
    result = _results.get(key)
    if result is None:
        result = _enforceable(text, about, relaxed=notes is not None, lenient=lenient)
        _results.put(key, result)
    made, new_notes, error = result
    if notes is not None:
        notes += new_notes
    if error:
        raise UsageError(error.reason, hint=error.hint)
    return made


def _enforceable(text: str, about: str, *, relaxed: bool, lenient: bool) -> _Result:
    notes: list[str] | None = [] if relaxed else None
    try:
        return _relaxed(json.loads(text), about, notes, lenient=lenient), tuple(notes or ()), None
    except RecursionError:
        error = UsageError(f"{about}: its references lead through too many others.", hint="make it simpler.")
    except UsageError as refused:
        error = refused.with_traceback(None)
    return "", tuple(notes or ()), error


_Result = tuple[str, tuple[str, ...], UsageError | None]
"""A schema as text, notes, and what is wrong with it if that cannot be enforced."""


class _Results:
    """The latest schemas: agents send the same tools in every turn, the odd ones among them. Threads may share it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, _Result] = OrderedDict()
        self._characters = 0
        self._lock = Lock()

    def get(self, key: bytes) -> _Result | None:
        """Return what is kept for a key."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: bytes, result: _Result) -> None:
        """Keep a result; the oldest are dropped."""
        with self._lock:
            self._characters += len(result[0]) - len(self._kept.pop(key, ("",))[0])
            self._kept[key] = result
            while len(self._kept) > MOST_KEPT or self._characters > MOST_KEPT_CHARACTERS:
                self._characters -= len(self._kept.popitem(last=False)[1][0])


_results = _Results()


def _relaxed(schema: Json, about: str, notes: list[str] | None, *, lenient: bool) -> str:
    checker = Checker(schema, about, notes=notes, lenient=lenient)
    made = checker.result()
    _refuse_crowds(made, about)
    until = time.monotonic() + _SECONDS_TO_RELAX
    for part in checker.with_patterns:
        _end_patterns(part, until)
    while fault := _schema_fault(made):
        if fault == TOO_MUCH or time.monotonic() > until:
            raise UsageError(f"{about}: {TOO_MUCH}.", hint="make it smaller.")
        part, fault = _blamed(made, fault)
        for expression, message in _MESSAGES.items():
            if match := re.search(expression, fault):
                fault = match.expand(message)
        text = f"{about}: what stands at {checker.pointers.get(id(part), '#')} cannot be enforced: {fault}"
        if notes is None or len(notes) >= MOST_NOTES:
            raise UsageError(f"{text}.", hint="docs/constraints.md lists what is enforced.")
        if _close_together(part, made.get("$defs", {})):
            notes.append(f"{text}; the objects that forbid each other's properties are closed together.")
            continue
        notes.append(f"{text}; only its type is.")
        kind = part.get("type")
        part.clear()
        part.update({"type": kind} if kind else {})
    return with_options(made)


def _close_together(part: dict[str, Json], definitions: Mapping[str, Json]) -> bool:
    """Let the objects of `allOf` that have no other properties have each other's; return whether that changed one.

    Authors who put closed schemas together mean one object with the properties of all.
    """
    merged = [_copied(each, definitions) for each in part.get("allOf", ())]
    objects = [each for each in (part, *merged) if isinstance(each.get("properties"), dict)]
    closed = [each for each in objects if each.get("additionalProperties") is False]
    names = dict.fromkeys(name for each in objects for name in each["properties"])  # in their order
    if all(names.keys() <= each["properties"].keys() for each in closed):
        return False
    for each in closed:
        each["properties"] = {name: each["properties"].get(name, {}) for name in names}
    part["allOf"] = merged
    return True


def _copied(schema: Json, definitions: Mapping[str, Json]) -> dict[str, Json]:
    """Return a copy of a schema, or of the definition that it refers to and nothing else."""
    reference = schema.get("$ref") if isinstance(schema, dict) and len(schema) == 1 else None
    target = definitions.get(reference.removeprefix(DEFINITIONS), schema) if isinstance(reference, str) else schema
    return dict(target) if isinstance(target, dict) else {"allOf": [target]}


def _end_patterns(part: dict[str, Json], until: float) -> None:
    """Say of properties what patterns say that match nothing else: the engine would begin another one, and be stuck."""
    properties: dict[str, Json] = part["properties"]
    for expression, schema in [*part["patternProperties"].items()]:
        if time.monotonic() > until or len(properties) > _MOST_NAMES or _matches_more(expression, properties):
            continue
        del part["patternProperties"][expression]
        for name, value in [*properties.items()]:
            if _matches_more(expression, properties.keys() - {name}):
                properties[name] = {"allOf": [value, schema]}


def _matches_more(expression: str, names: Iterable[str]) -> bool:
    """Return whether a pattern matches any other name than these."""
    one_more = {"properties": dict.fromkeys(names, False), "patternProperties": {expression: {}}, "minProperties": 1}
    return _schema_fault({"type": "object", "additionalProperties": False, **one_more}) is None


def _refuse_crowds(made: dict[str, Json], about: str) -> None:
    """Refuse too many expressions for one text."""
    known: dict[int, int] = {}
    waiting: list[Json] = [made]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if part.keys() & set(IN_PLACE) and (count := _at_once(part, made.get("$defs", {}), known)) > MOST_AT_ONCE:
                raise UsageError(
                    f"{about}: {count:,} patterns, formats or lengths apply to one text; at most {MOST_AT_ONCE} are"
                    " taken.",
                    hint="say them in one pattern.",
                )
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _at_once(schema: Json, definitions: Mapping[str, Json], known: dict[int, int]) -> int:
    """Return how many expressions apply to one text. No schema leads back to itself: the checker refuses such."""
    if not isinstance(schema, dict):  # or a property has the name of a word
        return 0
    if id(schema) not in known:
        count = ("pattern" in schema) + ("format" in schema) + bool({"minLength", "maxLength"} & schema.keys())
        for word, add in (("allOf", sum), ("anyOf", max), ("oneOf", max)):
            if isinstance(parts := schema.get(word), list) and parts:
                count += add(_at_once(part, definitions, known) for part in parts)
        if isinstance(target := schema.get("$ref"), str):
            count += _at_once(definitions.get(target.removeprefix(DEFINITIONS)), definitions, known)
        known[id(schema)] = count
    return known[id(schema)]


def _schema_fault(schema: Json) -> str | None:
    return grammar_fault({"grammars": [{"json_schema": {**schema, "x-guidance": _WRITING}}]})


def _blamed(schema: dict[str, Json], fault: str) -> tuple[dict[str, Json], str]:
    """Return the smallest part that is refused by itself, and why."""
    definitions = schema.get("$defs", {})
    seen = [schema]
    until = time.monotonic() + _SECONDS_TO_BLAME
    inner = _parts(schema, definitions)
    while time.monotonic() < until and (part := next(inner, None)) is not None:
        if any(part is other for other in seen):
            continue
        seen.append(part)
        inner_fault = _schema_fault({**part, "$defs": definitions})
        # A part that nothing meets is no fault by itself: it may be optional.
        if inner_fault and ("Unsatisfiable" in fault or "Unsatisfiable" not in inner_fault):
            schema, fault, inner = part, inner_fault, _parts(part, definitions)
    return schema, fault


def _parts(schema: dict[str, Json], definitions: dict[str, Json]) -> Iterator[dict[str, Json]]:
    """Return the schemas in a schema, one level down."""
    parts = [part for word in ("properties", "patternProperties") for part in schema.get(word, {}).values()]
    parts += [part for word in ("allOf", "anyOf", "oneOf", "prefixItems") for part in schema.get(word, ())]
    parts += [schema.get(word) for word in ("items", "additionalProperties")]
    parts.append(definitions.get(schema.get("$ref", "").removeprefix(DEFINITIONS)))
    return (part for part in parts if isinstance(part, dict))


def grammar_fault(grammar: Mapping[str, object]) -> str | None:
    """Return why the grammar engine refuses a grammar (in its JSON form), None if it takes it."""
    fault = _sandbox.call("compile_fault", json.dumps(grammar), **LIMITS)
    return TOO_MUCH if fault is None else fault or None


def to_lark(grammar: str) -> str:
    """Return a GBNF grammar in Lark's syntax; `root` becomes `start`. The time grows with the square of the rules.

    Raise ValueError if it is no such grammar, or takes too long; the message says where it goes wrong.
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
