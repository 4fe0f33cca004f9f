"""Questions of MCP servers, with the rig of tests/mcp_server.py as a real process."""

from __future__ import annotations

import json
import sys
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from conftest import HANG, REPOSITORY

from hermes_cli.prompting.messages import ToolCall
from hermes_cli.tools.config import McpCommand
from hermes_cli.tools.elicitation import read_field
from hermes_cli.tools.toolbox import Consent, Toolbox

TESTS = REPOSITORY / "tests"
LISTED = json.dumps([[{"name": "ask", "inputSchema": {"type": "object"}}]])
OLD = McpCommand("shop", (sys.executable, str(TESTS / "plain_mcp_server.py"), LISTED))
NEW = McpCommand("rig", (sys.executable, str(TESTS / "mcp_server.py")))  # of the protocol of 2026, without a way back
FORM = {
    "message": "What shall it be?",
    "requestedSchema": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 2, "description": "who it is for"},
            "count": {"type": "integer", "minimum": 1, "maximum": 9},
            "gift": {"type": "boolean", "default": False},
            "size": {"type": "string", "enum": ["small", "large"], "default": "small"},
            "note": {"type": "string"},
        },
        "required": ["name", "count"],
    },
}
PAGE = {"mode": "url", "message": "Pay there.", "url": "https://shop.example/pay?id=7", "elicitationId": "7"}


class Typist:
    """Answers questions in turn, and keeps them."""

    def __init__(self, *answers: str | BaseException) -> None:
        self._answers = list(answers)
        self.questions: list[str] = []

    def __call__(self, question: str) -> str:
        self.questions.append(question)
        answer = self._answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


@contextmanager
def connected(server: McpCommand, ask: Callable[[str], str] | None, told: list[str] | None = None) -> Iterator[Toolbox]:
    toolbox = Toolbox(Consent(ask, everything=True), ([] if told is None else told).append, timeout=HANG)
    try:
        toolbox.begin([server])
        toolbox.ready()
        yield toolbox
    finally:
        toolbox.close()


def asked(request: object, ask: Callable[[str], str] | None, told: list[str] | None = None) -> object:
    """What a server is answered that asks in the middle of a call."""
    with connected(OLD, ask, told) as toolbox:
        return json.loads(toolbox.run(ToolCall("ask", {"request": request})).text)


def test_a_form_is_filled_in_field_by_field() -> None:
    told: list[str] = []
    typist = Typist("y", "A", "Ann", "none", "12", "3", "perhaps", "yes", "LARGE", "")
    content = {"name": "Ann", "count": 3, "gift": True, "size": "large"}
    assert asked(FORM, typist, told) == {"action": "accept", "content": content}
    first, name = typist.questions[:2]
    assert first.startswith("shop asks: What shall it be?\n")
    assert name == "name - who it is for (text, from 2 characters): "
    assert "count (a whole number, 1 to 9): " in typist.questions
    assert "one of small, large; empty is small" in typist.questions[-2]
    assert told == [
        "name: type at least 2 characters",
        "count: type a whole number",
        "count: type a number from 1 to 9",
        "gift: type yes or no",
    ]


def test_a_server_of_the_newest_protocol_asks_between_two_calls() -> None:
    with connected(NEW, Typist("y", "Ann", "2", "n")) as toolbox:
        assert toolbox.run(ToolCall("order", {})).text == '{"name":"Ann","count":2}'
        assert "decline" in toolbox.run(ToolCall("order", {})).text


def test_defaults_are_what_an_empty_line_means() -> None:
    content = {"name": "Ann", "count": 1, "gift": False, "size": "small"}
    assert asked(FORM, Typist("yes", "Ann", "1", "", "", "")) == {"action": "accept", "content": content}


@pytest.mark.parametrize(
    ("answers", "action"),
    [
        (["n"], "decline"),
        ([""], "decline"),
        (["!"], "cancel"),
        (["y", "Ann", "!"], "cancel"),
        (["y", "A", "A", "A"], "cancel"),
    ],
)
def test_a_user_who_does_not_want(answers: Sequence[str], action: str) -> None:
    assert asked(FORM, Typist(*answers)) == {"action": action}


