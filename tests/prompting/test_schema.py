import json
import re
from importlib import import_module
from typing import Any

import pytest
from grammar_walk import accepts, grammar_of, walk
from hypothesis import given, note
from hypothesis import strategies as st

from hermes_cli.errors import UsageError
from hermes_cli.prompting import schema_keywords as keywords
from hermes_cli.prompting.structured_output import json_schema

Validator = import_module("jsonschema").Draft202012Validator  # it has no types

Json = Any


def takes(schema: Json, text: str) -> bool:
    return accepts(grammar_of(json_schema(schema)), text)


def refusal(schema: Json) -> str:
    with pytest.raises(UsageError) as caught:
        json_schema(schema)
    return caught.value.message


KEYWORDS: list[tuple[Json, list[str], list[str]]] = [
    # schema, texts that conform, texts that do not
    ({"type": "null"}, ["null"], ["0", '""', "nul"]),
    ({"type": "boolean"}, ["true", "false"], ["1", "null", "True"]),
    ({"type": "string"}, ['""', '"a \\" \\\\ \\n é 漢 😀"'], ["a", "'a'", '"a', '"\n"']),
    ({"type": "integer"}, ["0", "-7", "123456789012345678"], ["1.5", "01", "+1", "1e3", "9" * 20]),
    ({"type": "number"}, ["0", "-1.5", "1e-07", "2.5E+10"], [".5", "1.", "NaN", "Infinity", "0x1"]),
    ({"type": "array"}, ["[]", '[1, "a", [null]]'], ["[1,2]", "[1, ]", "{}"]),
    ({"type": "object"}, ["{}", '{"a": 1, "b": {"c": []}}'], ['{"a":1}', "[]", "{a: 1}"]),
    ({"type": ["string", "null"]}, ['"x"', "null"], ["1"]),
    ({"enum": [1, "a", None, [2, "b"], {"k": True}]}, ["1", '"a"', "null", '[2, "b"]', '{"k": true}'], ["2", '"b"']),
    ({"const": 2.5}, ["2.5"], ["2", "2.51"]),
    ({"type": "string", "enum": ["a", 1]}, ['"a"'], ["1"]),
    ({"type": "integer", "minimum": 3, "maximum": 12}, ["3", "12", "7"], ["2", "13", "-3"]),
    ({"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 12}, ["4", "11"], ["3", "12"]),
    ({"type": "number", "minimum": -0.5, "maximum": 2}, ["-0.5", "0", "1.99", "2"], ["-0.51", "2.01"]),
    ({"type": "number", "exclusiveMinimum": 0}, ["0.001", "5"], ["0", "0.0", "-1"]),
    ({"minimum": 0, "exclusiveMinimum": True, "type": "integer"}, ["1"], ["0"]),  # draft 4
    ({"type": "integer", "multipleOf": 5}, ["0", "15", "-10"], ["3"]),
    ({"type": "number", "multipleOf": 0.25}, ["0.25", "3", "1.50"], ["0.3", "1.55"]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"äöü"'], ['"a"', '"abcd"']),
    ({"type": "string", "pattern": "b+"}, ['"abbc"'], ['"ac"']),
    ({"type": "string", "pattern": "^b+$"}, ['"bb"'], ['"abb"']),
    ({"type": "array", "items": {"type": "integer"}}, ["[]", "[1, 2]"], ['["a"]']),
    ({"type": "array", "minItems": 1, "maxItems": 2}, ["[1]", "[1, 2]"], ["[]", "[1, 2, 3]"]),
    ({"prefixItems": [{"type": "integer"}], "items": False, "type": "array"}, ["[]", "[1]"], ["[1, 2]", '["a"]']),
    ({"items": [{"type": "integer"}], "additionalItems": {"type": "null"}, "type": "array"}, ["[1, null]"], ["[1, 2]"]),
    ({"type": "object", "properties": {"a": {"type": "integer"}}}, ['{"a": 1}', "{}"], ['{"a": "x"}', '{"b": 2}']),
    ({"properties": {"a": {}}, "additionalProperties": True, "type": "object"}, ['{"b": 2}'], ["[]"]),
    ({"properties": {"a": {}}, "required": ["a"], "type": "object"}, ['{"a": null}'], ["{}"]),
    ({"properties": {"a": {}}, "additionalProperties": False, "type": "object"}, ["{}"], ['{"b": 1}']),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, ['{"x": 1, "y": 2}'], ['{"x": "a"}']),
    ({"type": "object", "patternProperties": {"^x": {"type": "integer"}}}, ['{"x1": 1}'], ['{"x1": "a"}', '{"y": 1}']),
    ({"type": "object", "propertyNames": {"pattern": "^x"}}, ['{"x1": 1}', "{}"], ['{"y": 1}']),
    ({"type": "object", "propertyNames": {"enum": ["a", "b"]}}, ['{"a": 1, "b": 2}'], ['{"c": 1}']),
    (
        {"propertyNames": {"maxLength": 2}, "additionalProperties": {"type": "null"}},
        ['{"é1": null}'],
        ['{"abc": null}', '{"a": 1}'],
    ),
    ({"type": "object", "propertyNames": {"type": "string"}}, ['{"abc": 1}'], ["[]"]),
    ({"type": "object", "properties": {"a": {"not": {}}, "b": {}}}, ['{"b": 1}'], ['{"a": 1}']),
    ({"type": "array", "items": {"not": {}}}, ["[]"], ["[1]"]),
    (
        {
            "allOf": [{"properties": {"a": {}}}],
            "properties": {"b": {}},
            "unevaluatedProperties": False,
            "type": "object",
        },
        ['{"a": 1, "b": 2}', "{}"],
        ['{"c": 1}'],
    ),
    ({"type": "integer", "minimum": None, "format": None, "enum": None}, ["7"], ["null"]),
    (
        {"type": "object", "properties": {"a": {}}, "required": ["a", "b"]},
        ['{"a": 1, "b": 2}'],
        ['{"a": 1}', '{"a": 1, "b": 2, "c": 3}'],
    ),
    ({"type": "object", "minProperties": 1, "maxProperties": 2}, ['{"a": 1}'], ["{}", '{"a": 1, "b": 2, "c": 3}']),
    ({"anyOf": [{"type": "integer"}, {"const": "x"}]}, ["1", '"x"'], ['"y"']),
    ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, ["1", '"y"'], ["null"]),
    ({"oneOf": [{"const": 1}, {"enum": [2, 3]}]}, ["1", "3"], ["4"]),
    ({"allOf": [{"minimum": 2}, {"maximum": 4}], "type": "integer"}, ["2", "4"], ["1", "5"]),
    ({"type": "string", "nullable": True}, ['"a"', "null"], ["1"]),
    ({}, ["1", "null", '{"a": [1]}'], ["x"]),
    (True, ["1", "null"], ["x"]),
    ({"type": "integer", "format": "int32"}, ["2147483647"], ["2147483648"]),
]


@pytest.mark.parametrize(("schema", "good", "bad"), KEYWORDS, ids=lambda value: json.dumps(value)[:60])
def test_keywords_are_enforced(schema: Json, good: list[str], bad: list[str]) -> None:
    for text in good:
        assert takes(schema, text), text
    for text in bad:
        assert not takes(schema, text), text


FORMATS = {
    "date": (["2024-02-29", "2000-02-29", "2026-11-30"], ["2023-02-29", "1900-02-29", "2026-11-31", "26-01-01"]),
    "time": (["23:59:59Z", "00:00:00.123+02:00"], ["24:00:00Z", "12:00:60Z", "12:00Z"]),
    "date-time": (["2026-11-22T10:00:00Z"], ["2026-11-22 10:00:00Z", "2023-02-29T10:00:00Z"]),
    "duration": (["P1Y2M3DT4H", "PT1S", "P2W"], ["P", "1D", "PT"]),
    "email": (["ada@example.org"], ["ada", "@example.org", "ada@"]),
    "hostname": (["example.org", "a-b"], ["-a", "a_b", "a..b"]),
    "ipv4": (["127.0.0.1"], ["256.1.1.1", "1.2.3"]),
    "ipv6": (["::1", "2001:db8::1"], ["1:2", "::g"]),
    "uuid": (["123e4567-e89b-12d3-a456-426614174000"], ["123e4567"]),
    "uuid4": (["123e4567-e89b-42d3-a456-426614174000"], ["123e4567-e89b-12d3-a456-426614174000"]),
    "uri": (["https://example.org/a?b#c", "mailto:a@b.c"], ["//x", "a b"]),
    "json-pointer": (["", "/a~1b/0"], ["a", "/~2"]),
    "byte": (["YWI=", ""], ["YWI"]),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_enforced(name: str) -> None:
    good, bad = FORMATS[name]
    for text in good:
        assert takes({"type": "string", "format": name}, json.dumps(text)), text
        assert takes({"type": ["string", "null"], "format": name}, "null")
    for text in bad:
        assert not takes({"type": "string", "format": name}, json.dumps(text)), text


def test_formats_that_say_nothing_about_writing_pass_others_are_refused() -> None:
    for name in keywords.FREE_FORMATS:
        assert takes({"type": "string", "format": name}, '"x"')
    assert takes({"type": "integer", "format": "unix-time"}, "1")
    assert refusal({"type": "string", "format": "idn-email"}).endswith("`format: idn-email` at # cannot be enforced.")
    assert "`format: unknown`" in refusal({"format": "unknown"})  # the engine takes any text for it


@pytest.mark.parametrize("word", sorted(keywords.UNSUPPORTED))
def test_unsupported_keywords_are_refused_with_name_and_place(word: str) -> None:
    message = refusal({"type": "object", "properties": {"a/b": {"items": {"type": "array", word: [{"type": "null"}]}}}})
    assert message == f"the JSON schema: `{word}` at #/properties/a~1b/items cannot be enforced."


def test_keywords_without_effect_and_annotations_pass() -> None:
    said = dict.fromkeys(keywords.ANNOTATIONS - {"$defs", "definitions"}, "x")
    assert takes({"type": "integer", **said, **keywords.WITHOUT_EFFECT, "x-order": 1, "widget": "slider"}, "1")


def test_a_misspelt_keyword_is_refused() -> None:
    assert "`minLenght` at # is not a word of JSON Schema (`minLength` is)" in refusal({"minLenght": 1})
    assert "`Required`" in refusal({"Required": ["a"]})


@pytest.mark.parametrize(
    ("schema", "part"),
    [
        (3, "is not a schema"),
        ({"type": "strng"}, "`type` is"),
        ({"type": []}, "`type` is"),
        ({"enum": []}, "`enum` is not a list"),
        ({"properties": [1]}, "`properties` is not an object"),
        ({"required": "a"}, "`required` is not a list"),
        ({"required": True}, "`required` is not a list"),
        ({"anyOf": []}, "`anyOf` is not a list"),
        ({"minLength": -1}, "`minLength` is -1"),
        ({"maxItems": 1.5}, "`maxItems` is 1.5"),
        ({"minimum": "1"}, "`minimum` is"),
        ({"minimum": float("inf")}, "`minimum: Infinity`"),
        ({"multipleOf": 0}, "`multipleOf` is not above 0"),
        ({"pattern": 1}, "`pattern` is not text"),
        ({"pattern": "("}, "parentheses"),
        ({"pattern": "[b-a]"}, "invalid character class range"),
        ({"$ref": 1}, "`$ref` is not text"),
        ({"items": 1}, "is not a schema stands at #/items"),
        (False, "which nothing meets"),
    ],
)
def test_what_is_no_schema_is_refused(schema: Json, part: str) -> None:
    assert part in refusal(schema)


@pytest.mark.parametrize(
    ("schema", "part"),
    [
        ({"type": "integer", "minimum": 5, "maximum": 1}, "minimum (5) is greater than maximum (1)"),
        ({"type": "string", "minLength": 3, "maxLength": 1}, "minLength (3) is greater"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "nothing can meet it"),
        (
            {"type": "object", "properties": {"a": {}}, "required": ["b"], "additionalProperties": False},
            "required property 'b'",
        ),
    ],
)
def test_what_nothing_can_meet_is_refused(schema: Json, part: str) -> None:
    assert part in refusal({"type": "array", "items": {"properties": {"p": schema}, "required": ["p"], "type": "object"},
                            "minItems": 1})  # fmt: skip


def test_the_part_that_the_engine_refuses_is_named() -> None:
    overlapping = {"oneOf": [{"type": "integer"}, {"type": "number"}]}
    definitions = {"deep": {"type": "object", "properties": {"x": {"items": overlapping, "type": "array"}}}}
    schema = {"properties": {"a": {"type": "string"}, "b": {"$ref": "#/$defs/deep"}}, "$defs": definitions}
    assert "`oneOf` at #/$defs/deep/properties/x/items has schemas that may be met at once" in refusal(schema)
    unmet = {"type": "string", "pattern": "^a$", "minLength": 2}
    schema = {
        "type": "object",
        "properties": {"b": {"items": unmet, "minItems": 1, "type": "array"}},
        "required": ["b"],
    }
    assert "what stands at #/properties/b/items cannot be enforced: nothing can meet it" in refusal(schema)


def test_numbers_beyond_64_bits_of_floating_point_are_refused() -> None:
    for schema in ({"const": 2**60 + 1}, {"enum": [[10**400]]}, {"minimum": 1e19}, {"multipleOf": 0.07}):
        assert "to be enforced" in refusal(schema)
    assert "multipleOf: 65537" in refusal({"allOf": [{"multipleOf": 65539}, {"multipleOf": 65537}], "type": "integer"})


def test_references() -> None:
    tree = {
        "$defs": {
            "node/1": {
                "$anchor": "node",
                "type": "object",
                "properties": {"value": {"type": "integer"}, "children": {"items": {"$ref": "#node"}, "type": "array"}},
                "required": ["value"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/%24defs/node~11",
    }
    assert takes(tree, '{"value": 1, "children": [{"value": 2, "children": []}, {"value": 3}]}')
    assert not takes(tree, '{"value": 1, "children": [{"value": "x"}]}')
    listed = {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}}]}
    assert takes(listed, "[[null], []]")
    assert not takes(listed, "[1]")
    assert takes(
        {"$id": "https://a.b/c", "$ref": "https://a.b/c#/definitions/x", "definitions": {"x": {"const": 1}}}, "1"
    )
    with_sibling = {"properties": {"a": {"$ref": "#/properties/b", "maximum": 5}, "b": {"type": "integer"}},
                    "type": "object"}  # fmt: skip
    assert takes(with_sibling, '{"a": 5, "b": 6}')
    assert not takes(with_sibling, '{"a": 6}')


@pytest.mark.parametrize(
    "reference",
    ["https://example.org/s.json", "other.json#/a", "#/$defs/none", "#none", "#/properties/a/x", "#/enum/9"],
)
def test_references_that_lead_nowhere_are_refused(reference: str) -> None:
    message = refusal({"properties": {"a": {"type": "string"}, "b": {"$ref": reference}}, "enum": [{}]})
    assert f"`$ref: {reference}` at #/properties/b cannot be followed" in message


def loop(schema: Json) -> Json:
    return {
        "$defs": {"a": schema, "b": {"$ref": "#/$defs/a"}},
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/b"}},
    }


@pytest.mark.parametrize(
    "schema",
    [
        loop({"$ref": "#/$defs/b"}),
        loop({"allOf": [{"type": "string"}, {"$ref": "#/$defs/a"}]}),
        loop({"anyOf": [{"type": "string"}, {"$ref": "#/$defs/b"}]}),
        loop({"type": "object", "properties": {"n": {"$ref": "#/$defs/a"}}, "required": ["n"]}),
        loop({"type": "object", "additionalProperties": {"$ref": "#/$defs/a"}, "minProperties": 1}),
        loop({"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1}),
        loop({"type": "array", "prefixItems": [{"$ref": "#/$defs/a"}], "minItems": 1}),
    ],
)
def test_definitions_without_end_are_refused(schema: Json) -> None:
    assert "no finite value meets what `$ref` points to at #/$defs/" in refusal(schema)


def test_recursion_that_ends_is_taken() -> None:
    for end in (
        {
            "type": "object",
            "properties": {"n": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}]}},
            "required": ["n"],
        },
        {"type": "array", "items": {"$ref": "#/$defs/a"}},
        {"type": ["array", "null"], "items": {"$ref": "#/$defs/a"}, "minItems": 1},
    ):
        assert takes(loop(end), "{}")


def test_one_of_with_discriminator_as_pydantic_writes_it() -> None:
    def animal(kind: str, **properties: Json) -> Json:
        return {
            "properties": {"kind": {"const": kind, "default": kind, "type": "string"}, **properties},
            "type": "object",
        }

    schema = {
        "$defs": {"Cat": animal("cat", lives={"type": "integer"}), "Dog": animal("dog", name={"type": "string"})},
        "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
    }
    assert "`oneOf` at # has schemas that may be met at once" in refusal(schema)  # {} would be both
    schema["discriminator"] = {"propertyName": "kind", "mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"}}
    assert takes(schema, '{"kind": "cat", "lives": 9}')
    assert not takes(schema, '{"lives": 9}')
    assert not takes(schema, '{"kind": "dog", "name": 9}')


