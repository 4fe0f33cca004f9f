"""What is relaxed or left out in a request is told: in the reply, in a stream, and in the log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from openai_rig import House, events, house

TAGS = {"type": "object", "properties": {"tags": {"type": "array", "uniqueItems": True}}}
LEFT_OUT = "the parameters of tool f: `uniqueItems` at #/properties/tags cannot be enforced; it is left out."


def chat(text: str, tool: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "tools": [{"type": "function", "function": tool}]}


def completion(_: str, tool: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": "Once", "response_format": {"type": "json_object", "schema": tool["parameters"]}}


def response(text: str, tool: dict[str, Any]) -> dict[str, Any]:
    return {"input": text, "tools": [{"type": "function", **tool}]}


def message(text: str, tool: dict[str, Any]) -> dict[str, Any]:
    tools = [{"name": tool["name"], "input_schema": tool["parameters"]}]
    return {"max_tokens": 100, "messages": [{"role": "user", "content": text}], "tools": tools}


ROUTES = {
    "/v1/chat/completions": chat,
    "/v1/completions": completion,
    "/v1/responses": response,
    "/v1/messages": message,
}


@pytest.fixture(scope="module")
def rig() -> Iterator[House]:
    with house() as one:
        yield one


@pytest.mark.parametrize("path", ROUTES)
def test_what_is_not_enforced_is_told_in_reply_stream_and_log(rig: House, path: str) -> None:
    rig.says(["Hello"])
    body = ROUTES[path]("Hi", {"name": "f", "parameters": TAGS})
    told = LEFT_OUT.replace("parameters of tool f", "JSON schema") if path == "/v1/completions" else LEFT_OUT
    assert rig.post(path, body).json["warnings"] == [told]
    assert f"warning: {told}" in rig.running.logged(f"POST {path} 200")
    streamed = [json.loads(text) for text in events(rig.post(path, {**body, "stream": True}).body) if text != "[DONE]"]
    places = [event.get("message") or event.get("response") or event for event in streamed]
    assert [place["warnings"] for place in places if "warnings" in place][-1] == [told]


ODD: list[tuple[Any, str]] = [
    # parameters of a tool, and what is told of them
    ({"required": None, "properties": None}, ""),
    ({"type": "OBJECT", "properties": {"a": {"type": "int"}}}, '`type` at #/properties/a is "int"; it is read as integer'),
    ({"properties": {"a": {"type": "custom", "required": True, "enum": [], "anyOf": [], "minimum": "1"}, "b": "text"}}, '`type` is "custom"'),
    ({"properties": [3], "required": True}, "`properties` is not an object"),
    ({"properties": {"a": {"$ref": "#/nowhere"}}}, "it points to nothing"),
    ({"properties": {"a": {"$ref": "#/properties/a"}}}, "any arguments are taken"),
    ({"type": "array"}, "any arguments are taken"),
    ("none", "must be a JSON schema; it is left out"),
    ({"maximum": float("inf")}, "is not a finite number; it is left out"),
]  # fmt: skip


@pytest.mark.parametrize("path", [path for path in ROUTES if path != "/v1/completions"])
def test_one_odd_tool_takes_no_others_with_it(rig: House, path: str) -> None:
    body = ROUTES[path]("Hi", {"name": "good", "parameters": TAGS})
    for number, (parameters, _) in enumerate(ODD):
        body["tools"] += ROUTES[path]("Hi", {"name": f"odd{number}", "parameters": parameters})["tools"]
    rig.says(["Hello"])
    answer = rig.post(path, body)
    assert answer.status == 200, answer.body
    for number, (_, told) in enumerate(ODD):
        about = [text for text in answer.json["warnings"] if re.search(rf"odd{number}\b", text)]
        assert any(told in text for text in about) == bool(told), (told, about)
    request = rig.engine.requests[-1]
    assert all(f"odd{number}\\" in str(request.grammar) for number in range(len(ODD)))


def test_tools_that_nobody_could_call_are_left_out(rig: House) -> None:
    good = {"type": "function", "function": {"name": "good"}}
    bad = ["good", None, {}, {"function": {"name": ""}}, {"type": "web_search"}, good]
    answer = rig.chat(tools=[good, *bad])
    assert answer.status == 200
    assert [text.partition(" ")[0] for text in answer.json["warnings"]] == [
        "tools[1]", "tools[2]", "tools[3].function.name", "tools[4].function.name", "tools[5].type", "tools[6]",
    ]  # fmt: skip
    assert all(text.endswith("this tool is left out.") for text in answer.json["warnings"])


def test_tools_that_anthropic_runs_are_left_out(rig: House) -> None:
    rig.says(["Hello"])
    body = message("Hi", {"name": "good", "parameters": {}})
    body["tools"] += [{"type": "web_search_20250305", "name": "web_search"}, "bash"]
    warnings = rig.post("/v1/messages", body).json["warnings"]
    assert [text[:13] for text in warnings] == ["tools[1].type", "tools[2] must"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
def test_a_strict_tool_is_enforced_or_refused(rig: House, path: str) -> None:
    body = ROUTES[path]("Hi", {"name": "f", "parameters": TAGS})
    tool = body["tools"][0]
    tool.get("function", tool)["strict"] = True
    answer = rig.post(path, body)
    assert answer.status == 400
    assert "uniqueItems" in answer.error["message"]


def test_a_request_that_is_taken_as_it_is_has_no_warnings(rig: House) -> None:
    assert "warnings" not in rig.chat(tools=chat("Hi", {"name": "f", "parameters": {}})["tools"]).json


def test_the_usage_chunk_has_the_warnings_where_there_is_one(rig: House) -> None:
    body = chat("Hi", {"name": "f", "parameters": TAGS}) | {"stream": True, "stream_options": {"include_usage": True}}
    rig.says(["Hello"])
    *chunks, last, done = events(rig.post("/v1/chat/completions", body).body)
    assert done == "[DONE]"
    assert json.loads(last)["warnings"] == [LEFT_OUT]
    assert not any("warnings" in json.loads(chunk) for chunk in chunks)


def test_a_warning_cannot_forge_a_line_of_the_log(rig: House) -> None:
    name = "a\n00:00:00 root POST /v1/chat/completions 200, 1 ms \x1b[2J" + "x" * 1000
    rig.chat(tools=chat("Hi", {"name": "f", "parameters": {"properties": {name: {"not": {}}}}})["tools"])
    line = rig.running.logged("POST /v1/chat/completions 200")
    assert len(line.splitlines()) <= 2
    assert "\x1b" not in line


def test_a_body_of_millions_of_values_is_refused_before_it_is_read(rig: House) -> None:
    body = b'{"messages": [{"role": "user", "content": [' + b"0," * 5_000_000 + b"0]}]}"
    answer = rig.running.ask("POST", "/v1/chat/completions", body)
    assert answer.status == 400
    assert "too many values" in answer.error["message"]
