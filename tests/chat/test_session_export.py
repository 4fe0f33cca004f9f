"""A conversation as others read it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hermes_cli.chat.conversation import ChatOptions, Conversation
from hermes_cli.chat.sessions.export import as_document, as_json, as_lines, as_markdown, title_of
from hermes_cli.prompting import normalize
from hermes_cli.prompting.messages import Message, ToolCall

CALL = ToolCall("get_weather", {"city": "Tōkyō", "days": [1, 2]}, "call_1")
TALK = [
    Message("user", "How's the weather\nin Tokyo?"),
    Message("assistant", None, (CALL,), "I should\nlook."),
    Message("tool", '{"temperature": 13}', tool_call_id="call_1", name="get_weather"),
    Message("assistant", "**13** degrees."),
]


def held() -> Conversation:
    conversation = Conversation(ChatOptions(system="Be brief."))
    for one in TALK:
        conversation.add(one, model="demo" if one.role == "assistant" else None)
    return conversation


def tokens(markdown: str) -> list[Any]:
    return list(MarkdownIt().parse(markdown))


def test_json_can_be_sent_as_it_is() -> None:
    document = json.loads(as_json(held(), "demo"))
    assert set(document) == {"messages", "model", "created", "system", "summary"}
    assert (document["model"], document["system"], document["summary"]) == ("demo", "Be brief.", None)
    assert document["created"].endswith("Z")
    system, *rest = normalize.messages(document["messages"])
    assert system == Message("system", "Be brief.")
    assert rest == TALK
    assert document["messages"][2]["tool_calls"] == [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "get_weather", "arguments": '{"city": "Tōkyō", "days": [1, 2]}'},
        }
    ]
    assert document["messages"][3] == {"role": "tool", "content": '{"temperature": 13}', "tool_call_id": "call_1"}


def test_json_of_nothing() -> None:
    assert as_document(Conversation(), "") == {
        "messages": [],
        "model": None,
        "created": None,
        "system": None,
        "summary": None,
    }


def test_a_summary_does_not_replace_what_it_stands_for() -> None:
    conversation = held()
    conversation.compact("They asked about Tokyo.", 3)
    document = as_document(conversation, "demo")
    assert len(document["messages"]) == 5
    assert document["summary"] == {"text": "They asked about Tokyo.", "messages": 3}
    markdown = as_markdown(conversation, "demo")
    assert markdown.index("13}") < markdown.index("## Summary of the first 3 messages") < markdown.index("**13**")


def test_markdown() -> None:
    conversation = held()
    conversation.add(Message("assistant", "And then"), model="demo", unfinished=True)
    lines = as_markdown(conversation, "demo").splitlines()
    headings = [one for one in lines if one.startswith("#")]
    assert headings == [
        "# How's the weather in Tokyo?",
        "## System",
        "## User",
        "## Assistant (demo)",
        "## Result (get_weather)",
        "## Assistant (demo)",
        "## Assistant (demo)",
    ]
    assert [one for one in lines if one.startswith(">")] == ["> I should", "> look."]
    assert "Calls `get_weather`:" in lines
    assert lines[-1] == "*(stopped before its end)*"
    fences = [(one.info, one.content) for one in tokens("\n".join(lines)) if one.type == "fence"]
    assert fences[0][0] == "json"
    assert json.loads(fences[0][1]) == CALL.arguments
    assert fences[1] == ("", '{"temperature": 13}\n')


@given(st.text(st.sampled_from("`~ab# \n>"), max_size=40))
def test_no_result_of_a_tool_ends_its_block(text: str) -> None:
    conversation = Conversation()
    conversation.add(Message("tool", text, name="t"))
    conversation.add(Message("assistant", "After."))
    parsed = tokens(as_markdown(conversation, "demo"))
    (fence,) = [one for one in parsed if one.type == "fence"]
    assert fence.content == text.rstrip("\n") + "\n"
    assert [one.content for one in parsed if one.type == "inline"][-1] == "After."


@given(st.text(max_size=60))
def test_reasoning_stays_in_its_quotation(text: str) -> None:
    conversation = Conversation()
    conversation.add(Message("assistant", "After.", (), f"x{text}"))
    parsed = tokens(as_markdown(conversation, "demo"))
    closing = [one.type for one in parsed].index("blockquote_close")
    assert [one.content for one in parsed[closing:] if one.type == "inline"] == ["After."]


def test_lines_to_read() -> None:
    conversation = held()
    conversation.compact("Short.", 1)
    shown = list(as_lines(conversation))
    assert ("I should", "dim italic") in shown
    assert ('→ get_weather(city="Tōkyō", days=[1, 2])', "cyan") in shown
    assert ('{"temperature": 13}', "green") in shown
    assert ("in Tokyo?", "") in shown
    assert ("Short.", "") in shown
    assert not [line for line, _ in shown if "\n" in line]


def test_title() -> None:
    conversation = held()
    assert title_of(conversation) == "How's the weather in Tokyo?"
    conversation.set_title("Weather")
    assert title_of(conversation) == "Weather"
    assert title_of(Conversation()) == ""
