from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import clean_environment
from terminal_rig import Terminal

from hermes_cli.chat.slash.command import is_open_quote, unquoted

PROGRAM = (Path(__file__).parent.parent / "keyboard_program.py").read_text(encoding="utf-8")
CTRL_C, CTRL_D, CTRL_G, CTRL_J, CTRL_R, ALT_ENTER, UP = "\x03", "\x04", "\x07", "\n", "\x12", "\x1b\r", "\x1b[A"


def start(folder: Path, *, term: str = "xterm-256color", columns: int = 80, rows: int = 24, **more: str) -> Terminal:
    environment = {**clean_environment(), "TERM": term, **more}
    arguments = [str(folder / "history")]
    return Terminal(arguments, code=PROGRAM, environment=environment, folder=folder, columns=columns, rows=rows)


def enter(terminal: Terminal, text: str, said: str) -> None:
    """Type a line, and wait until the next one can be typed."""
    terminal.type(f"{text}\r")
    terminal.wait_until(lambda: said in terminal.screen() and terminal.screen().endswith("think off"), said)


def leave(terminal: Terminal) -> None:
    terminal.type(CTRL_D)
    terminal.wait_for("left")
    assert terminal.wait_for_end() == 0


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with start(tmp_path) as terminal:
        terminal.wait_for("context 12 of 2,048")
        yield terminal


def test_enter_sends_and_the_status_is_below(terminal: Terminal) -> None:
    terminal.type("hello\r")
    terminal.wait_for("read 5: 'hello'")
    assert terminal.wait_for("think off").splitlines()[-1] == "demo · context 12 of 2,048 tokens · think off"


@pytest.mark.parametrize("key", [ALT_ENTER, CTRL_J])
def test_lines_are_added_without_sending(terminal: Terminal, key: str) -> None:
    terminal.type(f"one{key}two")
    terminal.wait_for("  two")
    terminal.type("\r")
    terminal.wait_for(r"read 7: 'one\ntwo'")


def test_three_quotes_hold_lines_that_are_never_a_command(terminal: Terminal) -> None:
    terminal.type('"""\r/help\rme"""\r')
    terminal.wait_for(r"read 9: '//help\nme'")


def test_lines_that_were_typed_ahead_are_sent_one_by_one(terminal: Terminal) -> None:
    terminal.type("work\r")
    terminal.wait_for("read 4: 'work'")
    terminal.type("one\rtwo\rhal")
    terminal.wait_for("read 3: 'two'")
    terminal.type("f\r")
    terminal.wait_for("read 4: 'half'")
    assert "read 3: 'one'" in terminal.screen()


def test_a_paste_never_sends(terminal: Terminal) -> None:
    terminal.paste("one\r\ntwo\rthree\n")
    terminal.wait_for("  three")
    terminal.type("!\r")
    terminal.wait_for(r"read 15: 'one\ntwo\nthree\n!'")


def test_a_long_paste_is_one_word_until_it_is_sent(terminal: Terminal, tmp_path: Path) -> None:
    terminal.type("see ")
    terminal.paste("line\n" * 5_000)
    terminal.wait_for("see [pasted 5,000 lines]")
    terminal.paste("other\n" * 5_000)
    terminal.wait_for("[pasted 5,000 lines, 2]")
    terminal.paste("x" * 100_001)
    terminal.wait_for("[pasted 100,001 characters]")
    enter(terminal, "", "read 155,005: 'see line")
    enter(terminal, "short", "read 5: 'short'")
    leave(terminal)
    history = (tmp_path / "history").read_text()
    assert "+short" in history
    assert "pasted" not in history