ONE_OF: list[tuple[Json, list[str], list[str], bool]] = [
    # schema, texts that conform, texts that do not, whether it is exact
    (
        {"type": "object", "properties": {"do": {"enum": ["go", "take"]}}, "required": ["do"],
         "oneOf": [{"properties": {"do": {"const": "go"}, "to": {"type": "string"}}, "required": ["do", "to"]},
                   {"properties": {"do": {"const": "take"}, "item": {}}, "required": ["do", "item"]}]},
        ['{"do": "go", "to": "Oslo"}', '{"do": "take", "item": 1}'],
        ['{"do": "go"}', '{"do": "go", "item": 1}', '{"do": "go", "to": "Oslo", "un": 1}'],
        True,
    ),
    (
        {"type": "object", "properties": {"path": {"type": "string"}, "url": {"type": "string"}},
         "oneOf": [{"required": ["path"]}, {"required": ["url"]}]},
        ['{"path": "a"}', '{"url": "b"}'],
        ["{}", '{"path": "a", "url": "b"}', '{"zzz": 1}', '{"path": 1}'],
        True,
    ),
    (
        {"oneOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {"b": {}}, "required": ["b"]}]},
        ['{"a": 1}', '{"b": "x"}'],
        ["{}", '{"a": 1, "b": 2}', '{"a": "x"}'],
        True,
    ),
    ({"oneOf": [{"const": "auto"}, {"type": "object"}, {"type": "integer", "minimum": 5}, {"type": "number", "exclusiveMaximum": 5}]},
     ['"auto"', "{}", "5", "4.5"], ['"x"', "null"], True),
    ({"oneOf": [{"anyOf": [{"type": "string"}, {"type": "null"}]}, {"allOf": [{"type": "integer"}, {"minimum": 1}]}]},
     ['"x"', "null", "1"], ["0", "[]"], True),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, ["1", "1.5"], ["null", '"x"'], False),
    ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["b"],
      "oneOf": [{"properties": {"a": {"minimum": 1}}}, {"properties": {"a": {"maximum": 3}}}]},
     ['{"a": 0, "b": 1}', '{"b": 1}'], ["{}", '{"a": "x", "b": 1}', '{"b": 1, "c": 1}'], False),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad", "exact"), ONE_OF, ids=lambda value: json.dumps(value)[:60])
