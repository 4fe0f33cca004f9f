"""One question from the command line: what goes where, and what the document says."""

from __future__ import annotations

import io

import pytest
from chat_rig import Functions, calling, partner
from fake_engine import Script

from hermes_cli.chat.agent_loop import AgentLoop
from hermes_cli.chat.conversation import Conversation
from hermes_cli.chat.event_loop import EventLoop
from hermes_cli.chat.oneshot import SHOWN_CHARACTERS, PlainView, document
from hermes_cli.chat.options import ChatOptions
from hermes_cli.console import Console
from hermes_cli.engine.protocol import Done
from hermes_cli.prompting.families import HERMES_4


def asked(
    *scripts: Script, manner: ChatOptions | None = None, result: str | None = None, hide_thinking: bool = False
) -> tuple[dict[str, object], str]:
    """The document, and what was written to standard output."""
    out = io.StringIO()
    manner = manner or ChatOptions()
    functions = {} if result is None else {"now": lambda: result}
    with EventLoop() as loop:
        whom = partner(scripts, family=HERMES_4)
        view = PlainView(Console(out=out), whom, manner, hide_thinking=hide_thinking)
        talk = AgentLoop(Conversation(manner), whom, Functions(functions), view, loop)
        outcome = talk.ask("Hi")
    return document(outcome, tools=bool(functions)), out.getvalue()


def test_the_answer_is_shown_and_counted() -> None:
    told, shown = asked(["Hel", "lo"])
    assert shown == "Hello\n"
    assert told["text"] == "Hello"
    assert told["usage"]["completion_tokens"] == 2  # type: ignore[index]  # JSON


def test_calls_and_results_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    told, shown = asked([calling()], ["It is noon."], result="noon" + "!" * SHOWN_CHARACTERS)
    assert shown == "It is noon.\n"
    said = capsys.readouterr().err
    assert "→ now()" in said
    assert "← noon!" in said
    assert "and 4 characters more" in said
    assert told["tool_calls"] == [{"name": "now", "arguments": {}, "result": "noon" + "!" * SHOWN_CHARACTERS}]


def test_without_tools_calls_are_told_as_they_are() -> None:
    told, _ = asked([calling("now")])
    assert told["tool_calls"] == [{"name": "now", "arguments": {}}]
    assert told["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("hidden", [True, False])
def test_reasoning_goes_to_standard_error_unless_it_is_hidden(
    capsys: pytest.CaptureFixture[str], *, hidden: bool
) -> None:
    told, shown = asked(["<think>", "Hmm.", "</think>", "Yes."], hide_thinking=hidden)
    assert shown == "Yes.\n"
    assert told["reasoning"] == "Hmm."
    assert ("(thought: Hmm.)" in capsys.readouterr().err) is not hidden


@pytest.mark.parametrize(
    ("done", "says"),
    [
        (Done("length", 5, 0, 9, 0.1, 0.1), "--max-tokens 9 is used up"),
        (Done("length", 5, 0, 9, 0.1, 0.1, context_full=True), "the context of 4,096 tokens is used up"),
    ],
)
def test_what_cut_an_answer_off_is_named(capsys: pytest.CaptureFixture[str], done: Done, says: str) -> None:
    asked(["Hello", done], manner=ChatOptions(max_tokens=9))
    assert says in capsys.readouterr().err
