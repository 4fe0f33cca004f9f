"""JSON schemas as people write them, checked and rewritten so that a grammar enforces every word of them.

The grammar engine (llguidance) enforces most of JSON Schema 2020-12, passes over what it does not know, and is lax in a
few places; docs/constraints.md lists all of it. Here every word is looked at: kept, said in words that are enforced,
dropped if it only describes, refused or noted if it constrains and nothing would enforce it. Null is the same as a word
that is not there. References become one flat list of definitions, and sizes are limited.

Objects that name their properties have no others, unless `additionalProperties` says so: a small model invents some,
and one that takes another order is trapped in a name that it cannot end. Where several schemas apply to the same object
(`allOf` and the like), each of them takes the names of all.
"""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from hermes_cli.errors import UsageError
from hermes_cli.prompting import schema_keywords as keywords
from hermes_cli.prompting.families import without_middle
from hermes_cli.prompting.schema_keywords import pattern
from hermes_cli.prompting.schema_one_of import exclusive
from hermes_cli.prompting.schema_relations import (
    DEFINITIONS,
    NO_NAMES,
    Json,
    KnownNames,
    LostReferenceError,
    Names,
    References,
    all_names,
    endless,
    own_names,
    parts_in_place,
    union,
)

_SECONDS = 1.0  # of processor time for one document
_MOST_NAMES = 5_000  # of properties that schemas for the same value take from each other

_HINT = "leave it out and say it in the description, which the model reads; docs/constraints.md lists what is enforced."


class MalformedError(UsageError):
    """A word of a schema, or a schema in it, is none of JSON Schema."""