@pytest.mark.parametrize("size", [16_000_000, pytest.param(200_000_000, marks=pytest.mark.long)])
def test_a_huge_paste_is_refused_without_a_freeze(terminal: Terminal, size: int) -> None:
    terminal.type("kept ")
    terminal.paste("0123456789abcde\n" * (size // 16))
    terminal.wait_for(f"{size:,} characters were pasted")
    terminal.type("\r")
    terminal.wait_for("read 5: 'kept '")


def test_the_end_of_a_paste_may_come_in_parts(terminal: Terminal) -> None:
    for part in (b"\x1b[200~a\rb\x1b", b"[20", b"1~c"):
        terminal.send(part)
    terminal.wait_for("  bc")
    terminal.type("\r")
    terminal.wait_for(r"read 4: 'a\nbc'")


@pytest.mark.parametrize("key", [CTRL_G, "\x18\x05"])
def test_an_editor_may_write_it(tmp_path: Path, key: str) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf " and more" >> "$1"\n')
    editor.chmod(0o700)
    with start(tmp_path, VISUAL=str(editor)) as terminal:
        terminal.wait_for("context")
        terminal.type("some")
        terminal.wait_for("> some")
        terminal.type(key)
        terminal.wait_for("> some and more")
        terminal.type("\r")
        terminal.wait_for("read 13: 'some and more'")


def test_history_outlives_the_program_for_its_owner_alone(tmp_path: Path) -> None:
    with start(tmp_path) as terminal:
        terminal.wait_for("context")
        enter(terminal, "first question", "read 14")
        enter(terminal, f"one{ALT_ENTER}two", "read 7")
        terminal.paste("y" * 10_001)
        enter(terminal, "", "read 10,001")
        leave(terminal)
    assert (tmp_path / "history").stat().st_mode & 0o777 == 0o600
    assert "yyy" not in (tmp_path / "history").read_text()
    with start(tmp_path) as terminal:
        terminal.wait_for("context")
        terminal.type(UP)
        terminal.wait_for("  two")
        terminal.type(f"{UP}{UP}")
        terminal.wait_for("> first question")
        terminal.type(CTRL_C)
        terminal.wait_until(lambda: "first" not in terminal.screen(), "an empty line")
        terminal.type(f"{CTRL_R}fir")
        terminal.wait_for("> first question")
        terminal.type("\r")
        terminal.wait_until(lambda: "search" not in terminal.screen(), "the end of the search")
        enter(terminal, "", "read 14: 'first question'")


def test_a_history_that_cannot_be_kept_is_none(tmp_path: Path) -> None:
    (tmp_path / "history").mkdir()
    with start(tmp_path) as terminal:
        terminal.wait_for("context")
        enter(terminal, "hello", "read 5: 'hello'")
        terminal.type(UP)
        terminal.wait_until(lambda: terminal.screen().count("> hello") == 2, "the line again")
        terminal.type(CTRL_C)
        terminal.wait_until(lambda: terminal.screen().count("> hello") == 1, "an empty line")
        leave(terminal)


def test_control_c_clears_and_then_says_how_to_leave(terminal: Terminal) -> None:
    terminal.type("mistake")
    terminal.wait_for("mistake")
    terminal.type(CTRL_C)
    terminal.wait_until(lambda: "mistake" not in terminal.screen(), "an empty line")
    terminal.type(CTRL_C)
    terminal.wait_for("Ctrl-D or /bye leaves")
    leave(terminal)


def test_commands_are_offered_as_they_are_typed(terminal: Terminal) -> None:
    terminal.type("/")
    terminal.wait_for("another model")
    terminal.type("mo\t")
    terminal.wait_for("> /model")
    terminal.type(" ")
    terminal.wait_for("hermes-4:14b")
    enter(terminal, "hermes-3\t", "read 18: '/model hermes-3:8b'")
    terminal.type("a /mo")
    terminal.wait_for("> a /mo")
    assert "another model" not in terminal.screen()


def test_files_are_offered(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "some notes.txt").touch()
    terminal.type("/file fol\t")
    terminal.wait_for("> /file folder/")
    terminal.type("so\t\r")
    terminal.wait_for("read 27: '/file folder/some notes.txt'")


def test_a_draft_can_be_changed(terminal: Terminal) -> None:
    terminal.type("draft\r")
    terminal.wait_for("> drafted")
    terminal.type("!\r")
    terminal.wait_for("read 8: 'drafted!'")


@pytest.mark.parametrize(("keys", "said"), [("y\r", "answered 'y'"), (CTRL_D, "answered ''"), (CTRL_C, "interrupted")])
def test_asks(terminal: Terminal, keys: str, said: str) -> None:
    terminal.type("ask\r")
    terminal.wait_for("[y]es, [n]o:")
    assert "Run it?�[2J" in terminal.screen()
    terminal.type(keys)
    terminal.wait_for(said)


def test_a_tiny_terminal_and_a_change_of_its_size(tmp_path: Path) -> None:
    with start(tmp_path, columns=20, rows=5) as terminal:
        terminal.wait_for("demo · context 12 …")
        terminal.type("a message that is longer than the window")
        terminal.wait_for("ndow")
        terminal.resize(90, 30)
        terminal.wait_for("> a message that is longer than the window")
        terminal.wait_for("think off")
        terminal.type("\r")
        terminal.wait_for("read 40")


def test_without_colour(tmp_path: Path) -> None:
    with start(tmp_path, NO_COLOR="1") as terminal:
        terminal.type("/")
        terminal.wait_for("another model")
        assert b"\x1b[38" not in terminal.raw
        assert b";38;" not in terminal.raw


def test_a_dumb_terminal_means_the_same(tmp_path: Path) -> None:
    with start(tmp_path, term="dumb") as terminal:
        terminal.wait_for(">")
        terminal.type('"""\none\n/two"""\n')
        terminal.wait_for(r"read 8: 'one\n/two'")
        terminal.type("draft\n")
        terminal.wait_for("drafted")
        terminal.type("\n")
        terminal.wait_for("read 7: 'drafted'")
        terminal.type("ask\n")
        terminal.wait_for("[y]es")
        terminal.type("y\n")
        terminal.wait_for("answered 'y'")
        terminal.type(CTRL_C)
        terminal.wait_for("Ctrl-D or /bye leaves")
        terminal.type(CTRL_D)
        terminal.wait_for("left")
        assert b"\x1b[" not in terminal.raw


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("plain", "plain"),
        ('"""one"""', "one"),
        ('"""\na\n\nb\n"""\n', "a\n\nb"),
        ('""""""', ""),
        ('"""/bye"""', "//bye"),
        ('"""/etc/passwd"""', "/etc/passwd"),
        ('"""//x"""', "///x"),
    ],
)
def test_what_quotes_mean(typed: str, meant: str) -> None:
    assert not is_open_quote(typed)
    assert unquoted(typed) == meant


@pytest.mark.parametrize("typed", ['"""', '"""a', '""""', '"""a\nb""'])
def test_open_quotes(typed: str) -> None:
    assert is_open_quote(typed)
