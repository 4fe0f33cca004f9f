"""What clients send, good and bad."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.errors import UsageError
from hermes_cli.prompting.messages import Message, ToolCall
from hermes_cli.prompting.normalize import DEEPEST, MOST_CHARACTERS, NAMELESS, Notes, messages, tools

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
    assert [message.role for message in messages(everything_out_of_order)] == ["assistant", "user", "user"]


def test_systems_that_speak_later_stand_in_the_turn_of_the_user() -> None:
    """Models were trained on one system message, the first."""
    system = {"role": "system", "content": "s"}
    first = [Message("system", "s\n\ns")]
    hello = {"role": "assistant", "content": "a"}
    assert messages([system, {"role": "developer", "content": "s"}, USER]) == [*first, Message("user", "Hi")]
    assert messages([USER, system, system]) == [Message("user", "Hi\n\ns\n\ns")]
    assert messages([USER, hello, system, USER])[2:] == [Message("user", "s\n\nHi")]
    assert messages([USER, hello, system, system, USER, USER])[2:] == [
        Message("user", "s\n\ns\n\nHi"),
        Message("user", "Hi"),
    ]
    assert messages([USER, hello, system])[2:] == [Message("user", "s")]
    between = [calling("a", "b"), result("1", tool_call_id="a"), system, result("2", tool_call_id="b"), USER]
    assert [(message.role, message.content) for message in messages(between)[1:]] == [
        ("tool", "1"),
        ("tool", "2"),
        ("user", "s\n\nHi"),
    ]


def test_the_bill_of_claude_code_is_no_part_of_the_prompt() -> None:
    bill = "x-anthropic-billing-header: cc_version=2.1; cch=eb6c6;"
    for content in (
        f"{bill}\nYou are short.",
        [{"type": "text", "text": bill}, {"type": "text", "text": "You are short."}],
        [{"type": "text", "text": f"{bill}\nYou are short."}],
    ):
        assert one({"role": "system", "content": content}) == Message("system", "You are short.")
    assert one({"role": "user", "content": bill}) == Message("user", bill)


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
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "messages[0].content[0] is of type image_url: this model does not support images"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "is of type input_audio: this model does not support audio"),
        ([{"role": "user", "content": [7]}], "messages[0].content[0] is a part without a type"),
        ([{"role": "assistant", "tool_calls": {"id": "1"}}], "messages[0].tool_calls must be a list"),
        ([{"role": "assistant", "tool_calls": ["f"]}], "messages[0].tool_calls[0] must be an object"),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": 5}}]}], "messages[0].tool_calls[0].function.name must be"),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{'a': 1}"}}]}], "messages[0].tool_calls[0].function.arguments is not JSON"),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}], "arguments must be an object"),
        ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 5}}]}], "arguments must be an object"),
        ([{"role": "user", "content": [{"type": "text", "text": "a", "x": {1, 2}}]}], "messages[0].content[0].x is a set"),
        ([{"role": "user", "content": "a", "x": float("nan")}], "messages[0].x is not a finite number"),
        ([{"role": "user", "content": "a", 5: 6}], "messages[0] has a key that is not a string"),
    ],
)  # fmt: skip
def test_bad_messages_are_refused_with_their_place(given: object, where: str) -> None:
    assert where in refusal(given)


@pytest.mark.parametrize(
    ("given", "place", "read"),
    [
        ([USER, result("x")], 1, ["user Hi", "tool x"]),
        ([result("x", tool_call_id="gone"), USER], 0, ["tool x", "user Hi"]),
        ([calling("a"), USER, calling("b"), result("x", tool_call_id="a")], 3, ["call", "user Hi", "call", "tool x"]),
        ([calling("a"), result("x"), USER, result("y")], 3, ["call", "tool x", "user Hi", "tool y"]),
        ([calling("a", "b"), result("x", tool_call_id="c"), result("y", tool_call_id="a")], 1, ["call", "tool y", "tool x"]),
        ([calling("a"), result("x", tool_call_id="a"), result("y", tool_call_id="a")], 2, ["call", "tool x", "tool y"]),
        ([calling("a"), result("x"), result("y")], 2, ["call", "tool x", "tool y"]),
    ],
)  # fmt: skip
def test_results_whose_calls_are_gone_are_read_where_they_stand(given: Any, place: int, read: list[str]) -> None:  # noqa: ANN401 - JSON
    notes: Notes = []
    written = messages(given, notes)
    assert ["call" if message.tool_calls else f"{message.role} {message.content}" for message in written] == read
    assert [where for where, _ in notes] == [f"messages[{place}]"]


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
    custom = {"id": "x", "type": "custom", "custom": {"name": "patch", "input": "a\nb"}}
    assert one({"role": "assistant", "tool_calls": [custom]}).tool_calls == (ToolCall("patch", {"input": "a\nb"}),)
    nothings: list[object] = ["", " ", None, "{}", {}]
    for nothing in nothings:
        assert one(
            {"role": "assistant", "tool_calls": [{"function": {"name": "a.b-c/d", "arguments": nothing}}]}
        ).tool_calls == (ToolCall("a.b-c/d", {}),)
    assert one({"role": "assistant", "content": "a", "tool_calls": []}) == Message("assistant", "a")
    assert one({"role": "assistant", "content": "a", "tool_calls": None}) == Message("assistant", "a")
    assert one(calling("x")).tool_calls[0].id == "x"
    assert one({"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}).tool_calls[0].id.startswith("call_")


@pytest.mark.parametrize("function", [{"name": ""}, {"name": None}, {"arguments": "{}"}])
def test_a_call_without_a_name_does_not_end_the_conversation(function: dict[str, Any]) -> None:
    assert one({"role": "assistant", "tool_calls": [{"id": "x", "function": function}]}).tool_calls == (
        ToolCall(NAMELESS, {}),
    )


def test_a_text_that_is_null_is_none() -> None:
    parts = [{"type": "text", "text": None}, {"type": "text", "text": "Hi"}]
    assert one({"role": "user", "content": parts}) == Message("user", "\nHi")


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
    parts: list[dict[str, Any]] = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "A"}]
    assert one({"role": "assistant", "content": parts}) == wanted
    assert (
        one({"role": "assistant", "content": [*reversed(parts), {"type": "redacted_thinking", "data": "x"}]}) == wanted
    )
    assert one({"role": "user", "content": "<think>x</think>"}) == Message("user", "<think>x</think>")


PICTURE = "data:image/png;base64,iVBORw0KGgo="
SOURCE = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
ARTICLE = {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}
NOTE = {"type": "text", "media_type": "text/plain", "data": "Buy milk."}
FOUND = {"type": "web_search_result", "title": "Oslo", "url": "https://oslo.example", "encrypted_content": "x" * 500}


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ({"type": "image_url", "image_url": {"url": PICTURE}}, "[image, image/png, 8 bytes]"),
        ({"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}, "[image, https://a.example/b.png]"),
        ({"type": "input_image", "image_url": PICTURE, "detail": "auto"}, "[image, image/png, 8 bytes]"),
        ({"type": "image", "source": SOURCE}, "[image, image/png, 8 bytes]"),
        ({"type": "image", "data": "iVBORw0KGgo=", "mimeType": "image/png"}, "[image, image/png, 8 bytes]"),
        ({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}, "[audio, wav, 4 bytes]"),
        ({"type": "document", "title": "A.pdf", "source": ARTICLE}, "[document, A.pdf, application/pdf, 4 bytes]"),
        ({"type": "document", "source": NOTE}, "[document, text/plain]\nBuy milk."),
        ({"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "a"}]}}, "[document]\na"),
        ({"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,SGk="}}, "[file, a.txt, text/plain]\nHi"),
        ({"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}, "[file, a.pdf, application/pdf, 4 bytes]"),
        ({"type": "tool_reference", "tool_name": "get_weather"}, "[tool_reference, get_weather]"),
        ({"type": "search_result", "title": "Oslo", "source": "https://oslo.example", "content": [{"type": "text", "text": "Rain."}]}, "[search_result, Oslo, https://oslo.example]\nRain."),
        ({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "Oslo"}}, '[server_tool_use, web_search, {"query": "Oslo"}]'),
        ({"type": "web_search_tool_result", "tool_use_id": "s", "content": [FOUND]}, "[web_search_tool_result, s]\n[web_search_result, Oslo, https://oslo.example]"),
        ({"type": "resource", "resource": {"uri": "file:///a", "text": "Hi"}}, "[resource, file:///a]\nHi"),
        ({"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, "Hm."),
        ({"type": "nobody knows this", "text": "but its text"}, "[nobody knows this]\nbut its text"),
    ],
)  # fmt: skip
def test_parts_that_are_no_text_become_lines_in_histories(part: dict[str, Any], text: str) -> None:
    """A part that is refused would end a session for good."""
    notes: list[tuple[str, str]] = []
    history = [
        calling("a"),
        result([part], tool_call_id="a"),
        {"role": "user", "content": ["See:", part]},
        calling("b"),
        USER,
    ]
    found = messages(history, notes)
    assert found[1].content == text
    assert found[2].content == f"See:\n{text}"
    seen = bool(re.match(r"\[(image|audio)", text))
    assert notes == [(place, notes[0][1]) for place in ("messages[1].content[0]", "messages[2].content[1]") if seen]


def test_an_answer_that_is_begun_does_not_make_its_question_history() -> None:
    part = {"type": "image_url", "image_url": {"url": PICTURE}}
    assert "does not support images" in refusal(
        [USER, {"role": "user", "content": [part]}, {"role": "assistant", "content": "It"}]
    )
    assert "does not support images" in refusal([{"role": "user", "content": [part]}, USER])


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


def test_many_calls_and_results_take_time_that_grows_with_their_number() -> None:
    started = time.process_time()
    ids = [f"call_{number}" for number in range(10_000)]
    talk = [calling(*ids), *(result("x", tool_call_id=name) for name in reversed(ids))]
    assert [message.tool_call_id for message in messages(talk)[1:]] == ids
    without_ids = [calling(*[None] * 4_000), *[result("x", name="f1")] * 4_000]
    assert len(messages(without_ids)) == 4_001
    assert time.process_time() - started < 10  # 30 s with a search for each


def test_calls_that_share_an_id_get_their_results_in_order() -> None:
    talk = [calling("a", "a"), result("1", tool_call_id="a"), result("2", tool_call_id="a")]
    assert [(message.content, message.name) for message in messages(talk)[1:]] == [("1", "f0"), ("2", "f1")]


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
