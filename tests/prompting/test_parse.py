"""The parser against Hermes' wire forms; every case is fed whole, by character, and cut at every position."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.prompting.messages import Content, Parsed, Reasoning, ToolCall
from hermes_cli.prompting.parse import Parser, parse_call

WEATHER = ToolCall("get_weather", {"city": "Tokyo"})
BLOCK = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Tokyo"}}\n</tool_call>'


@dataclass(frozen=True)
class Whole:
    content: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()


def parse(*pieces: str) -> Whole:
    parser = Parser()
    events: list[Parsed] = [event for piece in pieces for event in parser.feed(piece)]
    events += parser.finish()
    assert all(event.text for event in events if not isinstance(event, ToolCall)), "an empty delta"
    return Whole(
        "".join(event.text for event in events if isinstance(event, Content)),
        "".join(event.text for event in events if isinstance(event, Reasoning)),
        tuple(event for event in events if isinstance(event, ToolCall)),
    )


def call(name: str, **arguments: object) -> ToolCall:
    return ToolCall(name, arguments)


CASES = {
    "nothing": ("", Whole()),
    "plain": ("Hello there.", Whole("Hello there.")),
    "spaces around": ("\n\n  Hello  there. \n", Whole("Hello  there.")),
    "call": (BLOCK, Whole(calls=(WEATHER,))),
    "call on one line": (BLOCK.replace("\n", ""), Whole(calls=(WEATHER,))),
    "arguments first": (
        '<tool_call>{"arguments": {"city": "Tokyo"}, "name": "get_weather"}</tool_call>',
        Whole(calls=(WEATHER,)),
    ),
    "two calls": (f"{BLOCK}\n{BLOCK}", Whole(calls=(WEATHER, WEATHER))),
    "text before": (f"I look.\n{BLOCK}", Whole("I look.", calls=(WEATHER,))),
    "text after": (f"{BLOCK}\nDone.", Whole("Done.", calls=(WEATHER,))),
    "text on both sides": (f"A\n{BLOCK}\nB", Whole("A\n\nB", calls=(WEATHER,))),
    "no arguments": ('<tool_call>{"name": "now"}</tool_call>', Whole(calls=(call("now"),))),
    "parameters": ('<tool_call>{"name": "f", "parameters": {"x": 1}}</tool_call>', Whole(calls=(call("f", x=1),))),
    "arguments as a string": (
        '<tool_call>{"name": "f", "arguments": "{\\"x\\": 1}"}</tool_call>',
        Whole(calls=(call("f", x=1),)),
    ),
    "python dict": (
        "<tool_call>{'name': 'f', 'arguments': {'x': True}}</tool_call>",
        Whole(calls=(call("f", x=True),)),
    ),
    "end tag in a string": (
        '<tool_call>{"name": "f", "arguments": {"x": "a </tool_call> b"}}</tool_call>',
        Whole(calls=(call("f", x="a </tool_call> b"),)),
    ),
    "braces in a string": (
        '<tool_call>{"name": "f", "arguments": {"x": "mkdir {a,b}"}}</tool_call>',
        Whole(calls=(call("f", x="mkdir {a,b}"),)),
    ),
    "line break in a string": (
        '<tool_call>{"name": "f", "arguments": {"x": "a\nb"}}</tool_call>',
        Whole(calls=(call("f", x="a\nb"),)),
    ),
    "no end tag": (BLOCK.removesuffix("\n</tool_call>"), Whole(calls=(WEATHER,))),
    "cut off": (BLOCK[:40], Whole(BLOCK[:40])),
    "not JSON": ("<tool_call>get_weather(Tokyo)</tool_call>", Whole("<tool_call>get_weather(Tokyo)</tool_call>")),
    "bad call, then a good one": (
        f"<tool_call>oops</tool_call>\n{BLOCK}",
        Whole("<tool_call>oops</tool_call>", calls=(WEATHER,)),
    ),
    "thought": ("<think>\nHm.\n</think>\n\nYes.", Whole("Yes.", "Hm.")),
    "thought and call": (f"<think>\nHm.\n</think>\n{BLOCK}", Whole(reasoning="Hm.", calls=(WEATHER,))),
    "call inside a closed thought": (f"<think>{BLOCK}</think>No.", Whole("No.", BLOCK)),
    "call in a thought that never closes": (f"<think>\nHm.\n{BLOCK}", Whole(reasoning="Hm.", calls=(WEATHER,))),
    "thought that never closes": ("<think>\nHm, <b", Whole(reasoning="Hm, <b")),
    "almost tags": ("a < b <think not <tool_cal", Whole("a < b <think not <tool_cal")),
    "JSON without tags is text": ('{"name": "f", "arguments": {}}', Whole('{"name": "f", "arguments": {}}')),
}


@pytest.mark.parametrize("case", CASES)
def test_whole_and_by_character_and_cut_anywhere(case: str) -> None:
    text, expected = CASES[case]
    assert parse(text) == expected
    assert parse(*text) == expected
    for cut in range(len(text) + 1):
        assert parse(text[:cut], text[cut:]) == expected


FRAGMENTS = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<",
    "tool",
    "\n",
    " ",
    "a",
    '{"name": "f"}',
    BLOCK,
    '"',
    "}",
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join), st.data())
def test_how_the_text_is_cut_never_matters(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert parse(*pieces) == parse(text)


@given(st.text(max_size=80).filter(lambda text: "<t" not in text))
def test_text_without_tags_passes_unchanged(text: str) -> None:
    assert parse(*text) == Whole(text.strip())


@given(
    st.text(min_size=1, max_size=10),
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), st.lists, max_leaves=5),
        max_size=4,
    ),
)
def test_any_call_comes_back(name: str, arguments: dict[str, object]) -> None:
    text = json.dumps({"name": name, "arguments": arguments})
    assert parse_call(text) == ToolCall(name, arguments)
    assert parse(*f"<tool_call>\n{text}\n</tool_call>") == Whole(calls=(ToolCall(name, arguments),))


@pytest.mark.parametrize(
    "text", ["", "[]", "3", '{"name": 3}', '{"name": ""}', '{"arguments": {}}', '{"name": "f", "arguments": 3}']
)
def test_what_is_no_call(text: str) -> None:
    assert parse_call(text) is None
