"""Random schemas, with jsonschema as the judge: all that can be written conforms, and no step leads where none follows."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import pytest
from grammar_walk import grammar_of, walk

from hermes_cli.errors import UsageError
from hermes_cli.prompting.structured_output import json_schema

Validator = import_module("jsonschema").Draft202012Validator  # it has no types

Json = Any

NAMES = ["a", "b", "ab", "title", "x1", "score", "c d", "é"]
NAME_PATTERNS = ["^a", "^score$", "^(a|b)$", "b", "^x[0-9]$", ".*", "^[a-c]{1,2}$", "^$"]
PATTERNS = ["^[a-f]{2,4}$", "^(yes|no)$", "[0-9]{3}", r"^v\d+$", "^a*$"]
FORMATS = ["date", "time", "uuid", "ipv4", "email", "uri", "date-time", "byte"]
PROPERTY_NAMES: list[Json] = [
    {"pattern": "^a"},
    {"enum": ["a", "é"]},
    {"maxLength": 3},
    {"type": "string"},
    {"minLength": 2},
]
CONSTANTS: list[Json] = [None, True, 3, -2.25, "", "yes", [1, []], {"a": None}]
SIMPLE: list[Json] = [{"type": "boolean"}, {"type": "null"}, {"type": ["string", "null"]}, True, {}, False, {"not": {}}]


class Generator:
    """Schemas of all kinds, the same for a seed each time."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def document(self) -> Json:
        root = self.schema(0)
        if not isinstance(root, dict):
            root = {"type": "array", "items": root}
        return {**root, "$defs": {"D0": self.schema(2), "D1": self._object(2)}}

    def schema(self, depth: int) -> Json:
        kinds: Sequence[Callable[[int], Json]] = (
            lambda _: self._number(),
            lambda _: self._string(),
            lambda _: self._pick(SIMPLE),
            lambda _: {"enum": [self._pick(CONSTANTS) for _ in range(self._count(1, 3))]},
            lambda _: {"const": self._pick(CONSTANTS)},
            lambda _: {"$ref": self._pick(["#/$defs/D0", "#/$defs/D1"])},
            self._array,
            self._object,
            self._object,
            self._composed,
        )
        return self._pick(kinds[: 6 if depth > 3 else 10])(depth)

    def _pick(self, several: Sequence[Any]) -> Any:  # noqa: ANN401 - one of them
        return self._random.choice(several)

    def _count(self, least: int, most: int) -> int:
        return self._random.randint(least, most)

    def _some(self, **words: tuple[float, Callable[[], Json]]) -> dict[str, Json]:
        """Words, each with its chance."""
        return {word: make() for word, (chance, make) in words.items() if self._random.random() < chance}

    def _number(self) -> Json:
        bound = (0.25, lambda: self._pick([self._count(-20, 20), self._count(-80, 80) / 4]))
        bounds = self._some(minimum=bound, maximum=bound, exclusiveMinimum=bound, exclusiveMaximum=bound)
        multiple = self._some(multipleOf=(0.15, lambda: self._pick([1, 2, 5, 0.5, 0.25, 10])))
        return {"type": self._pick(["integer", "number"]), **bounds, **multiple}

    def _string(self) -> Json:
        return {"type": "string"} | self._some(
            minLength=(0.3, lambda: self._count(0, 3)),
            maxLength=(0.3, lambda: self._count(0, 5)),
            pattern=(0.25, lambda: self._pick(PATTERNS)),
            format=(0.15, lambda: self._pick(FORMATS)),
        )

    def _array(self, depth: int) -> Json:
        return {"type": "array"} | self._some(
            items=(0.7, lambda: self.schema(depth + 1)),
            prefixItems=(0.25, lambda: [self.schema(depth + 1) for _ in range(self._count(1, 3))]),
            minItems=(0.3, lambda: self._count(0, 2)),
            maxItems=(0.3, lambda: self._count(0, 3)),
        )

    def _object(self, depth: int) -> Json:
        named = self._random.sample(NAMES, self._count(0, 3))
        return {"type": "object"} | self._some(
            properties=(0.8, lambda: {name: self.schema(depth + 1) for name in named}),
            required=(0.5, lambda: [*named[: self._count(0, 3)], *([self._pick(NAMES)] if depth % 3 == 2 else [])]),
            additionalProperties=(0.3, lambda: self._pick([True, False, self.schema(depth + 1)])),
            patternProperties=(0.2, lambda: {self._pick(NAME_PATTERNS): self.schema(depth + 1)}),
            minProperties=(0.1, lambda: self._count(0, 2)),
            maxProperties=(0.1, lambda: self._count(0, 3)),
            propertyNames=(0.08, lambda: self._pick(PROPERTY_NAMES)),
            unevaluatedProperties=(0.05, lambda: self._pick([True, False])),
            dependentRequired=(0.05, lambda: {"a": ["b"]}),
        )

    def _composed(self, depth: int) -> Json:
        parts = [self.schema(depth + 1) for _ in range(self._count(1, 3))]
        if self._count(0, 3) == 0:
            parts = [{"required": [name]} for name in self._random.sample(NAMES, 2)]
        beside = self._pick([{}, {}, self._object(depth + 1), self._string()])
        return {**beside, self._pick(["anyOf", "oneOf", "allOf"]): parts}


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 200, 50))
def test_what_is_written_conforms_and_every_walk_can_end(first: int) -> None:
    walks = ended = exact = 0
    for seed in range(first, first + 50):
        schema, notes = Generator(seed).document(), list[str]()
        try:
            grammar = grammar_of(json_schema(schema, notes=notes))
        except UsageError:  # nothing meets it
            continue
        for number in range(3):
            written = walk(grammar, 7 * seed + number, most=150)  # it fails where nothing can follow
            walks += 1
            if written is None:  # lists in lists without end
                continue
            ended += 1
            value = json.loads(written)
            if not notes:
                exact += 1
                assert Validator(schema).is_valid(value), (seed, written, schema)
    assert ended > 0.9 * walks > 100
    assert exact > 0.5 * ended
