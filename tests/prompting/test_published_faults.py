"""What breaks the published template `tool_use` of Hermes 2 Pro and Hermes 3, and no longer breaks.

What it does instead stands behind each case.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from talks import CALLERS, CLOCK, FAMILIES, RESULT, SYSTEM, USER, calling, properties, title, write

from hermes_cli.prompting.families import HERMES_3, Family, declaration
from hermes_cli.prompting.normalize import tools


@pytest.mark.parametrize(
    ("schema", "type_name"),
    [
        ({"type": ["string", "null"]}, "Union[str,None]"),  # RecursionError
        ({"type": "null"}, "None"),  # RecursionError
        ({"type": "file"}, "Any"),  # RecursionError
        ({"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]}, "Union[str,int,None]"),  # Union[]
        ({"oneOf": [{"type": "string"}]}, "Union[str]"),  # Union[]
        ({"allOf": [{"type": "string"}]}, "str"),  # Union[]
        ({"enum": ["a", "b"]}, "Any"),  # Union[]
        ({}, "Any"),  # Union[]
        (True, "Any"),  # Union[]
        ({"type": "array", "items": {"type": "string"}}, "list[str]"),  # list[Union[]]
        ({"type": "array", "items": {"type": "array", "items": {"type": ["integer", "null"]}}}, "list[list[Union[int,None]]]"),
        ({"type": "array"}, "list"),  # list[Union[]]
        ({"type": "object", "additionalProperties": False}, "dict"),  # dict[str, Union[]]
        ({"type": "object", "additionalProperties": {"type": "number"}}, "dict[str, float]"),
        ({"$ref": "#/$defs/Colour"}, "str"),  # Union[]
        ({"$ref": "#/$defs/Node"}, "list[Node]"),  # Union[]; it contains itself
        ({"$ref": "#/$defs/Nobody"}, "Any"),
        ({"$ref": "#"}, "dict"),
    ],
)  # fmt: skip
def test_types(schema: object, type_name: str) -> None:
    tool = properties(p=schema)
    defs = {"Colour": {"type": "string", "enum": ["red"]}, "Node": {"type": "array", "items": {"$ref": "#/$defs/Node"}}}
    tool["function"]["parameters"]["$defs"] = defs
    prompt = write(HERMES_3, [USER], [tool])
    assert f'"f(p: {type_name}) - d\n\n    Args:\n        p({type_name}): "' in prompt


def test_types_that_would_explode_are_cut_off() -> None:
    defs: dict[str, Any] = {
        f"T{at}": {
            "anyOf": [{"$ref": f"#/$defs/T{at + 1}"}, {"type": "array", "items": {"$ref": f"#/$defs/T{at + 1}"}}]
        }
        for at in range(60)
    }
    tool = properties(p={"$ref": "#/$defs/T0"})
    tool["function"]["parameters"]["$defs"] = defs
    started = time.process_time()
    assert len(declaration(tools([tool])[0])) < 20_000
    assert time.process_time() - started < 30


def test_tools_without_description_or_parameters() -> None:  # UndefinedError
    prompt = write(HERMES_3, [USER], [CLOCK, {"function": {"name": "b", "parameters": {}}}])
    assert '"function": {"name": "clock", "description": "clock() - \n\n", "parameters": {}}' in prompt
    assert '"function": {"name": "b", "description": "b() - \n\n", "parameters": {}}' in prompt


def test_quotes_in_descriptions_do_not_end_the_string() -> None:
    tool = properties(p={"type": "string", "description": 'Say "please" \\ or\nnot.'})
    entry = declaration(tools([tool])[0])
    # One closing brace is missing in what the template writes, too.
    read = json.JSONDecoder(strict=False).decode(entry + "}")
    assert read["function"]["description"].endswith('p(str): Say "please" \\ or\nnot.')
    assert read["function"]["parameters"] == tool["function"]["parameters"]


@pytest.mark.parametrize("family", CALLERS, ids=title)
def test_text_beside_calls_is_kept(family: Family) -> None:  # dropped
    prompt = write(family, [USER, calling("I look.", zone="é"), RESULT], [CLOCK])
    assert 'I look.\n<tool_call>\n{"name": "clock", "arguments": {"zone": "é"}}\n</tool_call><|' in prompt


@pytest.mark.parametrize("family", CALLERS, ids=title)
@pytest.mark.parametrize("arguments", ['{"a":1}', {"a": 1}, '{ "a" : 1 }'], ids=repr)
def test_arguments_are_written_in_one_way(family: Family, arguments: object) -> None:  # pasted as they are
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": arguments}}
    assert '{"name": "clock", "arguments": {"a": 1}}' in write(
        family, [USER, {"role": "assistant", "content": None, "tool_calls": [call]}, RESULT], [CLOCK]
    )


@pytest.mark.parametrize("family", FAMILIES, ids=title)
def test_what_else_broke(family: Family) -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    assert "a\nb" in write(family, [parts])  # TypeError
    assert "be kind" in write(family, [{"role": "developer", "content": "be kind"}, USER])  # dropped
    for answer in (
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": "A", "tool_calls": []},
        {"role": "assistant", "content": "A", "tool_calls": None},
    ):  # TypeError, or the text dropped
        assert write(family, [USER, answer, USER]) == write(
            family, [USER, {"role": "assistant", "content": answer["content"] or ""}, USER]
        )
    assert write(family, [USER], None) == write(family, [USER], [])  # TypeError


@pytest.mark.parametrize("family", CALLERS, ids=title)
def test_what_was_read_stays_as_it_was_read(family: Family) -> None:  # the end of a tool's turn changed afterwards
    talk = [SYSTEM, USER, calling(), RESULT, {"role": "assistant", "content": "Noon."}, USER, calling("Again:"), RESULT]
    prompts = [write(family, talk[:end], [CLOCK]) for end in (2, 4, 6, 8)]
    starts = [
        prompt.removesuffix("<|start_header_id|>assistant<|end_header_id|>\n\n").removesuffix("<|im_start|>assistant\n")
        for prompt in prompts
    ]
    assert all(later.startswith(earlier) for earlier, later in zip(starts, prompts[1:], strict=False))
