"""Schemas of `oneOf`: whether they exclude each other, so that any one of them is exactly one.

No grammar can count how many schemas a value meets. Where no value meets two of them, `anyOf` says the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from hermes_cli.prompting.schema_keywords import IN_PLACE, KIND_OF
from hermes_cli.prompting.schema_relations import Follow, Json, KnownNames, Names, all_names, own_names, union

MOST_COMPARED = 100  # schemas of one `oneOf`; all pairs are looked at
_MOST_STEPS = 20_000  # of comparing pairs
_DEEPEST = 4  # properties in properties
_SAYS_NOTHING = frozenset({"type", "title", "description", "$comment"})  # beside `required` in an object


def exclusive(
    schemas: Sequence[Json],  # as written; what is wrong in them is found by others
    follow: Follow,  # replaces references
    beside: Names,  # names of properties that other schemas for the same value have
) -> list[Json] | None:
    """Return schemas that exclude each other and mean as `anyOf` what these mean as `oneOf`; None if there are none."""
    if len(schemas) > MOST_COMPARED:
        return None
    comparison = _Comparison(follow, beside)
    if all(comparison.apart(first, second) for at, first in enumerate(schemas) for second in schemas[:at]):
        return [*schemas]
    return _by_required([follow(schema) for schema in schemas])


def _by_required(schemas: Sequence[Json]) -> list[Json] | None:
    """Tell objects apart by the one property that each of them requires, and no other one may have."""
    names: list[str] = []
    for schema in schemas:
        required = schema.get("required") if isinstance(schema, dict) else None
        if not isinstance(required, list) or len(required) != 1 or not isinstance(required[0], str):
            return None
        if schema.keys() - _SAYS_NOTHING != {"required"} or schema.get("type") not in (None, "object"):
            return None
        names += required
    if len(set(names)) < len(names):
        return None
    return [
        {**schema, "type": "object", "properties": {other: False for other in names if other != name}}
        for schema, name in zip(schemas, names, strict=True)
    ]


class _Comparison:
    """Compares pairs of schemas, with a limit on the work."""

    def __init__(self, follow: Follow, beside: Names) -> None:
        self._follow, self._beside = follow, beside
        self._names: KnownNames = {}
        self._left = _MOST_STEPS

    def apart(self, first: Json, second: Json, depth: int = 0) -> bool:
        """Return whether no value meets both, as far as that can be seen."""
        first, second = self._follow(first), self._follow(second)
        self._left -= 1
        if first is False or second is False:
            return True
        if not isinstance(first, dict) or not isinstance(second, dict) or depth > _DEEPEST or self._left < 0:
            return False
        return (
            self._itself_apart(first, second, depth)
            or self._parts_apart(first, second, depth)
            or self._parts_apart(second, first, depth)
        )

    def _itself_apart(self, first: Mapping[str, Json], second: Mapping[str, Json], depth: int) -> bool:
        if (values := _values(first)) and (others := _values(second)):
            return not values & others
        kinds, other_kinds = _kinds(first), _kinds(second)
        if kinds and other_kinds and not kinds & other_kinds:
            return _says_type(first) and _says_type(second)
        if kinds == other_kinds == {"number"}:
            return _ends_before(first, second) or _ends_before(second, first)
        if not kinds == other_kinds == {"object"}:
            return False
        required, other_required = _required(first), _required(second)  # the values of one property exclude each other
        names = [name for name in required if name in other_required]
        return (
            any(self.apart(required[name], other_required[name], depth + 1) for name in names)
            or _forbids(first, second, own_names(first) if first.get("additionalProperties") is False else None)
            or _forbids(second, first, own_names(second) if second.get("additionalProperties") is False else None)
            or (self._lacks(first, second) and self._lacks(second, first))
        )

    def _parts_apart(self, whole: Mapping[str, Json], other: Json, depth: int) -> bool:
        """Return whether what `allOf`, `anyOf`, `oneOf` or `$ref` says keeps a schema apart from another."""
        every = [*(whole["allOf"] if isinstance(whole.get("allOf"), list) else ())]
        if "$ref" in whole and len(whole) > 1:
            every.append({"$ref": whole["$ref"]})
        some = [whole[word] for word in ("anyOf", "oneOf") if isinstance(whole.get(word), list)]
        return any(self.apart(part, other, depth + 1) for part in every) or any(
            parts and all(self.apart(part, other, depth + 1) for part in parts) for parts in some
        )

    def _lacks(self, written: Mapping[str, Json], other: Mapping[str, Json]) -> bool:
        """Return whether objects, closed as schema.py writes them, lack what another schema requires."""
        is_closed = isinstance(written.get("properties"), dict)
        names = union((self._beside, all_names(written, self._follow, self._names))) if is_closed else None
        return _forbids(written, other, names)


def _forbids(closed: Mapping[str, Json], other: Mapping[str, Json], names: Names) -> bool:
    """Return whether an object with no other properties than these lacks one that the other requires."""
    required = other.get("required")
    if names is None or not isinstance(required, list) or closed.get("patternProperties"):
        return False
    return any(isinstance(name, str) and name not in names for name in required)


def _required(schema: Mapping[str, Json]) -> dict[str, Json]:
    """Return the schemas of the properties that it requires."""
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list):
        return {}
    return {name: part for name, part in properties.items() if name in required}


def _says_type(schema: Mapping[str, Json]) -> bool:
    """Return whether other types than its own do not meet a schema: words such as `required` say nothing of them."""
    return "type" in schema or bool(_listed(schema))


def _kinds(schema: Mapping[str, Json]) -> set[str]:
    """Return the types that its values have, as far as it says them, integers among numbers; empty if it does not."""
    kinds = schema.get("type")
    if kinds is None:
        if listed := _listed(schema):
            return {_kind(value) for value in listed}
        about = {KIND_OF[word] for word in schema if word in KIND_OF}  # schema.py makes it their type
        return about if len(about) == 1 and not schema.keys() & set(IN_PLACE) else set()
    kinds = [*(kinds if isinstance(kinds, list) else [kinds]), *(["null"] if schema.get("nullable") is True else [])]
    return {"number" if kind == "integer" else kind for kind in kinds if isinstance(kind, str)}


def _kind(value: Json) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "")


def _ends_before(first: Mapping[str, Json], second: Mapping[str, Json]) -> bool:
    """Return whether all numbers of the first are below those of the second."""
    most = min((_number(first, "maximum", math.inf), 0), (_number(first, "exclusiveMaximum", math.inf), -1))
    least = max((_number(second, "minimum", -math.inf), 0), (_number(second, "exclusiveMinimum", -math.inf), 1))
    return most < least


def _number(schema: Mapping[str, Json], word: str, otherwise: float) -> float:
    value = schema.get(word)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else otherwise


def _listed(schema: Mapping[str, Json]) -> list[Json]:
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    return listed if isinstance(listed, list) else []


def _values(schema: Mapping[str, Json]) -> set[str]:
    """Return the values that it lists, in one spelling; empty if it lists none."""
    return {json.dumps(_one_spelling(value), sort_keys=True) for value in _listed(schema)}


def _one_spelling(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _one_spelling(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_one_spelling(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
