from __future__ import annotations

import re

import pytest
from terminal_rig import ScreenFile

from hermes_cli.chat.conversation import Conversation, TurnUsage
from hermes_cli.chat.terminal.terminal_view import TerminalView
from hermes_cli.chat.view import TurnResult
from hermes_cli.console import Console
from hermes_cli.generation import Done, Message, ToolCall
from hermes_cli.prompting.messages import ToolResult

CALL = ToolCall("get_weather", {"city": "Tokyo"})
DONE = Done("stop", 20, 5, 412, 0.2, 10.0, reasoning_tokens=214)


@pytest.fixture(autouse=True)
def _a_good_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "60", "LINES": "12"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)


def scene(*, hide_thinking: bool = False) -> tuple[TerminalView, ScreenFile]:
    file = ScreenFile(60, 12)
    return TerminalView(Console(out=file), hide_thinking=hide_thinking), file


def seen(file: ScreenFile) -> str:
    return "\n".join(file.shown.everything)


def test_a_turn_from_waiting_to_its_end() -> None:
    view, file = scene()
    view.waiting()
    assert " 0 s" in seen(file)
    view.reasoning("Let me ")
    assert seen(file) == "Let me"
    view.reasoning("think.\n")
    view.content("\n\nIt is **so**")
    assert re.match(r"∴ thought for \d+\.\d s\n", seen(file))
    assert "Let me" not in seen(file)
    view.content(".\n")
    view.turn(TurnResult("It is **so**.\n", "Let me think.\n", done=DONE), stopped=False)
    folded, said, *took = seen(file).split("\n")
    assert re.fullmatch(r"∴ thought for \d+\.\d s", folded)
    assert said == "It is so."
    assert "".join(took).startswith("412 tokens, 214 of them reasoning · 41.2 tokens/s · first")
    assert "".join(took).endswith("(measured)")
    view.show_reasoning()
    assert seen(file).endswith("Let me think.")


def test_reasoning_that_left_the_screen_stays_where_it_is() -> None:
    view, file = scene()
    view.waiting()
    words = [f"thought{at}" for at in range(400)]
    view.reasoning(" ".join(words))
    view.content("so.")
    view.turn(TurnResult("so.", " ".join(words), done=DONE), stopped=False)
    *thoughts, folded, _, _, _ = seen(file).split("\n")
    assert " ".join(thoughts).split() == words
    assert folded.startswith("∴ thought for")


def test_hidden_reasoning_is_one_line() -> None:
    view, file = scene(hide_thinking=True)
    view.waiting()
    view.reasoning("secret")
    assert "thinking 0 s" in seen(file)
    view.reasoning("secret")
    view.content("so.")
    view.turn(TurnResult("so.", "secretsecret", done=DONE), stopped=False)
    assert seen(file).startswith("∴ thought for 0.0 s\nso.\n")
    assert "secret" not in file.getvalue()


def test_calls_and_what_comes_of_them() -> None:
    view, file = scene()
    view.waiting()
    view.content("I look.")
    view.calling("get_weather")
    assert seen(file) == "I look.\n→ get_weather(…)"
    view.turn(TurnResult("I look.", calls=[CALL], done=DONE), stopped=False)
    view.result(CALL, ToolResult("rain\n" + "x" * 995, cut=1_000, seconds=0.31))
    view.result(CALL, ToolResult("no", failed=True))
    assert seen(file).startswith('I look.\n→ get_weather(city="Tokyo")\n← get_weather, 0.3 s: rain\n  xxx')
    assert "… and 1,500 characters more" in seen(file).replace("\n", " ")
    assert seen(file).endswith("← get_weather: no")
    row = file.shown.looks[-1]
    assert row[0][:2] == ("←", "red")
    assert file.shown.looks[1][0][:2] == ("→", "cyan")


def test_many_short_lines_of_a_result_are_cut_too() -> None:
    view, file = scene()
    view.result(CALL, ToolResult("\n" * 300))
    assert len(file.shown.everything) < 20
    assert "characters more" in seen(file)


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (Done("length", 1, 0, 7, 0.1, 0.1), "cut off: the most tokens of an answer (max_tokens) are used up, 7"),
        (Done("length", 1, 0, 7, 0.1, 0.1, context_full=True), "cut off: the context is full"),
    ],
)
def test_says_why_it_went_no_further(done: Done, said: str) -> None:
    view, file = scene()
    view.waiting()
    view.content("so")
    view.turn(TurnResult("so", done=done), stopped=False)
    assert said in seen(file).replace("\n", " ").replace("  ", " ")


def test_stopped_keeps_what_came_and_says_so() -> None:
    view, file = scene()
    view.waiting()
    view.content("```python\nx = 1")
    view.turn(TurnResult("```python\nx = 1"), stopped=True)
    assert seen(file) == "```python\nx = 1\n```\nstopped before its end"
    view.waiting()
    view.calling("write_file")
    view.turn(TurnResult(), stopped=True)
    assert seen(file).endswith("→ write_file(… not finished, so not run)\nstopped before its end")
    view.waiting()
    view.turn(TurnResult(), stopped=True)
    assert seen(file).count("stopped") == 2


def test_nothing_of_models_and_tools_is_obeyed() -> None:
    view, file = scene()
    bad = "\x1b[2J\x1b]0;x\x07[red]\r"
    before = file.getvalue()
    view.waiting()
    view.reasoning(bad)
    view.content(bad)
    view.calling(bad)
    view.turn(TurnResult(bad, bad, [ToolCall(bad, {bad: bad})], done=DONE), stopped=False)
    view.result(ToolCall(bad, {}), ToolResult(bad))
    view.show_reasoning()
    assert before == ""
    for sequence in ("\x1b[2J", "\x1b]0", "\x07"):
        assert sequence not in file.getvalue()
    assert seen(file).count("�[2J�]0;x�[red]") >= 4


def test_without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    view, file = scene()
    view.waiting()
    view.content("`code`\n\n```python\nx = 'y'\n```\n")
    view.turn(TurnResult("x", calls=[CALL], done=DONE), stopped=False)
    assert {cell[1] for row in file.shown.looks for cell in row} == {"default"}


def test_without_means_to_move_only_what_is_final_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    view, file = scene()
    view.waiting()
    view.reasoning("hm")
    view.content("one\n\ntw")
    view.content("o")
    view.turn(TurnResult("one\n\ntwo", "hm", done=DONE), stopped=False)
    assert "\x1b" not in file.getvalue()
    assert seen(file).startswith("hm\n∴ thought for 0.0 s\none\n\ntwo\n412 tokens")


def test_a_conversation_that_goes_on_is_shown_as_it_was() -> None:
    view, file = scene()
    conversation = Conversation()
    for at in range(4):
        conversation.add(Message("user", f"question {at}"))
        conversation.add(
            Message("assistant", f"**answer** {at}", reasoning="hm"), usage=TurnUsage(reasoning_seconds=1.5)
        )
    conversation.add(Message("assistant", None, (CALL,)), unfinished=True)
    conversation.add(Message("tool", "rain", tool_call_id=CALL.id, name="get_weather"))
    view.history(conversation)
    assert seen(file).split("\n") == [
        *("… 4 earlier messages", "", "> question 2", "∴ thought for 1.5 s", "answer 2"),
        *("", "> question 3", "∴ thought for 1.5 s", "answer 3"),
        *('→ get_weather(city="Tokyo")', "stopped before its end", "← get_weather: rain"),
    ]
    view.show_reasoning()
    assert seen(file).endswith("hm")
