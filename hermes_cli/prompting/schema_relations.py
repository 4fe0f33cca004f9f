"""Relations between schemas: targets of `$ref`, definitions without end, and schemas that exclude each other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Json = Any
    Follow = Callable[[Json], Json]
    """Replaces a schema that is nothing but a reference by what it points to."""

DEFINITIONS = "#/$defs/"


class LostReferenceError(ValueError):
    """A reference that cannot be followed; the message says why."""


def find(document: object, reference: str) -> tuple[str, Any]:
    """Return the JSON pointer and the target of a reference in the document.

    Raises:
        LostReferenceError: it leaves the document or points to nothing.
    """
    base, _, fragment = reference.partition("#")
    if base and not (isinstance(document, dict) and document.get("$id") == base):
        raise LostReferenceError("only references within the schema are followed")
    fragment = unquote(fragment)
    if fragment and not fragment.startswith("/"):
        return _anchor(document, fragment)
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


def _anchor(document: object, name: str) -> tuple[str, Any]:
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
    """A definition that no finite value meets, or that is defined by itself alone; None if there is none.

    They come from schema.py: every `$ref` in them names one of them.
    """
    if (circle := _circle(definitions)) is not None:
        return circle
    without_end = set(definitions)
    left = 0
    while left != len(without_end):
        left = len(without_end)
        for name in reversed(definitions):  # those that are used before those that use them, as a rule
            if name in without_end and _can_end(definitions[name], without_end):
                without_end.remove(name)
    return min(without_end, default=None)


def _circle(definitions: Mapping[str, Any]) -> str | None:
    """A definition that a value meets if it meets the definition: a way back to it that does not go into the value."""
    done: set[str] = set()
    for start in definitions:
        way: dict[str, Iterator[str]] = {start: _here(definitions[start])} if start not in done else {}
        while way:
            name = next(reversed(way))
            following = next(way[name], None)
            if following is None:
                done.add(name)
                del way[name]
            elif following in way:
                return following
            elif following not in done:
                way[following] = _here(definitions[following])
    return None


def _here(schema: Any) -> Iterator[str]:  # noqa: ANN401 - a schema is JSON
    """The definitions that apply to the same value."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].removeprefix(DEFINITIONS)
        for word in ("allOf", "anyOf", "oneOf"):
            for part in schema.get(word, ()):
                yield from _here(part)


def _can_end(schema: Any, without_end: set[str]) -> bool:  # noqa: ANN401 - a schema is JSON
    """Return whether some finite value may meet a schema if none meets the definitions `without_end`."""
    if not isinstance(schema, dict):
        return schema is not False
    if "$ref" in schema and schema["$ref"].removeprefix(DEFINITIONS) in without_end:
        return False
    if not all(_can_end(part, without_end) for part in schema.get("allOf", ())):
        return False
    for word in ("anyOf", "oneOf"):
        if word in schema and not any(_can_end(part, without_end) for part in schema[word]):
            return False
    kinds = schema.get("type", ())
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    if not kinds or kinds - {"object", "array"} or "enum" in schema or "const" in schema:
        return True
    return ("object" in kinds and _object_can_end(schema, without_end)) or (
        "array" in kinds and _array_can_end(schema, without_end)
    )


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


def _array_can_end(schema: Mapping[str, Any], without_end: set[str]) -> bool:
    least, first = schema.get("minItems", 0), schema.get("prefixItems", [])
    wanted = [*first[:least], *([schema.get("items", True)] if least > len(first) else [])]
    return all(_can_end(part, without_end) for part in wanted)


MOST_COMPARED = 100  # schemas of one `oneOf`; all pairs are looked at
_DEEPEST = 4  # properties in properties


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
    return kinds == other_kinds == {"object"} and _members_apart(first, second, follow, depth)


def _members_apart(first: dict[str, Json], second: dict[str, Json], follow: Follow, depth: int) -> bool:
    """Return whether both require a property whose values exclude each other."""
    names = [name for name in _required(first) if name in _required(second)]
    properties, others = first.get("properties"), second.get("properties")
    if not isinstance(properties, dict) or not isinstance(others, dict):
        return False
    return any(
        name in properties and name in others and _apart(properties[name], others[name], follow, depth + 1)
        for name in names
    )


def _required(schema: dict[str, Json]) -> list[Json]:
    required = schema.get("required")
    return required if isinstance(required, list) else []


def _kinds(schema: dict[str, Json]) -> set[str]:
    """The types that it says its values have, integers among numbers; empty if it says none."""
    kinds = schema.get("type", [])
    kinds_found = {kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if isinstance(kind, str)}
    if schema.get("nullable") is True:
        kinds_found.add("null")
    return {"number" if kind == "integer" else kind for kind in kinds_found}


def _values(schema: dict[str, Json]) -> set[str]:
    """The values that it lists, in one spelling; empty if it lists none."""
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    return {json.dumps(_one_spelling(value), sort_keys=True) for value in listed} if isinstance(listed, list) else set()


def _one_spelling(value: Json) -> Json:
    """The same for equal values: 1 is 1.0."""
    if isinstance(value, dict):
        return {key: _one_spelling(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_one_spelling(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
