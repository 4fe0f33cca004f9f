"""What clients send, good and bad."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.errors import UsageError
from hermes_cli.prompting.messages import Message, ToolCall
from hermes_cli.prompting.normalize import DEEPEST, MOST_CHARACTERS, messages, tools

USER = {"role": "user", "content": "Hi"}


def calling(*ids: str | None, **more: object) -> dict[str, Any]:
    calls = [
        {"id": key, "type": "function", "function": {"name": f"f{at}", "arguments": "{}"}} for at, key in enumerate(ids)
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls, **more}


def result(content: object, **more: object) -> dict[str, Any]:
    return {"role": "tool", "content": content, **more}


def one(given: dict[str, Any]) -> Message:
    return messages([given])[0]


def refusal(given: object) -> str:
    with pytest.raises(UsageError) as caught:
        messages(given)
    assert caught.value.hint
    return caught.value.message


def tool_refusal(given: object) -> str:
    with pytest.raises(UsageError) as caught:
        tools(given)
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Hi", "Hi"),
        (None, ""),
        ("", ""),
        ([], ""),
        (
            [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}, {"type": "output_text", "text": "c"}],
            "a\nb\nc",
        ),
        (["a", {"type": "text", "text": ""}, {"type": "refusal", "refusal": "no"}], "a\n\nno"),
        ("half a character: \ud83d.", "half a character: \ufffd."),
        ("two halves: \ud83d\ude00", "two halves: 😀"),
        ("zero \0 and all", "zero \0 and all"),
    ],
)
def test_content_in_every_form(content: object, text: str) -> None:
    assert one({"role": "user", "content": content}) == Message("user", text)


def test_roles() -> None:
    assert one({"role": "developer", "content": "a"}) == Message("system", "a")
    assert one({"role": "system", "content": "a", "name": "x"}) == Message("system", "a")
    assert one({"role": "assistant", "content": None}) == Message("assistant", None)
    assert one({"role": "assistant", "content": None, "refusal": "I can't."}) == Message("assistant", "I can't.")
    everything_out_of_order = [{"role": "assistant", "content": "a"}, USER, USER, {"role": "system", "content": "s"}]
    assert [message.role for message in messages(everything_out_of_order)] == ["assistant", "user", "user", "system"]


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ([], "messages must be a list with at least one message"),
        (None, "messages must be"),
        ({"role": "user"}, "messages must be"),
        (["Hi"], "messages[0] must be an object"),
        ([USER, {"content": "a"}], "messages[1].role is null; there are system, developer, user"),
        ([{"role": "robot", "content": "a"}], 'messages[0].role is "robot"'),
        ([{"role": ["user"], "content": "a"}], 'messages[0].role is ["user"]'),
        ([{"role": "user", "content": 5}], "messages[0].content must be a string or a list of parts"),
        ([{"role": "user", "content": {"text": "a"}}], "messages[0].content must be"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text must be a string"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "messages[0].content[0] is a part of type image_url; these models read only text"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "of type input_audio"),
        ([{"role": "user", "content": [7]}], "messages[0].content[0] is a part without a type"),
        ([{"role": "assistant", "tool_calls": {"id": "1"}}], "messages[0].tool_calls must be a list"),
        ([{"role": "assistant", "tool_calls": ["f"]}], "messages[0].tool_calls[0] must be an object"),
        ([{"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}], "messages[0].tool_calls[0].function.name must be"),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{'a': 1}"}}]}], "messages[0].tool_calls[0].function.arguments is not JSON"),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}], "arguments must be an object"),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 5}}]}], "arguments must be an object"),
        ([USER, result("x")], "messages[1] is the result of a tool, but no call stands before it"),
        ([calling("a"), USER, result("x", tool_call_id="a")], "messages[2] is the result of a tool, but no call"),
        ([calling("a", "b"), result("x", tool_call_id="c")], "messages[1].tool_call_id is c; the calls before it are a, b"),
        ([calling("a"), result("x", tool_call_id="a"), result("y", tool_call_id="a")], "messages[2] is a second result of the call f0"),
        ([calling("a"), result("x"), result("y")], "messages[2] is one result more than there were calls (1)"),
        ([{"role": "user", "content": [{"type": "text", "text": "a", "x": {1, 2}}]}], "messages[0].content[0].x is a set"),
        ([{"role": "user", "content": "a", "x": float("nan")}], "messages[0].x is not a finite number"),
        ([{"role": "user", "content": "a", 5: 6}], "messages[0] has a key that is no string"),
    ],
)  # fmt: skip
def test_bad_messages_are_refused_with_their_place(given: object, where: str) -> None:
    assert where in refusal(given)


def test_calls_in_every_form() -> None:
    wanted = (ToolCall("f", {"a": [1, "é"]}),)
    for call in (
        {"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a": [1, "é"]}'}},
        {"id": "x", "type": "function", "function": {"name": "f", "arguments": {"a": [1, "é"]}}},
        {"function": {"name": "f", "arguments": '{"a":[1,"\\u00e9"]}'}},
        {"name": "f", "arguments": {"a": [1, "é"]}},
    ):
        assert one({"role": "assistant", "content": "Well:", "tool_calls": [call]}) == Message(
            "assistant", "Well:", wanted
        )
    old = one({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a": [1, "é"]}'}})
    assert old == Message("assistant", None, wanted)
    nothings: list[object] = ["", " ", None, "{}", {}]
    for nothing in nothings:
        assert one(
            {"role": "assistant", "tool_calls": [{"function": {"name": "a.b-c/d", "arguments": nothing}}]}
        ).tool_calls == (ToolCall("a.b-c/d", {}),)
    assert one({"role": "assistant", "content": "a", "tool_calls": []}) == Message("assistant", "a")
    assert one({"role": "assistant", "content": "a", "tool_calls": None}) == Message("assistant", "a")
    assert one(calling("x")).tool_calls[0].id == "x"
    assert one({"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}).tool_calls[0].id.startswith("call_")


def test_line_breaks_in_arguments_are_read_as_models_write_them() -> None:
    call = {"function": {"name": "f", "arguments": '{"a": "x\ny"}'}}
    assert one({"role": "assistant", "tool_calls": [call]}).tool_calls[0].arguments == {"a": "x\ny"}


def test_reasoning_wherever_clients_put_it() -> None:
    wanted = Message("assistant", "A", reasoning="Hm.")
    assert one({"role": "assistant", "content": "A", "reasoning_content": "Hm."}) == wanted
    assert one({"role": "assistant", "content": "A", "reasoning": "Hm.\n"}) == wanted
    assert one({"role": "assistant", "content": "<think>\nHm.\n</think>\n\nA"}) == wanted
    assert one({"role": "assistant", "content": " <think>Hm.</think>A"}) == wanted
    assert one({"role": "assistant", "content": "A", "reasoning": {"effort": "low"}}) == Message("assistant", "A")
    assert one({"role": "assistant", "content": "Say <think>x</think>"}) == Message("assistant", "Say <think>x</think>")
    assert one({"role": "user", "content": "<think>x</think>"}) == Message("user", "<think>x</think>")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("22", "22"),
        (None, ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        ({"temp": 22, "é": None}, '{"temp": 22, "é": null}'),
        ([1, "a"], '[1, "a"]'),
        ([], "[]"),
        (22.5, "22.5"),
        (True, "true"),
    ],
)
def test_results_as_text_parts_or_json(content: object, text: str) -> None:
    found = messages([USER, calling("a"), result(content, tool_call_id="a")])[2]
    assert found == Message("tool", text, tool_call_id="a", name="f0")


def test_results_come_in_the_order_of_their_calls() -> None:
    """The model matches them by place: ids never reach it."""
    talk = [
        calling("a", "b", "c"),
        result("3", tool_call_id="c"),
        result("1", tool_call_id="a"),
        result("2", tool_call_id="b"),
        USER,
    ]
    assert [message.content for message in messages(talk)] == [None, "1", "2", "3", "Hi"]
    by_name = [
        calling(None, None),
        {"role": "function", "name": "f1", "content": "2"},
        {"role": "function", "name": "f0", "content": "1"},
    ]
    assert [message.content for message in messages(by_name)] == [None, "1", "2"]
    by_place = [calling(None, None), result("1"), result("2")]
    assert [(message.content, message.name) for message in messages(by_place)[1:]] == [("1", "f0"), ("2", "f1")]


def test_a_call_may_stay_without_a_result() -> None:
    assert [message.role for message in messages([USER, calling("a", "b"), result("1", tool_call_id="b"), USER])] == [
        "user",
        "assistant",
        "tool",
        "user",
    ]


SCHEMA = {
    "type": "object",
    "properties": {"node": {"$ref": "#/$defs/Node"}, "maybe": {"type": ["string", "null"]}},
    "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("given", "function"),
    [
        ({"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}}, {"name": "f", "description": "d", "parameters": SCHEMA}),
        ({"type": "function", "function": {"name": "get.it-now"}}, {"name": "get.it-now"}),
        ({"type": "function", "function": {"name": "f", "description": None, "parameters": None}}, {"name": "f"}),
        ({"type": "function", "name": "f", "parameters": {}, "strict": False}, {"name": "f", "parameters": {}}),
        ({"name": "f", "description": "old"}, {"name": "f", "description": "old"}),
        ({"function": {"parameters": {}, "name": "f"}, "type": "function"}, {"parameters": {}, "name": "f"}),
    ],
)  # fmt: skip
def test_tools_in_every_form(given: dict[str, Any], function: dict[str, Any]) -> None:
    found = tools([given])
    assert found == [{"type": "function", "function": function}]
    assert list(found[0]) == ["type", "function"]
    assert list(found[0]["function"]) == list(function)


def test_no_tools() -> None:
    assert tools(None) == tools([]) == []


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ("f", "tools must be a list"),
        (["f"], "tools[0] must be an object"),
        ([{"type": "web_search"}], 'tools[0].type is "web_search"; only functions can be called'),
        ([{"type": "function", "function": "f"}], "tools[0] must be an object with a function"),
        ([{"type": "function", "function": {}}], "tools[0].function.name must be a name"),
        ([{"function": {"name": "f" * 257}}], "tools[0].function.name must be a name of 1 to 256 letters"),
        ([{"function": {"name": "f\n"}}], "tools[0].function.name"),
        ([{"function": {"name": "f"}}, {"function": {"name": "f"}}], "tools[1] there is a tool named f already"),
        ([{"function": {"name": "f", "parameters": "{}"}}], "tools[0].function.parameters must be a JSON schema"),
        ([{"function": {"name": "f", "description": 5}}], "tools[0].function.description must be a string"),
        ([{"function": {"name": "f", "parameters": {"x": float("inf")}}}], "tools[0].function.parameters.x is not a finite number"),
    ],
)  # fmt: skip
def test_bad_tools_are_refused_with_their_place(given: object, where: str) -> None:
    assert where in tool_refusal(given)


def test_sizes() -> None:
    started = time.process_time()
    assert messages([{"role": "user", "content": "é" * 10_000_000}])[0].content == "é" * 10_000_000
    assert f"{MOST_CHARACTERS + 15:,} characters" in refusal([{"role": "user", "content": "a" * MOST_CHARACTERS}])
    deep: Any = {}
    for _ in range(DEEPEST + 1):
        deep = {"properties": deep}
    assert "nested more than 100 levels" in tool_refusal([{"function": {"name": "f", "parameters": deep}}])
    for _ in range(100_000):
        deep = [deep]
    assert "nested more than 100 levels" in refusal([{"role": "user", "content": deep}])
    endless: list[Any] = []
    endless.append(endless)
    assert "nested more than 100 levels" in refusal([{"role": "user", "content": endless}])
    call = {"function": {"name": "f", "arguments": "[" * 100_000}}
    assert "is not JSON" in refusal([{"role": "assistant", "tool_calls": [call]}])
    large = {
        "type": "object",
        "properties": {f"p{at}": {"type": "string", "description": "x" * 50} for at in range(15_000)},
    }
    assert len(json.dumps(large)) > 1_000_000
    assert tools([{"function": {"name": "f", "parameters": large}}])[0]["function"]["parameters"] == large
    assert time.process_time() - started < 60


ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "content",
                    "tool_calls",
                    "function",
                    "name",
                    "arguments",
                    "type",
                    "text",
                    "id",
                    "tool_call_id",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
ROLE = st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"])


@given(
    st.lists(
        st.fixed_dictionaries(
            {"role": ROLE},
            optional={
                "content": ANYTHING,
                "tool_calls": ANYTHING,
                "name": ANYTHING,
                "tool_call_id": ANYTHING,
                "function_call": ANYTHING,
            },
        ),
        max_size=4,
    )
    | ANYTHING
)
def test_anything_is_read_or_refused(given: object) -> None:
    try:
        found = messages(given)
    except UsageError as error:
        assert error.message.startswith("messages")  # noqa: PT017 - either is right
    else:
        assert all(isinstance(message, Message) for message in found)
        json.dumps([call.arguments for message in found for call in message.tool_calls]).encode()
        "".join(message.content or "" for message in found).encode()