def test_one_of_is_any_of_where_schemas_exclude_each_other_and_else_too_but_told(
    schema: Json, good: list[str], bad: list[str], *, exact: bool
) -> None:
    notes: list[str] = []
    grammar = grammar_of(json_schema(schema, notes=notes))
    assert all(accepts(grammar, text) for text in good)
    assert not any(accepts(grammar, text) for text in bad)
    assert [note.endswith("it is enforced as `anyOf`.") for note in notes] == ([] if exact else [True])
    if not exact:
        refusal(schema)


def test_objects_that_name_their_properties_have_no_others() -> None:
    schema = {"properties": {"a": {"properties": {"b": {}}}, "map": {"type": "object"}, "open": {"properties": {},
              "additionalProperties": True}}}  # fmt: skip
    assert not takes(schema, '{"a": {"c": 1}}')
    assert not takes(schema, '{"z": 1}')
    assert not takes(schema, '"text"')  # without `type` it is about objects
    assert takes(schema, '{"a": {"b": 1}, "map": {"k": 1}, "open": {"k": 1}}')


def test_schemas_for_the_same_object_take_the_names_of_each_other() -> None:
    parts = {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}},
                       {"type": "object", "properties": {"b": {"type": "integer"}}}]}  # fmt: skip
    assert takes(parts, '{"a": 1, "b": 2}')
    assert not takes(parts, '{"a": 1, "b": "x"}')
    assert not takes(parts, '{"a": 1, "b": 2, "c": 3}')
    inherited = {"$defs": {"Base": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}},
                 "allOf": [{"$ref": "#/$defs/Base"}], "properties": {"name": {"type": "string"}}, "type": "object"}  # fmt: skip
    assert takes(inherited, '{"name": "x", "id": 1}') or takes(inherited, '{"id": 1, "name": "x"}')
    assert not takes(inherited, '{"id": 1, "c": 1}')
    opened = {**inherited, "additionalProperties": True}
    assert takes(opened, '{"id": 1, "c": 1}')
    either = {"type": "object", "properties": {"a": {}, "b": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}
    assert takes(either, '{"b": 2}')
    assert not takes(either, "{}")
    assert not takes(either, '{"a": 1, "c": 2}')


def test_a_listed_property_cannot_be_repeated_in_other_letters() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert not takes(schema, '{"a": 1, "\\u0061": "x"}')
    assert not takes(schema, '{"a": 1, "a": "x"}')


def test_notes_instead_of_refusals() -> None:
    notes: list[str] = []
    schema = {
        "type": "array",
        "uniqueItems": True,
        "items": {"type": "object", "properties": {"n": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
                                                   "s": {"type": "string", "pattern": "(?=x)", "maxLength": 1}}},
    }  # fmt: skip
    answer = json_schema(schema, notes=notes)
    left_out = ["`uniqueItems` at #", "`oneOf` at #/items/properties/n", "`pattern` at #/items/properties/s"]
    assert [" ".join(note.removeprefix("the JSON schema: ").split()[:3]) for note in notes] == left_out
    assert accepts(grammar_of(answer), '[{"n": 1.5, "s": "y"}]')
    assert not accepts(grammar_of(answer), '[{"s": "yy"}]')
    again: list[str] = []
    json_schema(schema, notes=again)
    assert again == notes


# Limits


def test_a_schema_of_a_megabyte() -> None:
    large = {"enum": [f"value number {number:>6}" for number in range(50_000)]}
    assert len(json.dumps(large)) > 1_000_000
    assert "bytes without its descriptions; at most 262,144 are taken" in refusal(large)
    described = {"type": "object", "properties": {"a": {"type": "string", "description": "word " * 200_000}}}
    assert takes(described, '{"a": "x"}')


def test_too_much_of_anything_is_refused() -> None:
    deep: Json = {"type": "null"}
    for _ in range(keywords.MOST_LEVELS + 1):
        deep = {"items": deep}
    assert "schemas stand in one another" in refusal(deep)
    assert "properties, more than 1,000," in refusal({"properties": {str(number): {} for number in range(1_001)}})
    assert "more than 10,000 schemas" in refusal({"anyOf": [{"anyOf": [{}] * 101}] * 100})
    value: Json = 1
    for _ in range(keywords.MOST_LEVELS + 2):
        value = [value]
    assert "deeper than 32 levels" in refusal({"const": value})
    many = {"$defs": {str(number): {"type": "null"} for number in range(1_001)}}
    assert "more than 1,000 definitions" in refusal(
        {**many, "anyOf": [{"$ref": f"#/$defs/{number}"} for number in range(1_001)]}
    )
    product = {"allOf": [{"anyOf": [{"required": [f"{a}{b}"]} for b in range(9)], "type": "object"} for a in range(6)]}
    assert "it is too complex" in refusal(product)
    nested: Json = []
    for _ in range(100_000):
        nested = [nested]
    assert "too deep" in refusal({"default": nested})
    assert "half a character" in refusal({"enum": ["\ud800"]})


def test_counts_above_what_can_be_counted() -> None:
    assert takes({"type": "string", "maxLength": 10**12}, '"abc"')
    assert "`minItems` is above 1,000,000" in refusal({"type": "array", "minItems": 10**12})


# Whatever the schema: all that is written conforms, and what conforms can be written.

LETTERS = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])
Case = tuple[Json, st.SearchStrategy[Json]]