class Checker:
    """Rewrites one document."""

    def __init__(
        self,
        document: Json,  # as from `json.loads`
        about: str = "the schema",  # what it is the schema of, for messages
        *,
        # gets a line for each word that cannot be enforced and is left out; without it they are refused
        notes: list[str] | None = None,
        lenient: bool = False,  # words that are malformed are left out with a note, too
    ) -> None:
        """Take a schema; it is not changed."""
        self.multiples: set[tuple[int, int]] = set()
        self.pointers: dict[int, str] = {}  # of what was made, by its id()
        self.with_patterns: list[dict[str, Json]] = []  # objects with properties and patterns of names
        self.lenient = lenient and notes is not None
        self._document, self._about, self._notes = document, about, notes
        self._references = References(document)
        self._property_names: KnownNames = {}
        self._taken_names = 0
        self._until = time.thread_time() + _SECONDS
        self._schemas = 0
        self._names: dict[tuple[str, Names], str] = {}
        self._waiting: list[tuple[str, Json, Place]] = []

    def result(self) -> dict[str, Json]:
        """Return the schema as the grammar engine is to read it.

        Raise UsageError if it is not a schema, too large, without end, or has a word that cannot be enforced.
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
        """Refuse a word, or a schema, that is malformed."""
        hint = "JSON Schema 2020-12 says how to write it."
        raise MalformedError(f"{self._about}: {text} at {without_middle(place.pointer)}.", hint=hint)

    def refuse(self, word: str, place: Place, why: str = "cannot be enforced", instead: str = "it is left out") -> None:
        """Leave a word out with a note if there are notes, else refuse the schema."""
        text = f"`{word}` at {without_middle(place.pointer)} {why}"
        if self._notes is None:
            self._fail(text, _HINT)
        self.note(f"{text}; {instead}.")

    def note(self, text: str) -> None:
        """Tell what is not enforced, or read otherwise."""
        if self._notes is not None and len(self._notes) < keywords.MOST_NOTES:
            self._notes.append(f"{self._about}: {text}")

    def _fail(self, text: str, hint: str) -> NoReturn:
        raise UsageError(f"{self._about}: {text}.", hint=hint)

    def _schema(self, written: Json, place: Place) -> Json:
        self._schemas += 1
        if self._schemas > keywords.MOST_SCHEMAS:
            self._fail(f"more than {keywords.MOST_SCHEMAS:,} schemas are in it", "make it smaller.")
        self._check_time()
        if place.level > keywords.MOST_LEVELS:
            self.wrong(place, f"more than {keywords.MOST_LEVELS} schemas stand in one another")
        if isinstance(written, bool):
            return written
        if not isinstance(written, dict):
            self.wrong(place, "something that is not a schema stands")
        written = {word: value for word, value in written.items() if value is not None or word == "const"}
        if keywords.is_never(written.get("not")):
            return False
        node = Node(written, place, {})
        self.pointers[id(node.made)] = place.pointer
        for word, value in written.items():
            self._word(node, word, value)
        self._close(node)
        keywords.bound_integers(node.made)
        if {"properties", "patternProperties"} <= node.made.keys():
            self.with_patterns.append(node.made)
        return node.made

    def _check_time(self) -> None:
        if time.thread_time() > self._until:
            self._fail("it takes too much time to read", "make it smaller.")

    def _word(self, node: Node, word: str, value: Json) -> None:
        self._check_time()
        if word in _READERS:
            try:
                _READERS[word](self, node, word, value)
            except MalformedError as error:
                self._leave_out(error)
        elif word == "$id" and node.place.pointer != "#":
            self.refuse(word, node.place, "inside of a schema is not followed")
        elif word in keywords.UNSUPPORTED and value != keywords.WITHOUT_EFFECT.get(word, keywords.UNSUPPORTED):
            self.refuse(word, node.place)
        elif meant := _meant(word):
            self.refuse(word, node.place, f"is not a word of JSON Schema (`{meant}` is)")

    def _leave_out(self, error: MalformedError) -> None:
        if not self.lenient:
            raise error
        self.note(f"{error.reason.removeprefix(f'{self._about}: ').rstrip('.')}; it is left out.")

    def _part(self, written: Json, place: Place) -> Json:
        """Return a schema in a schema; one that is none is any value where that is allowed."""
        try:
            return self._schema(written, place)
        except MalformedError as error:
            self._leave_out(error)
            return True

    def properties(self, node: Node, word: str, value: Json) -> None:
        """Read schemas by name, or by a pattern of names."""
        value = {} if value == [] else value  # PHP writes an empty object so
        if not isinstance(value, dict):
            self.wrong(node.place, f"`{word}` is not an object")
        if len(value) > keywords.MOST_PROPERTIES:
            self.wrong(node.place, f"there are {len(value):,} properties, more than {keywords.MOST_PROPERTIES:,},")
        made = {}
        for name, schema in value.items():
            place = node.place.below(word, name)
            key = name if word == "properties" else pattern(self, place, word, name)
            part = self._part(schema, place)
            if key is not None:
                made[key] = part
        node.made[word] = made

    def inner(self, node: Node, word: str, value: Json) -> None:
        """Read one schema."""
        if word == "additionalProperties" and not isinstance(value, (bool, dict)):
            self.wrong(node.place, f"`{word}` is not a schema")  # the object is closed then, as if it were not there
        node.made[word] = self._part(value, node.place.below(word))

    def unevaluated(self, node: Node, word: str, value: Json) -> None:
        """Take `false` where all schemas for the object are closed, as they are by themselves if none is open."""
        names = self._names_beside(node, word)
        if value is not True and (value is not False or names is None):
            self.refuse(word, node.place)
        elif value is False:
            node.made.setdefault("properties", {})

    def names(self, node: Node, word: str, value: Json) -> None:
        """Read a schema of names as the properties that it lists, or as a pattern of their names."""
        value = self._followed(value)
        words = {} if value is True else value
        if not isinstance(words, dict):
            self.wrong(node.place, f"`{word}` is not an object")
        said = {name: part for name, part in words.items() if name not in keywords.ANNOTATIONS and part is not None}
        if said.pop("type", "string") == "string" and not said:
            return
        rest = node.written.get("additionalProperties", True)
        made = keywords.named_properties(said, rest)
        if made is None or node.written.keys() & {"properties", "patternProperties"} or rest is False:
            self.refuse(word, node.place)
            return
        node.also(self._schema({"type": "object", **made}, node.place.below(word)))

    def items(self, node: Node, word: str, value: Json) -> None:
        """Read one schema for all items, or (before 2020-12) a list for the first ones."""
        if isinstance(value, list):
            self.several(node, "prefixItems", value)
            if "additionalItems" in node.written:
                self.inner(node, word, node.written["additionalItems"])
        else:
            self.inner(node, word, value)

    def several(self, node: Node, word: str, value: Json) -> None:
        """Read a list of schemas."""
        if not isinstance(value, list) or not value:
            self.wrong(node.place, f"`{word}` is not a list, or an empty one,")
        beside = self._names_beside(node, word) if word in keywords.IN_PLACE else NO_NAMES
        node.made[word] = [
            self._part(part, node.place.below(word, index, beside=beside)) for index, part in enumerate(value)
        ]

    def all_of(self, node: Node, word: str, value: Json) -> None:
        """Read several schemas that all apply, beside those that other words added."""
        before = node.made.pop(word, [])
        self.several(node, word, value)
        node.made[word] = [*before, *node.made[word]]

    def one_of(self, node: Node, word: str, value: Json) -> None:
        """Take any one: the same if no two can be met at once, else weaker."""
        if isinstance(value, list) and value:
            tag = node.written.get("discriminator")
            name = tag.get("propertyName") if isinstance(tag, dict) else None
            # OpenAPI: each of them has that property. (pydantic does not require one that has a default.)
            value = [_with_required(self._followed(part), name) if name else part for part in value]
            parts = exclusive(value, self._followed, self._names_beside(node, word))
            if parts is None:
                why = "has schemas that may be met at once, as far as can be told"
                self.refuse(word, node.place, why, "it is enforced as `anyOf`")
            value = value if parts is None else parts
        self.several(node, word, value)
        node.also({"anyOf": node.made.pop(word)})

    def reference(self, node: Node, word: str, value: Json) -> None:
        """Make the target of a `$ref` a definition, which is read later."""
        pointer, target = self._find(value, node.place)
        if pointer is None:
            return
        place = Place(pointer, beside=self._names_beside(node, word))
        key = pointer, place.beside
        if key not in self._names:
            if len(self._names) == keywords.MOST_DEFINITIONS:
                self._fail(f"more than {keywords.MOST_DEFINITIONS:,} definitions are in it", "make it smaller.")
            self._names[key] = f"d{len(self._names)}"
            self._waiting.append((self._names[key], target, place))
        node.made[word] = DEFINITIONS + self._names[key]

    def _find(self, reference: Json, place: Place) -> tuple[str | None, Json]:
        """Return the pointer and the target of a reference; None and True if it cannot be followed."""
        if not isinstance(reference, str):
            self.wrong(place, "`$ref` is not text")
        try:
            return self._references.find(reference)
        except LostReferenceError as error:
            self.refuse(f"$ref: {reference[:80]}", place, f"cannot be followed: {error}")
            return None, True

    def _followed(self, schema: Json) -> Json:
        """Return the target of a schema that is nothing but a reference; True for one that is lost."""
        for _ in range(keywords.MOST_LEVELS):
            if not isinstance(schema, dict) or schema.keys() - keywords.ANNOTATIONS != {"$ref"}:
                break
            try:
                schema = self._references.find(schema["$ref"])[1] if isinstance(schema["$ref"], str) else True
            except LostReferenceError:
                return True
        return schema

    def _names_beside(self, node: Node, word: str = "") -> Names:
        """Return the names that others for the same value have, seen from the schemas of a word, or from the node.

        Schemas of `anyOf` and `oneOf` do not see each other.
        """
        others = (
            all_names(part, self._followed, self._property_names)
            for other, part in parts_in_place(node.written)
            if other != word or word == "allOf"
        )
        return union((node.place.beside, own_names(node.written) if word else NO_NAMES, *others))

    def _close(self, node: Node) -> None:
        """Say what authors of schemas leave unsaid: the type, and that there are no other properties."""
        made = node.made
        kinds = {keywords.KIND_OF[word] for word in made if word in keywords.KIND_OF}
        if len(kinds) == 1 and not made.keys() & {"type", "enum", "const", *keywords.IN_PLACE}:
            made["type"] = kinds.pop()
        if not made.keys() & {"properties", "patternProperties"} or "additionalProperties" in made:
            return
        unevaluated = node.written.get("unevaluatedProperties")
        if unevaluated is False:  # it sees what the schemas in this one declare, and none of those beside it
            parts = parts_in_place(node.written)
            names = union(tuple(all_names(part, self._followed, {}, declared=True) for _, part in parts))
        else:
            names = self._names_beside(node)
        if names is None or unevaluated is True:
            return
        properties = made.get("properties", {})
        if unevaluated is not False and "patternProperties" not in made:
            names |= set(made.get("required", ()))
        more = sorted(names - properties.keys())
        self._taken_names += len(more)
        if self._taken_names <= _MOST_NAMES:
            made["additionalProperties"] = False
            made["properties"] = properties | {name: {} for name in more}


_READERS: Mapping[str, Callable[[Checker, Node, str, Json], None]] = {
    "properties": Checker.properties,
    "patternProperties": Checker.properties,
    "additionalProperties": Checker.inner,
    "items": Checker.items,
    "additionalItems": lambda *_: None,  # read together with `items`
    "prefixItems": Checker.several,
    "unevaluatedProperties": Checker.unevaluated,
    "propertyNames": Checker.names,
    "allOf": Checker.all_of,
    "anyOf": Checker.several,
    "oneOf": Checker.one_of,
    "$ref": Checker.reference,
    **keywords.READERS,
}
_LONGEST_WORD = 40  # characters; the longest of JSON Schema has 21
_KNOWN = keywords.ANNOTATIONS | keywords.UNSUPPORTED | _READERS.keys() | {"$id"}


@lru_cache(maxsize=1024)
def _meant(word: str) -> str | None:
    """Return the word that this one misspells, None where it is just unknown: then it describes (core 6.5)."""
    if word in _KNOWN or word.startswith("x-") or len(word) > _LONGEST_WORD:
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


@dataclass(frozen=True)
class Place:
    """Location of a schema."""

    pointer: str = "#"  # the JSON pointer to it
    level: int = 0  # schemas above it
    beside: Names = NO_NAMES  # of properties in other schemas that apply to the same value

    def below(self, *steps: str | int, beside: Names = NO_NAMES) -> Place:
        """Return the place of a schema in this one."""
        names = (str(step).replace("~", "~0").replace("/", "~1") for step in steps)
        return Place("/".join((self.pointer, *names)), self.level + 1, beside)


@dataclass
class Node:
    """A schema as written, its location, and the schema that is made of it."""

    written: dict[str, Any]
    place: Place
    made: dict[str, Any]

    def also(self, schema: dict[str, Any]) -> None:
        """Add a schema that the same value must meet."""
        self.made["allOf"] = [*self.made.get("allOf", ()), schema]
