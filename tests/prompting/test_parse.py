"""The parser against Hermes' wire forms; every case is fed whole, by character, and cut at every position."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from turns import Turn, cut, events_of, turn_of

from hermes_cli.prompting.messages import CallFinished, CallStarted, Content, Reasoning, ToolCall
from hermes_cli.prompting.parse import Parser

CASES = [
    json.loads(line) for line in (Path(__file__).parent / "cases.jsonl").read_text(encoding="utf-8").strip().split("\n")
]
BLOCK = '<tool_call>\n{"name": "ferry_times", "arguments": {"port": "Kiel"}}\n</tool_call>'
CALL = ToolCall("ferry_times", {"port": "Kiel"})


def _parser(case: dict[str, Any]) -> Parser:
    return Parser(tools=case.get("tools"), prompt_opens_think=case.get("prompt_opens_think", False))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_whole_and_by_character_and_cut_anywhere(case: dict[str, Any]) -> None:
    text = case["text"]
    calls = tuple(ToolCall(name, arguments) for name, arguments in case["calls"])
    expected = Turn(case["content"] or "", case["reasoning"] or "", calls)
    assert turn_of([text], _parser(case)) == expected, case["why"]
    assert turn_of(text, _parser(case)) == expected
    for at in range(1, len(text)):
        assert turn_of([text[:at], text[at:]], _parser(case)) == expected


FRAGMENTS = [
    *("<think>", "</think>", "<scratch_pad>", "</scratch_pad>", "<tool_call>", "</tool_call>", "<|im_end|>"),
    *("<", "</", "<tool_", "call>", "<thi", "nk>", "<|im_", "`", "```", "```json\n"),
    *("\n", " ", "\u00a0", "a", "é🚀", "\x00", "\ud800", "Let me look.\n"),
    *(
        '{"name": "f"}',
        '{"name": "f", "arguments": {',
        "{'name': 'g', 'arguments': {'x': '\"'}}",
        '"a": "',
        '\\"',
        "\\u00",
    ),
    *('"', "'", "{", "}", "[", "]", ",", ":", "\\", "1", "-", "true", "None", '{"a": "</tool_call>"}', "oops"),
    BLOCK,
]
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=14).map("".join)


@given(TEXTS, st.booleans(), st.booleans(), st.data())
def test_how_the_text_is_cut_never_matters(
    text: str,
    prompt_opens_think: bool,  # noqa: FBT001 - drawn
    early: bool,  # noqa: FBT001 - drawn
    data: st.DataObject,
) -> None:
    def parser() -> Parser:
        return Parser(prompt_opens_think=prompt_opens_think, early=early)

    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=6))
    whole = turn_of([text], parser())
    assert turn_of(cut(text, cuts), parser()) == whole
    assert turn_of(text, parser()) == whole


TAGS = ("<tool_call>", "</tool_call>", "<think>", "</think>", "<scratch_pad>", "</scratch_pad>", "<|im_end|>")
CALLS = {
    "one": '{"name": "one", "arguments": {"text": "a </tool_call> \\" <think> b"}}',
    "two": "{'arguments': {'x': None}, 'name': 'two'}",
    "three": '{\n"name": "three",\n"arguments": "{\\"x\\": 1}"\n}',
}


def _later(text: str, places: set[int]) -> set[int]:
    """These places and those behind what may be dropped there: white space, tags, the signs around calls."""
    found, new = set(places), set(places)
    while new:
        tags = {at + len(tag) for at in new for tag in TAGS if text.startswith(tag, at)}
        signs = {at + 1 for at in new if text[at : at + 1].isspace() or text.startswith(("`", "}"), at)}
        new = (tags | signs) - found
        found |= new
    return found


def _behind(piece: str, text: str, places: set[int]) -> set[int]:
    return {at + len(piece) for at in _later(text, places) if text.startswith(piece, at)}


def _account(text: str, parser: Parser) -> None:
    """Every character is given out once, in order, or belongs to a call, a tag, or white space at an end."""
    places = {0}
    for event in events_of([text], parser):
        if isinstance(event, CallStarted):
            places = _behind(CALLS[event.name], text, places)
        elif isinstance(event, Content | Reasoning):
            for character in "".join(event.text.split()):
                places = _behind(character, text, places)
        assert places, event
    assert len(text) in _later(text, places)


WORDS = ["word", "Look:\n", "<b", "{oops", "[1]", "\n", " ", "<tool_", "ünï"]


@given(st.lists(st.sampled_from([*TAGS, *CALLS.values(), *WORDS]), max_size=12).map("".join), st.booleans())
def test_nothing_is_lost_doubled_or_invented(text: str, prompt_opens_think: bool) -> None:  # noqa: FBT001 - drawn
    _account(text, Parser(prompt_opens_think=prompt_opens_think))


@given(st.text(max_size=80).filter(lambda text: "<t" not in text and "<s" not in text))
def test_text_without_tags_passes_unchanged(text: str) -> None:
    assert turn_of(text) == Turn(text.strip())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text(min_size=1, max_size=10).filter(lambda name: name.isprintable() and bool(name.strip()))


@given(NAMES, st.dictionaries(st.text(max_size=5), JSON, max_size=4), st.booleans(), st.sampled_from([None, 2]))
def test_a_call_in_the_wire_form_comes_back(
    name: str,
    arguments: dict[str, Any],
    ascii_only: bool,  # noqa: FBT001 - drawn
    indent: int | None,
) -> None:
    call = {"name": name, "arguments": arguments}
    text = json.dumps(call, ensure_ascii=ascii_only, indent=indent)
    turn = turn_of(f"<tool_call>\n{text}\n</tool_call>")
    assert turn == Turn(calls=(ToolCall(name, arguments),))
    if not indent:
        assert turn.written[0] == json.dumps(arguments, ensure_ascii=ascii_only)
    assert turn_of(f"<tool_call>\n{call!r}\n</tool_call>") == turn  # and as Python writes it


def test_arguments_are_given_out_as_they_were_written() -> None:
    arguments = '{"big": 12345678901234567890123, "exp": 1E+2, "long": 0.1000000000000000055, "s": "\\u00e9\\/"}'
    (written,) = turn_of([f'<tool_call>{{"name": "f", "arguments": {arguments}}}</tool_call>']).written
    assert written == arguments


def test_python_is_given_out_as_json() -> None:
    text = "<tool_call>{'name': 'f', 'arguments': {'a': [None, .5, 'it\\'s \"x\"\n'],}}</tool_call>"
    (written,) = turn_of([text]).written
    assert written == '{"a": [null, 0.5, "it\'s \\"x\\"\\n"]}'


def test_text_is_given_out_at_once() -> None:
    parser = Parser()
    assert parser.feed("Let me") == [Content("Let me")]
    assert parser.feed(" look. <") == [Content(" look.")]
    assert parser.feed("b") == [Content(" <b")]
    assert parser.feed("\n<think>so") == [Reasoning("so")]
    assert parser.feed("</think>") == []
    assert parser.feed("<tool_call>n") == [Content("\n<tool_call>n")]
    assert parser.feed(BLOCK[:-1]) == []
    assert [type(event).__name__ for event in parser.feed(">")] == ["CallStarted", "CallArguments", "CallFinished"]
    assert parser.finish() == []


def test_a_broken_block_is_given_out_when_it_breaks() -> None:
    parser = Parser()
    assert parser.feed('<tool_call>{"name": "f", "arguments": {"a"') == []
    assert parser.feed(" 1") == [Content('<tool_call>{"name": "f", "arguments": {"a" 1')]


def test_finished_calls_are_whole() -> None:
    assert [event.complete for event in events_of([BLOCK, BLOCK]) if isinstance(event, CallFinished)] == [True, True]


@pytest.mark.parametrize("depth", [498, 499, 500, 20_000])
def test_nesting_has_a_limit_that_json_can_still_write(depth: int) -> None:
    text = f'<tool_call>{{"name": "f", "arguments": {{"a": {"[" * (depth - 2)}{"]" * (depth - 2)}}}}}</tool_call>'
    turn = turn_of([text])
    if depth <= 500:
        assert json.dumps(turn.calls[0].arguments) == turn.written[0]
    else:
        assert turn == Turn(text)


def test_a_number_too_long_for_python_is_text() -> None:
    for digits, is_call in ((4300, True), (4301, False)):
        text = f'<tool_call>{{"name": "f", "arguments": {{"a": {"7" * digits}}}}}</tool_call>'
        assert (len(turn_of([text]).calls) == 1) is is_call


def _seconds(text: str) -> float:
    parser, started = Parser(), time.process_time()
    for at in range(0, len(text), 4):
        parser.feed(text[at : at + 4])
    parser.finish()
    return time.process_time() - started


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "again"),
    [
        ('<tool_call>{"name": "f", "arguments": {"x": "', "word \\n"),
        ("", "<tool_call>\n"),
        ("", "<tool_call> {oops} </tool_call>"),
        ('<tool_call>{"x": "', "</tool_call> <tool_call>"),
        ('<tool_call>["</tool_call><tool_call>[', '","'),
        ("<think>", '<tool_call>{"name": "f"}</tool_call>'),
        ("<think>", '<tool_call>{"name": "f </thi'),
        ("", "<|im_end|>"),
        ("x", " "),
    ],
)
def test_time_grows_with_length_only(start: str, again: str) -> None:
    short, long = (start + again * (size // len(again)) for size in (5_000, 80_000))
    _seconds(short)
    # Processor time, whatever else runs: 16 times as much for 16 times the text, and not 256 times.
    assert min(_seconds(long) for _ in range(2)) < 16 * 4 * min(_seconds(short) for _ in range(3))