@st.composite
def numbers(draw: st.DrawFn) -> Case:
    kind = draw(st.sampled_from(["integer", "number"]))
    quarters = st.integers(-400, 400).map(lambda value: value if kind == "integer" or value % 4 == 0 else value / 4)
    low, high = sorted([draw(quarters), draw(quarters)])
    schema: Json = {"type": kind}
    if draw(st.booleans()):
        schema["minimum"] = low
    if draw(st.booleans()):
        schema["maximum"] = high
    return schema, quarters.filter(lambda value: schema.get("minimum", value) <= value <= schema.get("maximum", value))


@st.composite
def texts(draw: st.DrawFn) -> Case:
    least, extra = draw(st.integers(0, 3)), draw(st.integers(0, 4))
    schema = {"type": "string", "minLength": least, "maxLength": least + extra}
    return schema, st.text(LETTERS, min_size=least, max_size=least + extra)


PATTERNS = ["^[a-f]{2,4}$", "^(yes|no)$", "^[A-Z][a-z]*( [A-Z][a-z]*)?$", r"^\d{3}-\d{2}$", r"^v\d+\.\d+$"]
patterns = st.sampled_from(PATTERNS).map(
    lambda pattern: (
        {"type": "string", "pattern": pattern},
        st.from_regex(pattern, fullmatch=True).filter(lambda text: text.isascii() and "\n" not in text),
    )
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(LETTERS, max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(LETTERS, max_size=3), inner, max_size=2),
    max_leaves=4,
)
constants = st.lists(VALUES, min_size=1, max_size=4).map(lambda values: ({"enum": values}, st.sampled_from(values)))
simple = st.sampled_from([({"type": "boolean"}, st.booleans()), ({"type": ["null", "boolean"]}, st.none())])


