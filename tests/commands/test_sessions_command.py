"""`hermes sessions` as a process: what it prints, and what it asks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pexpect
import pytest
from conftest import Finished, RunHermes, clean_environment
from terminal_rig import hermes_in_terminal

from hermes_cli.chat.conversation import Conversation
from hermes_cli.chat.sessions.session_file import SessionFile
from hermes_cli.prompting.messages import Message, ToolCall

CALL = ToolCall("get_weather", {"city": "Tokyo"}, "call_1")


def no_warning(message: str) -> None:
    pytest.fail(message)


class Chats:
    """`hermes sessions` with a folder of its own, in which there are two."""

    def __init__(self, run: RunHermes, data: Path) -> None:
        self._run, self.folder = run, data / "chats"
        self.environment = {**clean_environment(), "HERMES_LLM_DATA_DIR": str(data)}
        self.weather, self.haiku = self.add("weather", self._weather), self.add("haiku", self._haiku)
        os.utime(self.haiku, (1000, 1000))

    def __call__(self, *arguments: str, code: int = 0) -> Finished:
        done = self._run("sessions", *arguments, env=self.environment)
        assert "Traceback" not in done.stderr
        assert done.returncode == code, done.stderr
        return done

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self(*arguments, "--json", code=code).stdout)
        return document

    def names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}

    def add(self, name: str, fill: Callable[[Conversation], None]) -> Path:
        conversation = Conversation()
        session = SessionFile.create(self.folder, conversation, "demo", no_warning, name)
        with closing(session):
            fill(conversation)
            assert session.path
            return session.path

    def terminal(self, *arguments: str) -> pexpect.spawn[str]:
        environment = {**self.environment, "TERM": "xterm-256color"}
        return hermes_in_terminal(
            ["sessions", *arguments], environment=environment, folder=self.folder.parent, columns=120, rows=40
        )

    @staticmethod
    def _weather(conversation: Conversation) -> None:
        conversation.add(Message("user", "Weather in Tokyo?\nPlease"))
        conversation.add(Message("assistant", None, (CALL,), "Let me \x1b[31mlook."), model="demo")
        conversation.add(Message("tool", '{"temperature": 13}', tool_call_id="call_1", name="get_weather"))
        conversation.add(Message("assistant", "It is 13 degrees.\x1b[2J"), model="demo")

    @staticmethod
    def _haiku(conversation: Conversation) -> None:
        conversation.add(Message("user", "A haiku"))


@pytest.fixture
def chats(hermes: RunHermes, tmp_path: Path) -> Chats:
    return Chats(hermes, tmp_path)


def finish(terminal: pexpect.spawn[str]) -> tuple[str, int | None]:
    terminal.expect(pexpect.EOF)
    rest = str(terminal.before)
    terminal.close()
    return rest, terminal.exitstatus


@pytest.mark.parametrize("arguments", [[], ["list"]])
def test_list(chats: Chats, arguments: list[str]) -> None:
    done = chats(*arguments)
    titles, first, second = done.stdout.splitlines()
    assert titles.split() == ["NAME", "MESSAGES", "SIZE", "LAST", "USED", "MODEL", "TITLE"]
    assert first.split()[:2] == ["weather", "4"]
    assert first.endswith("demo   Weather in Tokyo? Please")
    assert second.split()[:2] == ["haiku", "1"]
    assert "2 sessions" in done.stderr
    assert str(chats.folder) in done.stderr


def test_list_for_programs(chats: Chats) -> None:
    document = chats.json()
    assert document == chats.json("list")
    assert document["folder"] == str(chats.folder)
    assert document["total_bytes"] == sum(path.stat().st_size for path in (chats.weather, chats.haiku))
    assert document["sessions"][1] == {
        "name": "haiku",
        "title": "A haiku",
        "model": "demo",
        "messages": 1,
        "modified": "1970-01-01T00:16:40Z",
        "bytes": chats.haiku.stat().st_size,
        "path": str(chats.haiku),
        "problem": None,
    }
    assert chats("--quiet").stdout.startswith("weather ")


def test_nothing_is_saved(hermes: RunHermes, tmp_path: Path) -> None:
    done = hermes("sessions", env={**clean_environment(), "HERMES_LLM_DATA_DIR": str(tmp_path / "none")})
    assert (done.returncode, done.stdout) == (0, "")
    assert "hermes chat" in done.stderr
    assert not (tmp_path / "none").exists()


def test_help_lists_the_commands(chats: Chats) -> None:
    text = chats("--help").stdout
    assert all(f"  {name} " in text for name in ("list", "show", "rm", "export"))


def test_show(chats: Chats) -> None:
    shown = chats("show", "weath").stdout
    for line in ("Let me \x1b[31mlook.", '→ get_weather(city="Tokyo")', '{"temperature": 13}', "Please"):
        assert f"\n{line}\n" in shown
    document = chats.json("show", "weather")
    assert (document["name"], document["title"], document["model"]) == ("weather", "Weather in Tokyo? Please", "demo")
    assert [one["role"] for one in document["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert "no session wether" in chats("show", "wether", code=3).stderr


def test_show_on_a_terminal_is_dim_where_it_is_reasoning_and_obeys_nothing(chats: Chats) -> None:
    shown, code = finish(chats.terminal("show", "weather"))
    assert code == 0
    assert "\x1b[2;3mLet me \ufffd[31mlook.\x1b[0m" in shown
    assert "\x1b[31m" not in shown
    assert "\x1b[2J" not in shown


def test_show_a_damaged_one(chats: Chats) -> None:
    data = chats.weather.read_bytes()
    chats.weather.write_bytes(data.replace(b'"tool_call_id":"call_1"', b'"tool_call_id":call_1'))
    done = chats("show", "weather")
    assert "damaged in line 4: 2 messages before that could be read" in done.stderr
    assert "get_weather" in done.stdout
    assert "13 degrees" not in done.stdout


def test_rm_asks(chats: Chats) -> None:
    done = chats("rm", "haiku", code=2)
    assert "1 session would be removed, and there is no terminal to ask on" in done.stderr
    assert "--yes" in done.stderr
    for reply, left in (("n", 2), ("y", 1)):
        terminal = chats.terminal("rm", "haiku")
        terminal.expect_exact("Remove 1 session? [y/N] ")
        terminal.sendline(reply)
        assert finish(terminal)[1] == 0  # no is no error
        assert len(chats.names()) == left


def test_rm(chats: Chats) -> None:
    size = chats.haiku.stat().st_size
    assert chats.json("rm", "haiku", "haiku", "--yes") == {"removed": ["haiku"], "freed_bytes": size, "in_use": []}
    assert chats.names() == {"weather.jsonl"}
    chats("rm", code=2)
    chats("rm", "weather", "--all", code=2)
    chats("rm", "haiku", "--yes", code=3)
    chats("rm", "--all", "--yes")
    assert chats.names() == set()
    assert "nothing to remove" in chats("rm", "--all").stderr


def test_rm_leaves_what_is_in_use_and_says_so(chats: Chats) -> None:
    session, _ = SessionFile.open(chats.haiku, no_warning)
    with closing(session):
        done = chats("rm", "--all", "--yes", code=1)
        assert "haiku is open in a chat, and not removed" in done.stderr
    assert chats.names() == {"haiku.jsonl"}


def test_export(chats: Chats, tmp_path: Path) -> None:
    markdown = chats("export", "weather").stdout
    assert markdown.startswith("# Weather in Tokyo? Please\n\ndemo, ")
    document = json.loads(chats("export", "weather", "--format", "json").stdout)
    assert document["messages"][0] == {"role": "user", "content": "Weather in Tokyo?\nPlease"}
    file = tmp_path / "talk.JSON"
    assert chats("export", "weather", "-o", str(file)).stdout == ""
    assert json.loads(file.read_text(encoding="utf-8")) == document
    refused = chats("export", "weather", "-o", str(file), "--format", "md", code=2)
    assert "--force" in refused.stderr
    chats("export", "weather", "-o", str(file), "--format", "md", "--force")
    assert file.read_text(encoding="utf-8") == markdown
    assert "cannot be written" in chats("export", "weather", "-o", str(tmp_path / "no" / "f"), code=1).stderr
    assert chats("export", "weather", "-o", "-").stdout == markdown
