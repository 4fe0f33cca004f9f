"""JSON schemas as people write them, checked and rewritten so that a grammar enforces every word of them.

The grammar engine (llguidance) enforces most of JSON Schema 2020-12, passes over what it does not know, and is lax in a
few places; docs/constraints.md lists all of it. Here every word is looked at: kept, said in words that are enforced,
dropped if it only describes, refused if it constrains and nothing would enforce it. References become one flat list of
definitions, and sizes are limited.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

from hermes_cli.errors import UsageError
from hermes_cli.prompting import schema_keywords as keywords
from hermes_cli.prompting.schema_keywords import pattern
from hermes_cli.prompting.schema_relations import DEFINITIONS, Json, LostReferenceError, all_apart, endless, find

_HINT = "leave it out and say it in the description, which the model reads; docs/constraints.md lists what is enforced."


class Checker:
    """Rewrites one document."""

    def __init__(
        self, document: Json, about: str = "the schema", *, closed: bool = False, notes: list[str] | None = None
    ) -> None:
        """Take a schema; it is not changed.

        Args:
            document: as from `json.loads`.
            about: what it is the schema of, for messages.
            closed: objects that name their properties have no others unless `additionalProperties` says so, and a
                schema without `type` is about what its words are about: for tools, whose authors mean that.
            notes: gets a line for each word that cannot be enforced and is left out; without it they are refused.
        """
        self.multiples: set[tuple[int, int]] = set()
        self.pointers: dict[int, str] = {}  # of what was made, by its id()
        self._document, self._about, self._closed, self._notes = document, about, closed, notes
        self._schemas = 0
        self._names: dict[tuple[str, bool, bool], str] = {}
        self._waiting: list[tuple[str, Json, Place]] = []

    def result(self) -> dict[str, Json]:
        """Return the schema as the grammar engine is to read it.

        Raise UsageError if it is no schema, too large, without end, or has a word that cannot be enforced.
        """
        made = self._schema(self._document, Place())
        definitions: dict[str, Json] = {}
        while self._waiting:
            name, written, place = self._waiting.pop()
            definitions[name] = self._schema(written, place)
        if without_end := endless(definitions):
            pointer = next(pointer for (pointer, *_), name in self._names.items() if name == without_end)
            self._fail(f"no finite value meets what `$ref` points to at {pointer}", "let it end somewhere.")
        if made is False:
            self._fail("it is `false`, which nothing meets", "leave it out.")
        made = {} if made is True else made
        if definitions:
            made["$defs"] = definitions
        try:
            size = len(json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode())
        except UnicodeEncodeError:
            self._fail("it has half a character (a lone surrogate)", "write whole characters.")
        if size > keywords.MOST_BYTES:
            text = f"it has {size:,} bytes without its descriptions; at most {keywords.MOST_BYTES:,} are taken"
            self._fail(text, "make it smaller.")
        return made

    def wrong(self, place: Place, text: str) -> NoReturn:
        """Refuse a schema that is none."""
        self._fail(f"{text} at {place.pointer}", "JSON Schema 2020-12 says how to write it.")

    def refuse(self, word: str, place: Place, why: str = "cannot be enforced") -> None:
        """Leave a word out with a note if there are notes, else refuse the schema."""
        text = f"`{word}` at {place.pointer} {why}"
        if self._notes is None:
            self._fail(text, _HINT)
        self._notes.append(f"{self._about}: {text}; it is left out.")

    def _fail(self, text: str, hint: str) -> NoReturn:
        raise UsageError(f"{self._about}: {text}.", hint=hint)

    def _schema(self, written: Json, place: Place) -> Json:
        self._schemas += 1
        if self._schemas > keywords.MOST_SCHEMAS:
            self._fail(f"more than {keywords.MOST_SCHEMAS:,} schemas are in it", "make it smaller.")
        if place.level > keywords.MOST_LEVELS:
            self.wrong(place, f"more than {keywords.MOST_LEVELS} schemas stand in one another")
        if isinstance(written, bool):
            return written
        if not isinstance(written, dict):
            self.wrong(place, "something that is no schema stands")
        node = Node(written, place, {})
        self.pointers[id(node.made)] = place.pointer
        for word, value in written.items():
            self._word(node, word, value)
        if self._closed and not place.exact:
            node.close()
        return node.made

    def _word(self, node: Node, word: str, value: Json) -> None:
        if word in _READERS:
            _READERS[word](self, node, word, value)
        elif word == "$id" and node.place.pointer != "#":
            self.refuse(word, node.place, "inside of a schema is not followed")
        elif word in keywords.UNSUPPORTED and value != keywords.WITHOUT_EFFECT.get(word, keywords.UNSUPPORTED):
            self.refuse(word, node.place)
        elif meant := _meant(word):
            self.refuse(word, node.place, f"is no word of JSON Schema (`{meant}` is)")

    def properties(self, node: Node, word: str, value: Json) -> None:
        """Read schemas by name, or by a pattern of names."""
        if not isinstance(value, dict):
            self.wrong(node.place, f"`{word}` is no object")
        if len(value) > keywords.MOST_PROPERTIES:
            self.wrong(node.place, f"there are {len(value):,} properties, more than {keywords.MOST_PROPERTIES:,},")
        made = {}
        for name, schema in value.items():
            place = node.place.below(word, name)
            key = name if word == "properties" else pattern(self, place, word, name)
            part = self._schema(schema, place)
            if key is not None:
                made[key] = part
        node.made[word] = made

    def inner(self, node: Node, word: str, value: Json) -> None:
        """Read one schema."""
        node.made[word] = self._schema(value, node.place.below(word))

    def items(self, node: Node, word: str, value: Json) -> None:
        """Read one schema for all items, or (before 2020-12) a list for the first ones."""
        if isinstance(value, list):
            self.several(node, "prefixItems", value)
            if "additionalItems" in node.written:
                self.inner(node, word, node.written["additionalItems"])
        else:
            self.inner(node, word, value)

    def several(self, node: Node, word: str, value: Json, *, exact: bool = False) -> None:
        """Read a list of schemas."""
        if not isinstance(value, list) or not value:
            self.wrong(node.place, f"`{word}` is no list, or an empty one,")
        shared = word in keywords.IN_PLACE and node.is_crowded
        node.made[word] = [
            self._schema(part, node.place.below(word, index, shared=shared, exact=exact))
            for index, part in enumerate(value)
        ]

    def all_of(self, node: Node, word: str, value: Json) -> None:
        """Read several schemas that all apply, beside those that other words added."""
        before = node.made.pop(word, [])
        self.several(node, word, value)
        node.made[word] = [*before, *node.made[word]]

    def one_of(self, node: Node, word: str, value: Json) -> None:
        """Take any one if no two can be met at once, else the engine is to see whether it can tell.

        The engine gets the latter without anything added: with less that meets them it might tell apart what is not.
        """
        exact = True
        if isinstance(value, list):
            tag = node.written.get("discriminator")
            name = tag.get("propertyName") if isinstance(tag, dict) else None
            # OpenAPI: each of them has that property. (pydantic does not require one that has a default.)
            value = [_with_required(self._followed(part, node.place), name) for part in value]
            exact = not all_apart(value, lambda schema: self._followed(schema, node.place))
        self.several(node, word, value, exact=exact)
        if not exact:
            node.also({"anyOf": node.made.pop(word)})

    def reference(self, node: Node, word: str, value: Json) -> None:
        """Make the target of a `$ref` a definition, which is read later."""
        pointer, target = self._find(value, node.place)
        if pointer is None:
            return
        place = Place(pointer, shared=node.is_crowded, exact=node.place.exact)
        key = pointer, place.shared, place.exact
        if key not in self._names:
            if len(self._names) == keywords.MOST_DEFINITIONS:
                self._fail(f"more than {keywords.MOST_DEFINITIONS:,} definitions are in it", "make it smaller.")
            self._names[key] = f"d{len(self._names)}"
            self._waiting.append((self._names[key], target, place))
        node.made[word] = DEFINITIONS + self._names[key]

    def _find(self, reference: Json, place: Place) -> tuple[str | None, Json]:
        """Return the pointer and the target of a reference; None and True if it cannot be followed."""
        if not isinstance(reference, str):
            self.wrong(place, "`$ref` is no text")
        try:
            return find(self._document, reference)
        except LostReferenceError as error:
            self.refuse(f"$ref: {reference[:80]}", place, f"cannot be followed: {error}")
            return None, True

    def _followed(self, schema: Json, place: Place) -> Json:
        """Return the target of a schema that is nothing but a reference."""
        for _ in range(keywords.MOST_LEVELS):
            if not isinstance(schema, dict) or set(schema) - keywords.ANNOTATIONS != {"$ref"}:
                break
            _, schema = self._find(schema["$ref"], place)
        return schema


_READERS: Mapping[str, Callable[[Checker, Node, str, Json], None]] = {
    "properties": Checker.properties,
    "patternProperties": Checker.properties,
    "additionalProperties": Checker.inner,
    "items": Checker.items,
    "additionalItems": lambda *_: None,  # read together with `items`
    "prefixItems": Checker.several,
    "allOf": Checker.all_of,
    "anyOf": Checker.several,
    "oneOf": Checker.one_of,
    "$ref": Checker.reference,
    **keywords.READERS,
}
_KNOWN = keywords.ANNOTATIONS | keywords.UNSUPPORTED | _READERS.keys() | {"$id"}


def _meant(word: str) -> str | None:
    """Return the word that this one misspells, None where it is just unknown: then it describes (core 6.5)."""
    if word in _KNOWN or word.startswith("x-"):
        return None
    known = {name.lower(): name for name in (*_READERS, *keywords.UNSUPPORTED)}
    near = difflib.get_close_matches(word.lower().replace("_", ""), known, n=1, cutoff=0.85)
    return known[near[0]] if near else None


def _with_required(schema: Json, name: Json) -> Json:
    """Return a schema that requires a property, if it has that one; what is wrong in it is found later."""
    if not isinstance(schema, dict) or not isinstance(schema.get("properties"), dict):
        return schema
    required = schema.get("required", [])
    if not isinstance(name, str) or name not in schema["properties"] or not isinstance(required, list):
        return schema
    return {**schema, "required": [*required, name]}


_OBJECT_WORDS = frozenset({"properties", "patternProperties", "additionalProperties"})


@dataclass(frozen=True)
class Place:
    """Location of a schema."""

    pointer: str = "#"  # the JSON pointer to it
    level: int = 0  # schemas above it
    shared: bool = False  # others apply to the same value
    exact: bool = False  # it is to mean what is written and nothing less

    def below(self, *steps: str | int, shared: bool = False, exact: bool = False) -> Place:
        """Return the place of a schema in this one."""
        names = (str(step).replace("~", "~0").replace("/", "~1") for step in steps)
        return Place("/".join((self.pointer, *names)), self.level + 1, shared, exact or self.exact)


@dataclass
class Node:
    """A schema as written, its location, and the schema that is made of it."""

    written: dict[str, Any]
    place: Place
    made: dict[str, Any]

    @cached_property
    def is_crowded(self) -> bool:
        """Several schemas with properties of their own may apply to the same value."""
        branches = [self.written[word] for word in keywords.IN_PLACE if word in self.written]
        if isinstance(self.written.get("allOf"), list):
            branches += self.written["allOf"][1:]
        return self.place.shared or len(branches) + bool(_OBJECT_WORDS & self.written.keys()) > 1

    def also(self, schema: dict[str, Any]) -> None:
        """Add a schema that the same value must meet."""
        self.made["allOf"] = [*self.made.get("allOf", ()), schema]

    def close(self) -> None:
        """Say what authors of tools leave unsaid: the type, and that there are no other properties."""
        made = self.made
        kinds = {keywords.KIND_OF[word] for word in made if word in keywords.KIND_OF}
        if len(kinds) == 1 and not made.keys() & {"type", "enum", "const", *keywords.IN_PLACE}:
            made["type"] = kinds.pop()
        names = made.keys() & {"properties", "patternProperties"}
        if names and "additionalProperties" not in made and not self.place.shared and not _branches_declare(made):
            made["additionalProperties"] = False


def _branches_declare(schema: dict[str, Any]) -> bool:
    """Return whether schemas for the same value may have properties of their own."""
    if "$ref" in schema:
        return True
    branches = [part for word in ("allOf", "anyOf", "oneOf") for part in schema.get(word, ()) if isinstance(part, dict)]
    return any(_OBJECT_WORDS & part.keys() or _branches_declare(part) for part in branches)
