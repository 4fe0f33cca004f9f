"""Relations between schemas: targets of `$ref`, definitions without end, and schemas that exclude each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any
from urllib.parse import unquote

Json = Any  # what json.loads returns
Follow = Callable[[Json], Json]  # replaces a schema that is nothing but a reference by what it points to

DEFINITIONS = "#/$defs/"
MOST_COMPARED = 100  # schemas of one `oneOf`; all pairs are looked at
_DEEPEST = 4  # properties in properties


class LostReferenceError(ValueError):
    """A reference that cannot be followed; the message says why."""


def find(document: object, reference: str) -> tuple[str, Any]:
    """Return the JSON pointer and the target of a reference; raise LostReferenceError if it points to nothing here."""
    base, _, fragment = reference.partition("#")
    if base and not (isinstance(document, dict) and document.get("$id") == base):
        raise LostReferenceError("only references within the schema are followed")
    fragment = unquote(fragment)
    if fragment and not fragment.startswith("/"):
        return _anchored(document, fragment)
    target = document
    for step in fragment.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(target, dict) and key in target:
            target = target[key]
        elif isinstance(target, list) and key.isdecimal() and int(key) < len(target):
            target = target[int(key)]
        else:
            raise LostReferenceError("it points to nothing")
    return f"#{fragment}", target


def _anchored(document: object, name: str) -> tuple[str, Any]:
    waiting = [("#", document)]
    while waiting:
        pointer, value = waiting.pop()
        if isinstance(value, dict):
            if name == value.get("$anchor") or f"#{name}" in (value.get("$id"), value.get("id")):
                return pointer, value
            waiting += [(f"{pointer}/{key}", inner) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{pointer}/{index}", inner) for index, inner in enumerate(value)]
    raise LostReferenceError("it points to nothing")


def endless(definitions: dict[str, Any]) -> str | None:
    """Return a definition that no finite value meets, or that is defined by itself alone; None if there is none.

    They come from schema.py: every `$ref` in them names one of them.
    """
    try:
        TopologicalSorter({name: _applied(schema) for name, schema in definitions.items()}).prepare()
    except CycleError as error:
        return str(error.args[1][0])
    without_end = set(definitions)
    left = 0
    while left != len(without_end):
        left = len(without_end)
        for name in reversed(definitions):  # those that are used before those that use them, as a rule
            if name in without_end and _can_end(definitions[name], without_end):
                without_end.remove(name)
    return min(without_end, default=None)


def _applied(schema: Any) -> Iterator[str]:  # noqa: ANN401 - a schema is JSON
    """Yield the definitions that apply to the same value."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].removeprefix(DEFINITIONS)
        for word in ("allOf", "anyOf", "oneOf"):
            for part in schema.get(word, ()):
                yield from _applied(part)


def _can_end(schema: Any, without_end: set[str]) -> bool:  # noqa: ANN401 - a schema is JSON
    """Return whether some finite value may meet a schema if none meets the definitions `without_end`."""
    if not isinstance(schema, dict):
        return schema is not False
    endless_target = schema.get("$ref", "").removeprefix(DEFINITIONS) in without_end
    if endless_target or not all(_can_end(part, without_end) for part in schema.get("allOf", ())):
        return False
    for word in ("anyOf", "oneOf"):
        if word in schema and not any(_can_end(part, without_end) for part in schema[word]):
            return False
    kinds = schema.get("type", ())
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    if not kinds or kinds - {"object", "array"} or "enum" in schema or "const" in schema:
        return True
    if "object" in kinds and _object_can_end(schema, without_end):
        return True
    least, first = schema.get("minItems", 0), schema.get("prefixItems", [])
    wanted = [*first[:least], *([schema.get("items", True)] if least > len(first) else [])]
    return "array" in kinds and all(_can_end(part, without_end) for part in wanted)


def _object_can_end(schema: Mapping[str, Any], without_end: set[str]) -> bool:
    named, required = schema.get("properties", {}), schema.get("required", ())
    others = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties", True)]
    if schema.get("minProperties", 0) > len(required):
        free = [value for name, value in named.items() if name not in required]
        if not any(_can_end(part, without_end) for part in (*free, *others)):
            return False
    return all(
        _can_end(named[name], without_end) if name in named else any(_can_end(part, without_end) for part in others)
        for name in required
    )


def all_apart(schemas: Sequence[Json], follow: Follow) -> bool:
    """Return whether no value meets two of the schemas."""
    if len(schemas) > MOST_COMPARED:
        return False
    return all(_apart(first, second, follow, 0) for at, first in enumerate(schemas) for second in schemas[:at])


def _apart(first: Json, second: Json, follow: Follow, depth: int) -> bool:
    first, second = follow(first), follow(second)
    if first is False or second is False:
        return True
    if not isinstance(first, dict) or not isinstance(second, dict) or depth > _DEEPEST:
        return False
    if (values := _values(first)) and (others := _values(second)):
        return not values & others
    kinds, other_kinds = _kinds(first), _kinds(second)
    if kinds and other_kinds and not kinds & other_kinds:
        return True
    if not kinds == other_kinds == {"object"}:
        return False
    required, other_required = _required(first), _required(second)  # the values of one property exclude each other
    names = [name for name in required if name in other_required]
    return any(_apart(required[name], other_required[name], follow, depth + 1) for name in names)


def _required(schema: dict[str, Json]) -> dict[str, Json]:
    """Return the schemas of the properties that it requires."""
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list):
        return {}
    return {name: part for name, part in properties.items() if name in required}


def _kinds(schema: dict[str, Json]) -> set[str]:
    """Return the types that it says its values have, integers among numbers; empty if it says none."""
    kinds = schema.get("type", [])
    kinds = [*(kinds if isinstance(kinds, list) else [kinds]), *(["null"] if schema.get("nullable") is True else [])]
    return {"number" if kind == "integer" else kind for kind in kinds if isinstance(kind, str)}


def _values(schema: dict[str, Json]) -> set[str]:
    """Return the values that it lists, in one spelling; empty if it lists none."""
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    return {json.dumps(_one_spelling(value), sort_keys=True) for value in listed} if isinstance(listed, list) else set()


def _one_spelling(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _one_spelling(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_one_spelling(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
