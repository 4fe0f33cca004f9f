"""One question from the command line: what goes where, and what the document says."""

from __future__ import annotations

import io

import pytest
from chat_rig import Functions, calling, scripted_backend
from fake_engine import Script
from terminal_rig import ScreenFile

from hermes_cli.chat.agent_loop import AgentLoop
from hermes_cli.chat.conversation import ChatOptions, Conversation
from hermes_cli.chat.view import SHOWN_CHARACTERS, PlainView
from hermes_cli.console import Console
from hermes_cli.engine.protocol import Done
from hermes_cli.event_loop import EventLoop
from hermes_cli.prompting.families import HERMES_4


def asked(
    *scripts: Script,
    options: ChatOptions | None = None,
    result: str | None = None,
    hide_thinking: bool = False,
    out: io.StringIO | None = None,
) -> tuple[dict[str, object], str]:
    """The document, and what was written to standard output."""
    out = out or io.StringIO()
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


ANSWER = """The weather in Tokyo is rainy today, and windy.

- an umbrella that is really large, and boots that keep water out

```python
weather = {"Tokyo": "rainy", "Oslo": "clear", "Nairobi": "warm"}
```
東京は雨です。東京は雨です。東京は雨です。東京は雨です。"""


@pytest.mark.parametrize("size", [1, 4, 1_000])
def test_a_terminal_gets_answers_broken_between_words_and_code_as_it_is(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    screen = ScreenFile(40, 24)
    _, written = asked([ANSWER[at : at + size] for at in range(0, len(ANSWER), size)], out=screen)
    assert [row for row in screen.shown.rows if row] == [
        "The weather in Tokyo is rainy today, and",
        "windy.",
        "- an umbrella that is really large, and",
        "  boots that keep water out",
        "```python",
        'weather = {"Tokyo": "rainy", "Oslo": "cl',
        'ear", "Nairobi": "warm"}',
        "```",
        "東京は雨です。東京は雨です。東京は雨で",
        "す。東京は雨です。",
    ]
    assert ANSWER.splitlines()[5] in written


def test_json_on_a_terminal_and_any_answer_in_a_pipe_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text = '{"weather": "rainy in Tokyo and clear in Oslo"}'
    assert asked([text], options=ChatOptions(schema=True), out=ScreenFile(40, 24))[1] == f"{text}\n"
    assert asked([ANSWER])[1] == f"{ANSWER}\n"
