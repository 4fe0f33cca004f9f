"""Relations between schemas: targets of `$ref`, names of properties for the same value, and definitions without end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any
from urllib.parse import unquote

Json = Any  # what json.loads returns
Follow = Callable[[Json], Json]  # replaces a schema that is nothing but a reference by what it points to
Names = frozenset[str] | None  # of properties; None is any

DEFINITIONS = "#/$defs/"
NO_NAMES: frozenset[str] = frozenset()


class LostReferenceError(ValueError):
    """A reference that cannot be followed; the message says why."""


class References:
    """The targets of the references in a document; its anchors are looked for once."""

    def __init__(self, document: Json) -> None:
        self._document = document

    def find(self, reference: str) -> tuple[str, Json]:
        """Return the JSON pointer and the target of a reference; LostReferenceError if it points to nothing here."""
        document = self._document
        base, _, fragment = reference.partition("#")
        if base and not (isinstance(document, dict) and document.get("$id") == base):
            raise LostReferenceError("only references within the schema are followed")
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            if fragment not in self._anchors:
                raise LostReferenceError("it points to nothing")
            return self._anchors[fragment]
        target = document
        for step in fragment.split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and key in target:
                target = target[key]
            elif isinstance(target, list) and key.isdecimal() and len(key) < 10 and int(key) < len(target):  # noqa: PLR2004 - digits
                target = target[int(key)]
            else:
                raise LostReferenceError("it points to nothing")
        return f"#{fragment}", target

    @cached_property
    def _anchors(self) -> dict[str, tuple[str, Json]]:
        anchors: dict[str, tuple[str, Json]] = {}
        waiting: list[tuple[str, Json]] = [("#", self._document)]
        while waiting:
            pointer, value = waiting.pop()
            if isinstance(value, dict):
                names = [value.get("$anchor"), *(str(value.get(word))[1:] for word in ("$id", "id"))]
                anchors |= {name: (pointer, value) for name in names if name and isinstance(name, str)}
                inner: list[tuple[Any, Json]] = [*value.items()]
            else:
                inner = [*enumerate(value)]
            waiting += [(f"{pointer}/{key}", part) for key, part in inner if isinstance(part, (dict, list))]
        return anchors


def parts_in_place(schema: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    """Yield the words and schemas in a schema that may apply to the same value."""
    for word in ("allOf", "anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            yield from ((word, part) for part in schema[word])
    if "$ref" in schema:
        yield "$ref", {"$ref": schema["$ref"]}
    for word in ("if", "then", "else"):
        yield word, schema.get(word)
    if isinstance(schema.get("dependentSchemas"), dict):
        yield from (("dependentSchemas", part) for part in schema["dependentSchemas"].values())


def own_names(schema: Mapping[str, Json], *, declared: bool = False) -> Names:
    """Return the names of properties that a schema itself speaks of; None if it is open to any.

    `declared` leaves out those that it only requires.
    """
    if schema.get("patternProperties") or any(
        schema.get(word) is True or isinstance(schema.get(word), dict)
        for word in ("additionalProperties", "unevaluatedProperties")
    ):
        return None
    properties, required = schema.get("properties"), schema.get("required")
    names = [*properties] if isinstance(properties, dict) else []
    if isinstance(required, list) and not declared:
        names += [name for name in required if isinstance(name, str)]
    return frozenset(names)


KnownNames = dict[int, tuple[Json, Names]]  # by id() of the schema, which must stay alive


def all_names(schema: Json, follow: Follow, known: KnownNames, *, declared: bool = False) -> Names:
    """Return the names of a schema and of all that apply to the same value; `known` is filled with them."""
    schema = follow(schema)
    if not isinstance(schema, dict):
        return NO_NAMES
    if id(schema) not in known:
        known[id(schema)] = schema, NO_NAMES  # a reference that leads back here adds nothing
        parts = (all_names(part, follow, known, declared=declared) for _, part in parts_in_place(schema))
        known[id(schema)] = schema, union((own_names(schema, declared=declared), *parts))
    return known[id(schema)][1]


def union(several: tuple[Names, ...]) -> Names:
    """Return all names; None if any is open."""
    names: set[str] = set()
    for more in several:
        if more is None:
            return None
        names |= more
    return frozenset(names)


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
