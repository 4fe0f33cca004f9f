"""Answers that the client has begun: the model goes on with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openai_rig import ASKED, CALL, PARAMETERS, TOOL, House, house, put_together

BEGUN = {"role": "assistant", "content": "It is"}
TALK = [*ASKED, BEGUN]


@pytest.fixture(scope="module")
def rig() -> Iterator[House]:
    with house() as one:
        yield one


def go_on(rig: House, *script: str, **body: object) -> dict[str, Any]:
    """The only choice."""
    answer = rig.chat(script, **{"messages": TALK, **body})
    assert answer.status == 200, answer.body
    (choice,) = answer.json["choices"]
    return dict(choice)


def prompt(rig: House) -> str:
    return "".join(map(str, rig.engine.requests[-1].prompt))


@pytest.mark.parametrize(
    ("body", "continued"),
    [
        ({}, True),
        ({"continue_final_message": True}, True),
        ({"continue_final_message": True, "add_generation_prompt": False}, True),
        ({"add_generation_prompt": False}, True),
        ({"continue_final_message": False}, False),
        ({"add_generation_prompt": True}, False),
    ],
)
def test_a_last_answer_is_continued_unless_the_client_says_otherwise(
    rig: House,
    body: dict[str, Any],
    continued: bool,  # noqa: FBT001
) -> None:
    assert go_on(rig, " 13", " degrees.", **body)["message"]["content"] == (
        " 13 degrees." if continued else "13 degrees."
    )
    assert prompt(rig).endswith(
        "<|im_start|>assistant\nIt is" if continued else "It is<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("begun", "script", "content"),
    [
        ("It is ", ["13"], "13"),
        ("It is ", [" 13"], " 13"),
        ("1.\n", ["2.\n"], "2."),
        ("a < b", [" <c", "> d"], " <c> d"),
        ("It is", [" <|im_end|>"], ""),
    ],
)
def test_white_space_where_it_goes_on_is_kept(rig: House, begun: str, script: list[str], content: str) -> None:
    talk = [*ASKED, {"role": "assistant", "content": begun}]
    whole = go_on(rig, *script, messages=talk)
    assert whole["message"]["content"] == content
    rig.says(script)
    streamed = rig.post("/v1/chat/completions", {"messages": talk, "stream": True})
    assert put_together(streamed.body)[0]["content"] == content


def test_an_answer_that_is_begun_with_nothing_is_not_begun(rig: House) -> None:
    nothings: list[Any] = ["", None, []]
    for content in nothings:
        go_on(rig, "Hi", messages=[*ASKED, {"role": "assistant", "content": content}])
        assert prompt(rig).endswith("Hi<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("think", [True, False])
def test_after_a_thought(rig: House, think: bool) -> None:  # noqa: FBT001
    talk = [*ASKED, {**BEGUN, "reasoning_content": "Hm."}]
    message = go_on(rig, " 13.", messages=talk, think=think)["message"]
    assert (message["content"], message.get("reasoning_content")) == (" 13.", None)
    assert prompt(rig).endswith("<|im_start|>assistant\n<think>\nHm.\n</think>\nIt is")


def test_in_a_thought(rig: House) -> None:
    for begun in ({"content": None, "reasoning_content": "Hm"}, {"content": "<think>\nHm"}):
        message = go_on(rig, ", well", ".\n</think>\n", "13.", messages=[*ASKED, {"role": "assistant", **begun}])[
            "message"
        ]
        assert (message["reasoning_content"], message["content"]) == (", well.", "13.")
        assert prompt(rig).endswith("<|im_start|>assistant\n<think>\nHm")
        reasoning = rig.engine.requests[0].reasoning
        assert reasoning
        assert reasoning.inside


def test_a_call_may_be_begun(rig: House) -> None:
    for cut in (20, 45, 60):
        talk = [*ASKED, {"role": "assistant", "content": CALL[:cut]}]
        choice = go_on(rig, CALL[cut:], messages=talk, tools=[TOOL])
        (call,) = choice["message"]["tool_calls"]
        assert (call["function"]["name"], call["function"]["arguments"]) == ("get_weather", '{"city": "Oslo"}')
        assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")


def test_the_grammar_knows_what_was_begun(rig: House) -> None:
    schema = {"type": "json_schema", "json_schema": {"schema": PARAMETERS}}
    go_on(rig, ' "Oslo"}', messages=[*ASKED, {"role": "assistant", "content": '{"city":'}], response_format=schema)
    assert rig.engine.requests[0].grammar_prefix == ('{"city":', '{"city": ')
    talk = [*ASKED, {"role": "assistant", "content": "{", "reasoning_content": "Hm."}]
    go_on(rig, '"city": "Oslo"}', messages=talk, response_format=schema, think=True)
    assert rig.engine.requests[0].grammar_prefix == ("{", "{")
    assert "lead" not in (rig.engine.requests[0].grammar or "")  # no second thought


def test_echo_gives_the_beginning_back(rig: House) -> None:
    assert go_on(rig, " 13.", echo=True)["message"]["content"] == "It is 13."
    assert go_on(rig, "Hello.", echo=True, messages=ASKED)["message"]["content"] == "Hello."


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("continue_final_message", {"continue_final_message": True, "add_generation_prompt": True}),
        ("continue_final_message", {"continue_final_message": True, "messages": ASKED}),
        ("add_generation_prompt", {"add_generation_prompt": False, "messages": ASKED}),
        ("add_generation_prompt", {"add_generation_prompt": False, "continue_final_message": False}),
    ],
)
def test_where_nothing_can_be_continued_that_is_refused(rig: House, param: str, body: dict[str, Any]) -> None:
    assert rig.refused(**{"messages": TALK, **body})["param"] == param


def test_messages(rig: House) -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    for content in ("It is", [{"type": "text", "text": "It is"}], [thought, {"type": "text", "text": "It is"}]):
        rig.says([" 13", "."])
        talk = [*ASKED, {"role": "assistant", "content": content}]
        body = {"messages": talk, "max_tokens": 9}
        assert rig.post("/v1/messages", body).json["content"] == [{"type": "text", "text": " 13."}]
        assert prompt(rig).endswith("It is")
    call = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    refused = rig.post(
        "/v1/messages", {"messages": [*ASKED, {"role": "assistant", "content": [call]}], "max_tokens": 9}
    )
    assert refused.error["message"].startswith("messages[1] ends with calls")


def test_responses_always_begin_another_turn(rig: House) -> None:
    rig.says(["Hi"])
    rig.post("/v1/responses", {"input": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "It is"}]})
    assert prompt(rig).endswith("It is<|im_end|>\n<|im_start|>assistant\n")
