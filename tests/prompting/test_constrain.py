from importlib import import_module
from typing import Any

import pytest
from grammar_walk import accepts, grammar_of, walk
from hypothesis import given, note
from hypothesis import strategies as st

from hermes_cli.errors import UsageError
from hermes_cli.prompting.messages import CallFinished
from hermes_cli.prompting.parse import Parser
from hermes_cli.prompting.structured_output import choice, gbnf, json_object, json_schema, lark, regex, tool_calls
from hermes_cli.prompting.turn_grammar import TAGS, THOUGHTS, AnswerGrammar, SpecialTokens, Thinking, turn_grammar

Validator = import_module("jsonschema").Draft202012Validator  # it has no types

Json = Any


def tool(name: str, properties: Json = None, **words: Json) -> Json:
    parameters = {"type": "object", "properties": properties or {}, **words}
    return {"type": "function", "function": {"name": name, "description": "…", "parameters": parameters}}


CITY = {"city": {"type": "string"}}
WEATHER = tool("get_weather", CITY, required=["city"])
TOOLS = [WEATHER, tool("a.b-c/ä", {"n": {"type": "integer"}, "on": {"type": ["boolean", "null"]}}), tool("now")]
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


def turn(text: str, tools: Json = TOOLS, tool_choice: Json = "auto", *, parallel: bool = True,
         answer: AnswerGrammar | None = None, thinking: Thinking = "no") -> bool:  # fmt: skip
    """Whether a turn may be this text."""
    return accepts(grammar_of(answer, tool_calls(tools, tool_choice, parallel=parallel), thinking), text)


def refusal(tools: Json, tool_choice: Json = "auto") -> tuple[str, str]:
    with pytest.raises(UsageError) as caught:
        tool_calls(tools, tool_choice)
    return caught.value.message, caught.value.hint


# What else may be asked for


def test_json_object() -> None:
    grammar = grammar_of(json_object())
    assert accepts(grammar, '{"a": [1, {"b": null}]}')
    assert not accepts(grammar, "[]")
    assert not accepts(grammar, ' {"a": 1}')


def test_choice() -> None:
    options = ["yes", "no", "no way", 'say "\\n"', "line\nbreak", "é\u2028", ""]
    grammar = grammar_of(choice([*options, "yes"]))
    assert all(accepts(grammar, option) for option in options)
    assert not any(accepts(grammar, text) for text in ("maybe", "ye", "yesno", "no w"))
    wrong: list[Any] = [[], [1], ["x"] * 10_001]
    for options in wrong:
        with pytest.raises(UsageError):
            choice(options)


def test_lark() -> None:
    grammar = 'start: "x" NUMBER ("," NUMBER)*\nNUMBER: /[0-9]+/ // digits'
    assert accepts(grammar_of(lark(grammar)), "x1,22")
    assert not accepts(grammar_of(lark(grammar)), "x1,")
    assert accepts(grammar_of(lark('start: %json {"type": "array"}')), "[1 , 2]")  # as the author's options say
    for wrong, part in (('a: "x"', "no start rule"), ("start: b", "unknown name"), ('start: "x', "lexer error")):
        with pytest.raises(UsageError, match=f"the Lark grammar cannot be enforced: .*{part}"):
            lark(wrong)


GBNF = r"""
root ::= (item "\n")+   # a list
item ::= "- " word (", " word)* start?
word ::= [a-zà-\u00ff\U0001F600]+
start ::= "\x21" | "\u2026" | "\\u0041"
"""


def test_gbnf() -> None:
    grammar = grammar_of(gbnf(GBNF))
    for text in ("- a\n", "- é, 😀!\n- b…\n", "- a\\u0041\n"):
        assert accepts(grammar, text), text
    for text in ("- A\n", "- a", "- aA\n"):
        assert not accepts(grammar, text), text
    for wrong in (
        "root ::= none",
        'a ::= "x"',
        'root ::= "x',
        r'root ::= "\ud800"',
        "root = 1",
        "root ::= " + "(" * 9_999,
    ):
        with pytest.raises(UsageError, match="the GBNF grammar cannot be enforced: "):
            gbnf(wrong)


def test_too_much_is_refused() -> None:
    for make in (lark, gbnf, lambda text: choice([text])):
        with pytest.raises(UsageError, match="at most 262,144 are taken"):
            make('start: "' + "x" * 300_000 + '"' if make is lark else 'root ::= "' + "x" * 300_000 + '"')
    with pytest.raises(UsageError, match="4,000"):
        regex("x" * 5_000)


# Tools