@pytest.mark.parametrize("ask", [None, Typist(OSError("no terminal"))])
def test_where_nobody_can_be_asked_it_is_declined_and_told(ask: Callable[[str], str] | None) -> None:
    told: list[str] = []
    assert asked(FORM, ask, told) == {"action": "decline"}
    assert told[0].startswith("the MCP server shop asks: What shall it be? It was declined: ")


def test_an_address_is_opened_only_after_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_nothing(url: str) -> bool:
        opened.append(url)
        return False

    monkeypatch.setattr(webbrowser, "open", open_nothing)
    assert asked(PAGE, Typist("n")) == {"action": "decline"}
    assert not opened
    told: list[str] = []
    typist = Typist("y")
    assert asked(PAGE, typist, told) == {"action": "accept"}
    assert PAGE["url"] in typist.questions[0]
    assert opened == [PAGE["url"]]
    assert told == [f"no browser could be started; open it yourself: {PAGE['url']}"]


def test_ctrl_c_at_a_question_ends_the_call() -> None:
    with pytest.raises(KeyboardInterrupt):
        asked(FORM, Typist("y", KeyboardInterrupt()))


def test_forms_that_no_line_can_fill_in_are_declined() -> None:
    told: list[str] = []
    nested = {"type": "object", "properties": {"a": {"type": "object"}}}
    assert asked({"message": "Well?", "requestedSchema": nested}, Typist(), told) == {"action": "decline"}
    assert "more than text and numbers" in told[0]


@pytest.mark.parametrize(
    "field",
    [
        {"oneOf": [1]},
        {"type": ["string", "null"]},
        {"minLength": "a"},
        {"enum": 5},
        {"description": 5},
        {"enum": ["a"], "enumNames": 5},
        {"title": "x" * 30_000},
    ],
)
def test_a_form_with_a_mistake_is_declined_and_ends_nothing(field: object) -> None:
    told: list[str] = []
    form = {"type": "object", "properties": {"a": field}, "required": ["a"]}
    assert asked({"message": "Well?", "requestedSchema": form}, lambda _: "y", told) == {"action": "decline"}
    assert "no valid schema" in told[0] or "too long" in told[0]


@pytest.mark.parametrize(
    ("schema", "typed", "value"),
    [
        ({"type": "string", "enum": ["a", "b"], "enumNames": ["First", "Second"]}, "second", "b"),
        ({"type": "string", "oneOf": [{"const": "#f00", "title": "Red"}]}, "red", "#f00"),
        ({"type": "string", "oneOf": [{"const": "#f00", "title": "Red"}]}, "#F00", "#f00"),
        ({"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 1}, "y, x", ["y", "x"]),
        ({"type": "array", "items": {"anyOf": [{"const": "x", "title": "Ex"}]}}, "ex", ["x"]),
        ({"type": "number", "minimum": 0}, "0.5", 0.5),
        ({"type": "boolean"}, "No", False),
        ({}, "any text", "any text"),
        ({"type": "integer", "default": 4}, "", 4),
    ],
)
def test_fields_of_all_kinds(schema: dict[str, Any], typed: str, value: object) -> None:
    assert read_field(typed, schema) == value


@pytest.mark.parametrize(
    ("schema", "typed", "reason"),
    [
        ({"type": "string"}, "", "at least 1 char"),
        ({"type": "string", "maxLength": 2}, "abc", "0 to 2 characters"),
        ({"type": "string", "enum": ["a", "b"]}, "c", "one of a, b"),
        ({"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 1}, "z", "1 to 2 of x, y"),
        ({"type": "number", "maximum": 1}, "2", "to 1"),
        ({"type": "integer"}, "1.5", "whole number"),
    ],
)
def test_what_is_no_value_is_said(schema: dict[str, Any], typed: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_field(typed, schema)
