"""On a real terminal: asking before a tool runs, colours, and Ctrl-C at the question."""

from __future__ import annotations

from pathlib import Path

import pexpect
import pytest
from conftest import clean_environment
from terminal_rig import hermes_in_terminal

from hermes_cli.errors import ExitCode

WEATHER = ["chat", "demo", "--tools", "demo", "What's the weather in Tokyo?"]


def start(folder: Path, *, color: bool = False) -> pexpect.spawn[str]:
    environment = {**clean_environment(), "TERM": "xterm-256color"}
    if not color:
        environment["NO_COLOR"] = "1"
    return hermes_in_terminal(WEATHER, environment=environment, folder=folder, columns=120, rows=40)


def finish(terminal: pexpect.spawn[str]) -> tuple[str, int | None]:
    terminal.expect(pexpect.EOF)
    rest = str(terminal.before)
    terminal.close()
    return rest, terminal.exitstatus


@pytest.mark.parametrize(("reply", "seen"), [("y", '← {"city": "Tokyo"'), ("n", "the user did not allow this call")])
def test_asks_before_running_a_tool(tmp_path: Path, reply: str, seen: str) -> None:
    terminal = start(tmp_path)
    terminal.expect_exact('Run get_weather(city="Tokyo") (demo_tools.py)?')
    terminal.sendline(reply)
    rest, code = finish(terminal)
    assert seen in rest
    assert code == 0


def test_ctrl_c_at_the_question(tmp_path: Path) -> None:
    terminal = start(tmp_path)
    terminal.expect_exact("or why not: ")
    terminal.sendintr()
    rest, code = finish(terminal)
    assert "interrupted" in rest
    assert code == ExitCode.INTERRUPTED


@pytest.mark.parametrize("color", [True, False])
def test_colours_only_when_wanted(tmp_path: Path, *, color: bool) -> None:
    terminal = start(tmp_path, color=color)
    terminal.expect_exact("or why not: ")
    before = str(terminal.before)
    terminal.sendline("y")
    rest, _ = finish(terminal)
    assert ("\x1b[36m" in before + rest) is color
