"""One question from the command line: what goes where, and what the document says."""

from __future__ import annotations

import io

import pytest
from chat_rig import Functions, calling, scripted_backend
from fake_engine import Script

from hermes_cli.chat.agent_loop import AgentLoop
from hermes_cli.chat.conversation import ChatOptions, Conversation
from hermes_cli.chat.view import SHOWN_CHARACTERS, PlainView
from hermes_cli.console import Console
from hermes_cli.engine.protocol import Done
from hermes_cli.event_loop import EventLoop
from hermes_cli.prompting.families import HERMES_4


def asked(
    *scripts: Script, options: ChatOptions | None = None, result: str | None = None, hide_thinking: bool = False
) -> tuple[dict[str, object], str]:
    """The document, and what was written to standard output."""
    out = io.StringIO()
    options = options or ChatOptions()
    functions = {} if result is None else {"now": lambda: result}
    with EventLoop() as loop:
        backend = scripted_backend(scripts, family=HERMES_4)
        view = PlainView(Console(out=out), backend, options, hide_thinking=hide_thinking)
        agent = AgentLoop(Conversation(options), backend, Functions(functions), view, loop)
        result_of_question = agent.ask("Hi")
    return result_of_question.as_document(tools=bool(functions)), out.getvalue()


def test_the_answer_is_shown_and_counted() -> None:
    document, shown = asked(["Hel", "lo"])
    assert shown == "Hello\n"
    assert document["text"] == "Hello"
    assert document["usage"]["completion_tokens"] == 2  # type: ignore[index]  # JSON


def test_calls_and_results_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    document, shown = asked([calling()], ["It is noon."], result="noon" + "!" * SHOWN_CHARACTERS)
    assert shown == "It is noon.\n"
    stderr = capsys.readouterr().err
    assert "→ now()" in stderr
    assert "← noon!" in stderr
    assert "and 4 characters more" in stderr
    assert document["tool_calls"] == [{"name": "now", "arguments": {}, "result": "noon" + "!" * SHOWN_CHARACTERS}]


def test_without_tools_calls_are_told_as_they_are() -> None:
    document, _ = asked([calling("now")])
    assert document["tool_calls"] == [{"name": "now", "arguments": {}}]
    assert document["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("hidden", [True, False])
def test_reasoning_goes_to_standard_error_unless_it_is_hidden(
    capsys: pytest.CaptureFixture[str], *, hidden: bool
) -> None:
    document, shown = asked(["<think>", "Hmm.", "</think>", "Yes."], hide_thinking=hidden)
    assert shown == "Yes.\n"
    assert document["reasoning"] == "Hmm."
    assert ("(thought: Hmm.)" in capsys.readouterr().err) is not hidden


@pytest.mark.parametrize(
    ("done", "says"),
    [
        (Done("length", 5, 0, 9, 0.1, 0.1), "--max-tokens 9 is used up"),
        (Done("length", 5, 0, 9, 0.1, 0.1, context_full=True), "the context of 4,096 tokens is used up"),
    ],
)
def test_what_cut_an_answer_off_is_named(capsys: pytest.CaptureFixture[str], done: Done, says: str) -> None:
    asked(["Hello", done], options=ChatOptions(max_tokens=9))
    assert says in capsys.readouterr().err