def test_calls_in_text() -> None:
    for text in ("Hello!", "", CALL, f"Wait.\n{CALL}\n{NOW}\nDone.", "a <b> </tool_call> {}", "x <tool_call"):
        assert turn(text), text
    for text in (
        CALL.replace("get_weather", "get_news"),
        CALL.replace("city", "town"),
        CALL.replace('"Rome"', "7"),
        CALL.replace('": "', '":"'),
        CALL.replace("\n{", "{"),
        CALL.removesuffix("</tool_call>"),
        "Say <tool_call> to me",
    ):
        assert not turn(text), text


def test_names_and_arguments_are_written_as_trained() -> None:
    assert turn('<tool_call>\n{"name": "a.b-c/ä", "arguments": {"n": 1, "on": null}}\n</tool_call>')
    assert turn('<tool_call>\n{"name": "a.b-c/ä", "arguments": {}}\n</tool_call>')
    assert not turn('<tool_call>\n{"name": "a.b-c/\\u00e4", "arguments": {}}\n</tool_call>')
    assert not turn('<tool_call>\n{"name": "a.b-c/ä", "arguments": {"m": 1}}\n</tool_call>')  # nothing is invented


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object"}, {"type": "object", "properties": {}}])
def test_tools_without_parameters_take_none(parameters: Json) -> None:
    function = {"name": "f"} if parameters is None else {"name": "f", "parameters": parameters}
    tools = [{"type": "function", "function": function}]
    assert turn('<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>', tools)
    assert not turn('<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>', tools)


def test_tools_that_take_anything_say_so() -> None:
    tools = [tool("f", additionalProperties=True), tool("g", {"map": {"type": "object"}})]
    assert turn('<tool_call>\n{"name": "f", "arguments": {"a": [1]}}\n</tool_call>', tools)
    assert turn('<tool_call>\n{"name": "g", "arguments": {"map": {"k": "v"}}}\n</tool_call>', tools)


def test_required_and_named_tools() -> None:
    named = {"type": "function", "function": {"name": "now"}}
    for tool_choice in ("required", named, {"type": "function", "name": "now"}):
        assert turn(NOW, tool_choice=tool_choice)
        assert turn(f"{NOW}\n{NOW}", tool_choice=tool_choice)
        for text in ("", "Hello", f"Hello {NOW}", f"{NOW} Hello", f"{NOW}\n", f"\n{NOW}"):
            assert not turn(text, tool_choice=tool_choice), text
    assert turn(CALL, tool_choice="required")
    assert not turn(CALL, tool_choice=named)


def test_no_call_is_possible_with_none() -> None:
    assert turn("Hello <b>", tool_choice="none")
    for text in (CALL, "say <tool_call>", f"<think>\n{CALL}"):
        assert not turn(text, tool_choice="none"), text


def test_one_call_without_parallel() -> None:
    for tool_choice in ("auto", "required"):
        assert turn(NOW, tool_choice=tool_choice, parallel=False)
        assert not turn(f"{NOW}\n{NOW}", tool_choice=tool_choice, parallel=False)
    assert turn(f"Wait. {NOW}", parallel=False)
    assert not turn(f"{NOW} Done.", parallel=False)


def test_thoughts_are_free() -> None:
    wild = "I could <tool_call> something like {}</tool_call>"
    for think, end in (("<think>", "</think>"), ("<scratch_pad>", "</scratch_pad>")):
        assert turn(f"{think}\n{wild}\n{end}\nHello")
        assert turn(f"Hm.\n  {think}{wild}{end}\n{CALL}")
        assert turn(f"{think}{wild}")  # a turn may end in a thought
        assert not turn(f"{think}{end}\n{wild}")
        assert not turn(f"so {think}{wild}")  # within a line it is no thought (parse.py)


def test_what_is_wanted_comes_after_a_thought() -> None:
    answer = json_schema({"type": "object", "properties": {"a": {"type": "integer"}}})
    required = tool_calls(TOOLS, "required")
    shapes = (('{"a": 1}', answer, None), (NOW, None, required), (NOW, answer, tool_calls(TOOLS)))
    for wanted, answers, calls in shapes:
        no, may = grammar_of(answers, calls), grammar_of(answers, calls, "may")
        inside = grammar_of(answers, calls, "inside")
        for gap in ("", "\n", "\n\n"):
            assert accepts(may, f"<think>\nhm <tool_call> {{</think>{gap}{wanted}")
            assert accepts(inside, f"hm <tool_call></think>{gap}{wanted}")
        assert accepts(may, wanted)
        assert accepts(no, wanted)
        for text in (f"<think>hm</think>\nSo: {wanted}", "<think>hm", f"</think>{wanted}"):
            assert not accepts(may, text), text
        assert not accepts(no, f"<think></think>{wanted}")
        assert not accepts(inside, "hm")


