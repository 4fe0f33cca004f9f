"""Keywords of JSON Schema: which are enforced, and readers of those about single values (types, numbers, texts).

Enforced are those of llguidance 1.9 (its docs/json_schema.md, parser/src/json/schema.rs), as far as it is exact.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

from hermes_cli.prompting.pattern import PatternError, to_rust
from hermes_cli.prompting.schema_relations import Json

if TYPE_CHECKING:
    from hermes_cli.prompting.schema import Checker, Node, Place

_UINT32 = 2**32

# Limits, so that a grammar is ready within a second (benchmarks/constraints.py measures it).
MOST_BYTES = 256 * 1024  # of all that constrains, as compact JSON; descriptions are not counted
MOST_SCHEMAS = 10_000  # subschemas
MOST_DEFINITIONS = 1_000  # schemas that a `$ref` points to
MOST_PROPERTIES = 1_000  # of one object: time grows with their square
MOST_LEVELS = 32  # of schemas in schemas; a `$ref` begins anew
MOST_NOTES = 50  # of one document
MOST_COUNTED = 1_000_000  # letters, items or properties; upper limits above it are lowered to it
MOST_SYMBOLS = 50_000  # of the grammar that is made of it (llguidance's max_grammar_size)
LARGEST_NUMBER = 10**18  # of bounds, and of integers that have none: they fit into 64 bits everywhere

IN_PLACE = ("allOf", "anyOf", "oneOf", "$ref")  # words whose schemas apply to the same value


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# JSON Schema 2020-12 (core 8.3, validation 7 to 9), earlier drafts, OpenAPI 3: they describe and identify. Two of them,
# `discriminator` and `nullable`, are read where they matter.
ANNOTATIONS = _words(
    "title description default example examples deprecated readOnly writeOnly $comment $schema id $anchor "
    "$dynamicAnchor $recursiveAnchor $vocabulary $defs definitions contentMediaType contentEncoding contentSchema "
    "externalDocs xml discriminator nullable"
)

# They constrain, and no grammar of this engine says so.
UNSUPPORTED = _words(
    "not if then else dependencies dependentRequired dependentSchemas contains minContains maxContains uniqueItems "
    "unevaluatedItems $dynamicRef $recursiveRef extends disallow divisibleBy"
)
WITHOUT_EFFECT: dict[str, Json] = {
    "uniqueItems": False,
    "unevaluatedItems": True,
    "dependencies": {},
}
"""Unsupported words that constrain nothing when they have this value."""

BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
LENGTHS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
KINDS = ("null", "boolean", "integer", "number", "string", "array", "object")
OTHER_NAMES = {
    "null": "none nil void",
    "boolean": "bool",
    "integer": "int long",
    "number": "float double decimal",
    "string": "str text",
    "array": "list tuple",
    "object": "dict map",
}
"""Names of types in other languages, which authors of tools write; in any case."""
_KINDS_BY_NAME = {name: kind for kind in KINDS for name in (kind, *OTHER_NAMES[kind].split())}
KIND_OF = {
    **dict.fromkeys(("properties", "additionalProperties", "patternProperties", "required"), "object"),
    **dict.fromkeys(("minProperties", "maxProperties"), "object"),
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems"), "array"),
    **dict.fromkeys(("pattern", "minLength", "maxLength"), "string"),
    **dict.fromkeys((*BOUNDS, "multipleOf"), "number"),
}  # what a schema without `type` is about, if it has one of these

_LEAP = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29"
_DATE = (
    "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    f"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP})"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
PATTERN_FORMATS = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
    "json-pointer": "^(?:/(?:[^/~]|~[01])*)*$",
    "byte": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    **{
        f"uuid{version}": f"^[0-9a-fA-F]{{8}}-[0-9a-fA-F]{{4}}-{version}[0-9a-fA-F]{{3}}-[89abAB][0-9a-fA-F]{{3}}"
        "-[0-9a-fA-F]{12}$"
        for version in range(1, 9)
    },
}
"""RFC 3339 (the engine's own allows 29 February in every year), RFC 6901, base64 (OpenAPI), RFC 9562 (pydantic)."""

FORMATS = frozenset({"duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"})  # the engine's own

INT_FORMATS = {
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-LARGEST_NUMBER, LARGEST_NUMBER),
    "uint64": (0, LARGEST_NUMBER),
}
# Formats of OpenAPI and pydantic that say nothing about how a value is written.
FREE_FORMATS = frozenset({"password", "binary", "float", "double", "path", "file-path", "directory-path"})


