from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.errors import UsageError
from hermes_cli.prompting.messages import ToolCall
from hermes_cli.tools.functions import Tool
from hermes_cli.tools.toolbox import MAX_SHOWN, REFUSED, Consent, printable

CALL = ToolCall("get_weather", {"city": "Oslo"})


def tool(name: str = "get_weather", origin: str = "tools.py", description: str = "") -> Tool:
    schema = {"type": "function", "function": {"name": name, "description": description}}
    return Tool(name, schema, origin, lambda _, __: "ran")


class User:
    """Types answers, one after the other."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), list[str]()

    def __call__(self, question: str) -> str:
        self.asked.append(question)
        return self.answers.pop(0)


def test_the_whole_call_and_whose_it_is_are_asked_for() -> None:
    user = User("y", "n")
    consent = Consent(user)
    assert consent.refusal(tool(), CALL) is None
    assert 'Run get_weather(city="Oslo") (tools.py)?' in user.asked[0]
    assert consent.refusal(tool(), CALL) == REFUSED


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        ("y", None),
        ("Yes", None),
        ("yes.", None),
        ("always", None),
        ("", REFUSED),
        ("n", REFUSED),
        ("NO", REFUSED),
        ("no, not in that folder", f"{REFUSED}: not in that folder"),
        ("use celsius", f"{REFUSED}: use celsius"),
        ("yesterday", f"{REFUSED}: yesterday"),
        ("not now", f"{REFUSED}: not now"),
        ("y but not today", f"{REFUSED}: y but not today"),
    ],
)
def test_answers(answer: str, refusal: str | None) -> None:
    assert Consent(User(answer)).refusal(tool(), CALL) == refusal


@given(st.text())
def test_only_a_clear_yes_runs_a_call(answer: str) -> None:
    allowed = Consent(User(answer)).refusal(tool(), CALL) is None
    assert allowed == (answer.strip().lower().strip(",.:;!") in {"y", "yes", "a", "always"})


def test_always_is_for_that_tool_as_it_was() -> None:
    user = User("a", "n", "n", "n")
    consent = Consent(user)
    assert consent.refusal(tool(), CALL) is None
    assert consent.refusal(tool(), CALL) is None
    assert consent.allows(tool())
    for other in (tool(name="other"), tool(origin="mcp: files"), tool(description="Now it deletes.")):
        assert consent.refusal(other, CALL) == REFUSED
    assert len(user.asked) == 4


def test_what_was_allowed_beforehand_is_not_asked_for() -> None:
    consent = Consent(None, allow=["get_weather", "files_*"])
    assert consent.bind([tool(), tool("files_read")]) == []
    assert consent.refusal(tool(), CALL) is None
    assert consent.refusal(tool("files_read"), CALL) is None
    assert not consent.allows(tool("write_files_now"))
    assert Consent(None, everything=True).refusal(tool("write_files_now"), CALL) is None


def test_an_allowed_name_stays_with_who_had_it_first() -> None:
    consent = Consent(None, allow=["read", "write_*"])
    good, later = tool("read", "mcp: good"), tool("read", "mcp: shadow")
    assert not consent.allows(good)  # nobody has been seen with that name
    assert consent.bind([good]) == []
    assert consent.bind([later, tool("write_a", "mcp: good")]) == []
    assert consent.allows(good)
    assert not consent.allows(later)
    assert not consent.allows(tool("write_a", "mcp: shadow"))


def test_a_pattern_for_the_tools_of_several_servers_allows_none() -> None:
    consent = Consent(None, allow=["write_*", "b:write_*", "*:read"])
    one, two = tool("write_a", "mcp: a"), tool("write_b", "mcp: b")
    (warning,) = consent.bind([one, two])
    assert warning.endswith("say which: a:write_*, b:write_*")
    assert [consent.allows(each) for each in (one, two)] == [False, True]
    assert consent.allows(tool("read", "mcp: anybody"))
    assert Consent(None, allow=["*"]).allows(one)


def nobody(_: str) -> str:
    raise OSError


@pytest.mark.parametrize("ask", [None, nobody])
def test_where_nobody_can_be_asked(ask: Callable[[str], str] | None) -> None:
    with pytest.raises(UsageError, match="there is no terminal to ask on") as caught:
        Consent(ask).refusal(tool(), CALL)
    assert 'get_weather(city="Oslo")' in caught.value.message
    assert "--allow" in caught.value.hint
    assert "--yes" in caught.value.hint


def test_letters_that_deceive_are_written_out() -> None:
    call = ToolCall("run", {"a\x1b]0;": "rm \u202e -rf\u200b / \x9b31m\nhällo 東京"})
    assert printable(call) == r'run(a\x1b]0;="rm \u202e -rf\u200b / \x9b31m\nhällo 東京")'
    hidden = "\u3164\u2800\u115f\uffa0\u034f\u17b4\ufe0f\U000e0150"  # printable to Python
    assert printable(ToolCall("run", {"a": hidden})) == f'run(a="{ascii(hidden)[1:-1]}")'


@given(st.dictionaries(st.text(), st.text()))
def test_a_call_is_one_line_of_what_can_be_seen(arguments: dict[str, Any]) -> None:
    assert printable(ToolCall("f", arguments)).isprintable()


def test_both_ends_of_a_long_call_are_shown() -> None:
    call = ToolCall("write", {"text": "x" * 1_000_000, "path": "/etc/passwd"})
    line = printable(call)
    assert line.startswith('write(text="xxx')
    assert line.endswith('path="/etc/passwd")')
    assert f" … {len(str(call)) - MAX_SHOWN:,} characters left out … " in line
    assert len(line) < MAX_SHOWN + 50
