"""On a real terminal: asking before a tool runs, colours, and Ctrl-C at the question."""

from __future__ import annotations

import sys
from pathlib import Path

import pexpect
import pytest
from conftest import HANG, clean_environment

from hermes_cli.errors import ExitCode

WEATHER = ["-m", "hermes_cli", "chat", "demo", "--tools", "demo", "What's the weather in Tokyo?"]


def start(folder: Path, *, color: bool = False) -> pexpect.spawn[str]:
    environment = {**clean_environment(), "TERM": "xterm-256color"}
    if not color:
        environment["NO_COLOR"] = "1"
    return pexpect.spawn(
        sys.executable, WEATHER, cwd=str(folder), env=environment, encoding="utf-8", timeout=HANG, dimensions=(40, 120)
    )


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