def pattern(checker: Checker, place: Place, word: str, value: Json) -> str | None:
    """Return a regular expression for the engine, None where it is left out."""
    if not isinstance(value, str):
        checker.wrong(place, f"`{word}` is not text")
    try:
        return to_rust(value)
    except PatternError as error:
        checker.refuse(word, place, f"cannot be enforced: {error}")
        return None


def kind_named(name: Json) -> Json:
    """Return the type that a name means, the name itself if that is none."""
    return _KINDS_BY_NAME.get(name.lower(), name) if isinstance(name, str) else name


def is_never(negated: Json) -> bool:
    """Return whether nothing meets a schema with such a `not`: everything meets what is negated."""
    return negated is True or (isinstance(negated, dict) and negated.keys() <= ANNOTATIONS)


def named_properties(words: Mapping[str, Json], schema: Json) -> dict[str, Json] | None:
    """Return words for an object whose names are as `propertyNames` says, and whose values are of a schema.

    None if they cannot be said otherwise: what is taken is one of a list of names, a pattern, or a length.
    """
    listed = [words["const"]] if "const" in words else words.get("enum")
    if words.keys() in ({"const"}, {"enum"}) and isinstance(listed, list):
        return {"properties": {name: schema for name in listed if isinstance(name, str)}}
    if words.keys() == {"pattern"}:
        return {"patternProperties": {words["pattern"]: schema}}
    if words.keys() <= {"minLength", "maxLength"}:
        return {"patternProperties": {f"^[^]{{{words.get('minLength', 0)},{words.get('maxLength', '')}}}$": schema}}
    return None


def _type(checker: Checker, node: Node, word: str, value: Json) -> None:
    kinds = value if isinstance(value, list) else [value]
    if checker.lenient and (meant := [kind_named(kind) for kind in kinds]) != kinds:
        if all(kind in KINDS for kind in meant):
            checker.note(f"`type` at {node.place.pointer} is {_short(value)}; it is read as {', '.join(meant)}.")
        kinds = meant
    if not kinds or not all(isinstance(kind, str) and kind in KINDS for kind in kinds):
        checker.wrong(node.place, f"`type` is {_short(value)}, not of {', '.join(KINDS)},")
    if node.written.get("nullable") is True and not {"enum", "const"} & node.written.keys():  # OpenAPI 3.0
        kinds = [*kinds, "null"]
    node.made[word] = kinds[0] if len(kinds) == 1 else list(dict.fromkeys(kinds))


def bound_integers(made: dict[str, Json]) -> None:
    """Give integers bounds where they have none: without an end a small model may write digits for ever."""
    kinds = made.get("type", ())
    if "integer" not in kinds or "number" in kinds or {"enum", "const"} & made.keys():
        return
    if not {"minimum", "exclusiveMinimum"} & made.keys():
        made["minimum"] = -LARGEST_NUMBER
    if not {"maximum", "exclusiveMaximum"} & made.keys():
        made["maximum"] = LARGEST_NUMBER


def _constant(checker: Checker, node: Node, word: str, value: Json) -> None:
    values = [value] if word == "const" else value
    if not isinstance(values, list) or not values:
        checker.wrong(node.place, "`enum` is not a list, or an empty one,")
    if all([_is_exact(checker, node.place, word, item) for item in values]):  # noqa: C419 - a note for each
        node.made[word] = value


def _is_exact(checker: Checker, place: Place, word: str, value: Json, depth: int = 0) -> bool:
    """Return whether the engine can hold a constant."""
    if depth > MOST_LEVELS:
        checker.wrong(place, f"a value of `{word}` is deeper than {MOST_LEVELS} levels")
    if isinstance(value, (dict, list)):
        inner = value.values() if isinstance(value, dict) else value
        return all([_is_exact(checker, place, word, item, depth + 1) for item in inner])  # noqa: C419 - a note for each
    return value is None or isinstance(value, (str, bool)) or _is_number(checker, place, word, value)