@st.composite
def lists(draw: st.DrawFn, inner: st.SearchStrategy[Case]) -> Case:
    (item, items), least, extra = draw(inner), draw(st.integers(0, 2)), draw(st.integers(0, 2))
    schema = {"type": "array", "items": item, "minItems": least, "maxItems": least + extra}
    return schema, st.lists(items, min_size=least, max_size=least + extra)


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Case]) -> Case:
    cases = draw(st.dictionaries(st.text(LETTERS, max_size=4), inner, max_size=4))
    required = [name for name in cases if draw(st.booleans())]
    schema: Json = {
        "type": "object",
        "properties": {name: case[0] for name, case in cases.items()},
        "required": required,
    }
    if draw(st.booleans()):
        schema["additionalProperties"] = draw(st.sampled_from([False, {"type": "integer"}]))
    optional = [name for name in cases if name not in required]

    @st.composite
    def values(draw: st.DrawFn) -> Json:
        there = {*required, *(name for name in optional if draw(st.booleans()))}
        value = {name: draw(case[1]) for name, case in cases.items() if name in there}
        if schema.get("additionalProperties") and draw(st.booleans()):
            value[next(name for name in ("more", "more2", "more3", "more4", "more5") if name not in cases)] = 7
        return value

    return schema, values()


def either(one: Case, other: Case) -> Case:
    return {"anyOf": [one[0], other[0]]}, one[1] | other[1]


