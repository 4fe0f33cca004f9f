"""Calls that are given out while they are written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from turns import Turn, events_of, strictly, turn_of

from hermes_cli.prompting.messages import CallArguments, CallFinished, CallStarted, ToolCall
from hermes_cli.prompting.parse import Parser

ARGUMENTS = {"path": "a.txt", "lines": ["one\n", "zwei \u00e9 \U0001f680"], "mode": {"append": True, "n": -1.5e3}}
BLOCK = f'<tool_call>\n{{"name": "write", "arguments": {json.dumps(ARGUMENTS)}}}\n</tool_call>'
CALL = ToolCall("write", ARGUMENTS)


def early() -> Parser:
    return Parser(early=True)


def test_arguments_come_while_they_are_written() -> None:
    parser = early()
    assert parser.feed('<tool_call>{"name": "write", "arguments"') == []
    started, first = parser.feed(': {"path": "a.t')
    assert isinstance(started, CallStarted)
    assert started.name == "write"
    assert first == CallArguments(0, '{"path": "a.t')
    assert parser.feed("xt\\") == [CallArguments(0, "xt")]
    assert parser.feed('n", "mode') == [CallArguments(0, '\\n"')]
    assert parser.feed('": 12') == []
    assert parser.feed("3}") == [CallArguments(0, ', "mode": 123}')]
    assert parser.feed("}") == [CallFinished(0, ToolCall("write", {"path": "a.txt\n", "mode": 123}))]
    assert parser.feed("\n</tool_call>") == []
    assert parser.finish() == []


def test_it_is_the_same_call() -> None:
    for text in (
        BLOCK,
        f"Now.\n{BLOCK}\n{BLOCK} Done.",
        BLOCK.replace("}\n</", "</"),
        BLOCK.replace("}}}\n</", "</"),
        BLOCK.replace("}\n</", "}}</"),
    ):
        assert turn_of(text, early()) == turn_of([text], early()) == turn_of([text])


def test_a_call_that_is_cut_off_is_closed_and_not_complete() -> None:
    begin = BLOCK.index('{"path"')
    for size in range(len(BLOCK)):
        turn = turn_of([BLOCK[:size]], early())
        if size <= begin:
            assert turn == Turn(BLOCK[:size].strip())
        else:
            assert not turn.content
            assert turn.complete == (size > BLOCK.rindex("}"),)
            assert isinstance(strictly(turn.written[0]), dict)


@given(st.dictionaries(st.text(max_size=3), st.text(max_size=6) | st.lists(st.integers()), max_size=3), st.data())
def test_what_was_given_out_is_a_beginning_of_the_arguments(arguments: dict[str, Any], data: st.DataObject) -> None:
    written = json.dumps(arguments)
    text = f'<tool_call>{{"name": "f", "arguments": {written}}}</tool_call>'
    parser = early()
    events = parser.feed(text[: data.draw(st.integers(0, len(text)))])
    given_out = "".join(event.text for event in events if isinstance(event, CallArguments))
    assert written.startswith(given_out)


@pytest.mark.parametrize(
    "body",
    [
        '{"arguments": {"a": 1}, "name": "f"}',
        '[{"name": "f", "arguments": {"a": 1}}]',
        '{"name": "f", "arguments": "{\\"a\\": 1}"}',
        '{"name": "f", "id": {}, "arguments": {"a": 1}}',
        '{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}',
    ],
)
def test_any_other_form_waits_for_its_end(body: str) -> None:
    parser = early()
    assert parser.feed(f"<tool_call>\n{body}\n") == []
    assert [type(event) for event in parser.feed("</tool_call>")] == [CallStarted, CallArguments, CallFinished]


@pytest.mark.parametrize("name", ['""', '" "', '"\\n"', '"\\ud800"'])
def test_what_cannot_be_a_name_is_no_call(name: str) -> None:
    text = f'<tool_call>{{"name": {name}, "arguments": {{"a": 1}}}}</tool_call>'
    assert turn_of(text, early()) == Turn(text)


def test_what_follows_a_wrong_turn_is_text() -> None:
    turn = turn_of('<tool_call>{"name": "f", "arguments": {"a": 1, "b" 2}}</tool_call>', early())
    assert turn == Turn("2}}</tool_call>", calls=(ToolCall("f", {"a": 1}),))
    assert turn.complete == (False,)


def test_what_comes_after_the_arguments_is_not_among_them() -> None:
    for end in ("", ', "id": {"b": "c', ', "id": {"b": 1}', ', "id"'):
        turn = turn_of(f'<tool_call>{{"name": "f", "arguments": {{"a": 1}}{end}', early())
        assert turn == Turn(calls=(ToolCall("f", {"a": 1}),))
        assert turn.complete == (False,)


def test_a_second_call_in_the_block_is_text() -> None:
    turn = turn_of('<tool_call>{"name": "f", "arguments": {}}, {"name": "g"}</tool_call>', early())
    assert turn == Turn(', {"name": "g"}</tool_call>', calls=(ToolCall("f", {}),))
    assert turn.complete == (True,)


def test_calls_in_thoughts_wait() -> None:
    events = events_of([f"<think>Perhaps {BLOCK} or not.</think>No."], early())
    assert not any(isinstance(event, CallStarted) for event in events)
    assert turn_of(f"<think>Yes: {BLOCK}", early()) == Turn("", "Yes:", (CALL,))