def _is_number(checker: Checker, place: Place, word: str, value: Json) -> bool:
    """Return whether 64 bits of floating point, in which the engine computes, hold the number exactly."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:  # noqa: PLR0124 - NaN
        checker.wrong(place, f"`{word}` is {_short(value)}, not a number,")
    if abs(value) <= LARGEST_NUMBER and float(value) == value:
        return True
    checker.refuse(f"{word}: {_short(value)}", place, "is too large, or has too many digits, to be enforced")
    return False


def _bound(checker: Checker, node: Node, word: str, value: Json) -> None:
    if isinstance(value, bool) and word.startswith("exclusive"):  # draft 4: about the other word
        plain = word.removeprefix("exclusive").lower()
        if value and plain in node.written:
            _bound(checker, node, word, node.written[plain])
    elif _is_number(checker, node.place, word, value):
        node.made[word] = value


def _multiple(checker: Checker, node: Node, word: str, value: Json) -> None:
    if not _is_number(checker, node.place, word, value):
        return
    if value <= 0:
        checker.wrong(node.place, "`multipleOf` is not above 0")
    scaled, places = float(value), 0
    while not scaled.is_integer():
        scaled, places = scaled * 10, places + 1
    # The engine finds digits so, too: times ten until whole.
    is_exact = scaled < _UINT32 and Decimal(str(value)).scaleb(places) == int(scaled)
    if is_exact:
        checker.multiples.add((int(scaled), places))
    finest = max((places for _, places in checker.multiples), default=0)
    # It multiplies those that apply together; in 32 bits.
    product = math.prod(digits * 10 ** (finest - places) for digits, places in checker.multiples)
    if not is_exact or product >= _UINT32:
        checker.refuse(f"{word}: {_short(value)}", node.place, "has too many digits to be enforced")
    else:
        node.made[word] = value


def _length(checker: Checker, node: Node, word: str, value: Json) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        checker.wrong(node.place, f"`{word}` is {_short(value)}, not a whole number from 0 up,")
    if value > MOST_COUNTED and word.startswith("min"):
        checker.wrong(node.place, f"`{word}` is above {MOST_COUNTED:,}")
    required = node.written.get("required")
    if word == "minProperties" and value > 1 + (len(required) if isinstance(required, list) else 0):
        # Names that are not listed may be written twice, and would be counted twice.
        checker.refuse(word, node.place, "exceeds the number of `required` by more than one, which cannot be enforced")
        return
    node.made[word] = min(value, MOST_COUNTED)


def _pattern(checker: Checker, node: Node, word: str, value: Json) -> None:
    if (rust := pattern(checker, node.place, word, value)) is not None:
        node.made[word] = rust


def _format(checker: Checker, node: Node, word: str, value: Json) -> None:
    kinds = node.written.get("type", "string")
    if not isinstance(value, str):
        checker.wrong(node.place, "`format` is not text")
    if value in PATTERN_FORMATS:
        node.also({"pattern": PATTERN_FORMATS[value]})
    elif value in INT_FORMATS:
        least, most = INT_FORMATS[value]
        node.also({"minimum": least, "maximum": most})
    elif value in FORMATS:
        node.made[word] = value
    elif value not in FREE_FORMATS and "string" in kinds:
        checker.refuse(f"{word}: {value[:40]}", node.place)


def _required(checker: Checker, node: Node, word: str, value: Json) -> None:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        checker.wrong(node.place, f"`{word}` is not a list of names")
    node.made[word] = list(dict.fromkeys(value))


def _short(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}…"  # noqa: PLR2004 - characters, for a message


READERS: Mapping[str, Callable[[Checker, Node, str, Json], None]] = {
    "type": _type,
    "enum": _constant,
    "const": _constant,
    **dict.fromkeys(BOUNDS, _bound),
    "multipleOf": _multiple,
    **dict.fromkeys(LENGTHS, _length),
    "pattern": _pattern,
    "format": _format,
    "required": _required,
}