CASES = st.recursive(
    numbers() | texts() | patterns | constants | simple,
    lambda inner: lists(inner) | objects(inner) | st.builds(either, inner, inner),
    max_leaves=6,
)


@pytest.mark.slow
@given(CASES, st.data(), st.integers(0, 2**32))
def test_schemas_mean_to_the_grammar_what_they_mean(case: Case, data: st.DataObject, seed: int) -> None:
    schema, values = case
    grammar = grammar_of(json_schema(schema))
    value = data.draw(values)
    assert Validator(schema).is_valid(value)
    assert accepts(grammar, json.dumps(value, ensure_ascii=False))
    written = walk(grammar, seed)
    if written is not None:
        note(written)
        assert Validator(schema).is_valid(json.loads(written))
        structure = re.sub(r'"(\\.|[^"\\])*"', '""', written)
        assert not re.search(r"[,:](?! )|[\[{] | [\]}]|  |\n", structure)  # as json.dumps writes it


def closed(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


PART, OTHER = closed(a={"type": "string"}), closed(b={"type": "integer"})


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [PART, OTHER]},
        {"allOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}], "$defs": {"A": PART, "B": OTHER}},
        {**PART, "allOf": [OTHER]},
    ],
)
def test_closed_parts_that_exclude_each_other_are_closed_together(schema: Json) -> None:
    notes: list[str] = []
    grammar = grammar_of(json_schema(schema, notes=notes))
    assert "closed together" in notes[0]
    assert accepts(grammar, '{"a": "x", "b": 1}')
    for text in ('{"a": "x"}', '{"b": 1}', '{"a": "x", "b": "x"}', '{"a": "x", "b": 1, "c": 1}'):
        assert not accepts(grammar, text), text
    assert "nothing can meet it" in refusal(schema)