def test_calls_or_an_answer() -> None:
    answer = json_schema({"const": 1})
    for text in ("1", CALL, f"{CALL}\n{NOW}"):
        assert turn(text, answer=answer)
    for text in ("Hello", f"1\n{CALL}", f"{CALL}\n1"):
        assert not turn(text, answer=answer), text
    assert not turn(CALL, tool_choice="none", answer=answer)
    assert not turn("1", tool_choice="required", answer=answer)


def test_nothing_to_constrain() -> None:
    assert tool_calls([]) is None
    assert tool_calls([], "none") is None
    assert turn_grammar(None, None, tokens=SpecialTokens({})) is None


def test_tools_that_cannot_be_offered() -> None:
    assert refusal([WEATHER, WEATHER])[0] == "there are two tools named get_weather."
    named = {"type": "function", "function": {"name": "get_news"}}
    assert refusal(TOOLS, named)[0] == "tool_choice names get_news; offered are: get_weather, a.b-c/ä, now."
    assert refusal([], named)[0] == "tool_choice names get_news; offered are: none."
    assert refusal([], "required")[0] == "tool_choice is `required`, and there are no tools."
    for unknown in ("any", {"type": "function"}, 3, None):
        assert refusal(TOOLS, unknown)[0].startswith("tool_choice is ")
    for nameless in ({}, {"function": {"name": ""}}, {"function": {"name": 3}}, {"function": "f"}, "f", None):
        assert refusal([nameless])[0].startswith("a tool has no name: ")
    assert refusal([tool("f", type="string")])[0] == "the parameters of tool f are of type string, not object."
    assert (
        refusal([{"function": {"name": "f", "parameters": [1]}}])[0]
        == "the parameters of tool f are not a JSON schema."
    )
    unique = {"tags": {"type": "array", "uniqueItems": True}}
    message = "the parameters of tool f: `uniqueItems` at #/properties/tags cannot be enforced."
    assert refusal([WEATHER, tool("f", unique)])[0] == message
    assert refusal([tool(str(number)) for number in range(600)])[0] == "600 tools are too many; at most 512 are taken."
    big = {"x": {"enum": [f"{number:06}" for number in range(9_000)]}}
    assert "their parameters have" in refusal([tool(str(number), big) for number in range(9)])[0]


def test_notes_for_tools_that_are_not_strict() -> None:
    loose = tool("f", {"tags": {"type": "array", "uniqueItems": True}})
    notes: list[str] = []
    assert tool_calls([loose], notes=notes) is not None
    assert notes == ["the parameters of tool f: `uniqueItems` at #/properties/tags cannot be enforced; it is left out."]
    loose["function"]["strict"] = True
    with pytest.raises(UsageError):
        tool_calls([loose], notes=notes)


def calls_in(text: str) -> list[tuple[str, Json]]:
    parser = Parser(tools=["get_weather", "a.b-c/ä", "now"])
    events = [*parser.feed(text), *parser.finish()]
    return [(event.call.name, event.call.arguments) for event in events if isinstance(event, CallFinished)]


SCHEMAS = {one["function"]["name"]: {**one["function"]["parameters"], "additionalProperties": False} for one in TOOLS}


def check_calls(text: str, *, parallel: bool) -> int:
    """The calls that the parser finds are of offered tools, with arguments that conform; how many there are."""
    found = calls_in(text)
    assert parallel or len(found) <= 1
    assert all(Validator(SCHEMAS[name]).is_valid(arguments) for name, arguments in found)
    return len(found)


def ends_in_thought(text: str) -> bool:
    return any(text.rfind(begin) > text.rfind(end) for begin, end in THOUGHTS)


@pytest.mark.slow
@given(
    tool_choice=st.sampled_from(["auto", "required"]),
    parallel=st.booleans(),
    thinking=st.sampled_from(["no", "may"]),
    seed=st.integers(0, 2**32),
)
def test_what_is_written_is_read_as_calls(*, tool_choice: str, parallel: bool, thinking: Thinking, seed: int) -> None:
    written = walk(grammar_of(None, tool_calls(TOOLS, tool_choice, parallel=parallel), thinking), seed)
    note(repr(written))
    if written is not None and not ends_in_thought(written):
        found = check_calls(written, parallel=parallel)
        assert tool_choice == "auto" or found


PIECES = st.sampled_from([*TAGS, "\n", " ", "x", NOW, CALL, '{"name": "now", "arguments": {}}', CALL[:30], CALL[-30:]])


@pytest.mark.slow
@given(pieces=st.lists(PIECES, max_size=8), parallel=st.booleans())
def test_grammar_and_parser_agree_on_what_a_call_is(*, pieces: list[str], parallel: bool) -> None:
    text = "".join(pieces)
    note(repr(text))
    if turn(text, parallel=parallel) and not ends_in_thought(text):
        check_calls(text, parallel=parallel)
    if turn(text, tool_choice="none"):
        assert not calls_in(text)
