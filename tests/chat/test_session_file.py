"""One session's file: what comes back of it, and what becomes of it when processes die and disks are full."""

from __future__ import annotations

import json
import os
import re
import resource
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from changes import CHANGES, TEXT
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.chat.conversation import Change, ChatOptions, Conversation, MessageAdded
from hermes_cli.chat.sessions.format import checked_name, decode, name_from_question
from hermes_cli.chat.sessions.session_file import SessionFile
from hermes_cli.errors import HermesError, IntegrityError, UsageError
from hermes_cli.prompting.messages import Message


def no_warning(message: str) -> None:
    pytest.fail(message)


def asked(*texts: str) -> Conversation:
    conversation = Conversation()
    for text in texts:
        conversation.add(Message("user", text))
    return conversation


def begun(folder: Path, *texts: str, name: str = "s") -> Path:
    """A session with these questions, closed again."""
    conversation = Conversation()
    session = SessionFile.create(folder, conversation, "demo", no_warning, name)
    for text in texts:
        conversation.add(Message("user", text))
    path = session.path
    session.close()
    assert path
    return path


def contents(conversation: Conversation) -> list[str | None]:
    return [one.message.content for one in conversation.entries]


def reread(path: Path) -> list[str | None]:
    """What a chat finds that goes on with it, and finds nothing to complain about."""
    session, conversation = SessionFile.open(path, no_warning)
    session.close()
    return contents(conversation)


# What is written comes back.


def healed(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


@given(st.lists(CHANGES, max_size=8))
def test_any_changes_come_back_as_they_were(changes: list[Change]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        session = SessionFile.create(Path(folder) / "chats", Conversation(), "demo", no_warning)
        for change in changes:
            session.add(change)
        path = session.path
        session.close()
        if path is None:
            assert not any(isinstance(one, MessageAdded) for one in changes)
            return
        read = decode(path.read_bytes(), "s")
    assert (read.damaged_line, read.header and read.header.model) == (None, "demo")
    assert healed(plain(read.changes)) == healed(plain(changes))


def plain(changes: list[Change]) -> str:
    """Every field, those that equality leaves out, too, with its text as it is."""
    parts: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, str):
            parts.append(f"'{value}'")
        elif isinstance(value, dict):
            parts.append("{")
            for key, one in value.items():
                walk(healed(key))
                walk(one)
        elif isinstance(value, (list, tuple)):
            parts.append("[")
            for one in value:
                walk(one)
        elif value is None or isinstance(value, (bool, int, float)):
            parts.append(repr(value))
        else:
            fields = getattr(value, "__struct_fields__", None) or getattr(value, "__dataclass_fields__", {})
            parts.append(type(value).__name__)
            for field in fields:
                walk(getattr(value, field))

    walk(changes)
    return " ".join(parts)


@given(st.lists(CHANGES, min_size=1, max_size=5))
def test_cut_at_any_byte_it_is_a_beginning(changes: list[Change]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        session = SessionFile.create(Path(folder), asked("first"), "demo", no_warning, "s")
        for change in changes:
            session.add(change)
        path = session.path
        session.close()
        assert path
        data = path.read_bytes()
    whole = decode(data, "s").changes
    assert len(whole) == len(changes) + 1
    for cut in range(len(data) + 1):
        read = decode(data[:cut], "s")
        assert read.damaged_line is None
        assert read.changes == whole[: len(read.changes)]
        assert len(read.changes) >= max(data[:cut].count(b"\n") - 1, 0)


@pytest.mark.parametrize("step", range(7))
def test_cut_anywhere_it_goes_on(tmp_path: Path, step: int) -> None:
    path = begun(tmp_path, "eins", "zwei", "dr€i")
    data = path.read_bytes()
    for cut in range(step, len(data), 7):
        path.write_bytes(data[:cut])
        warnings: list[str] = []
        session, conversation = SessionFile.open(path, warnings.append)
        before = contents(conversation)
        assert before == ["eins", "zwei", "dr€i"][: len(before)]
        conversation.add(Message("user", "weiter"))
        session.close()
        torn = cut > 0 and data[cut - 1 : cut] != b"\n" and data[cut : cut + 1] != b"\n"
        assert bool(warnings) is torn, warnings
        assert all("cut off" in one for one in warnings)
        assert reread(path) == [*before, "weiter"]


# Where it is, and what it is called.


def test_an_empty_chat_leaves_nothing(tmp_path: Path) -> None:
    conversation = Conversation(ChatOptions(system="Be brief."))
    session = SessionFile.create(tmp_path / "chats", conversation, "demo", no_warning)
    conversation.set_options(ChatOptions(system="Be long."))
    conversation.set_title("nothing yet")
    assert session.name is None
    session.close()
    assert not (tmp_path / "chats").exists()


def test_it_is_named_by_date_and_question_and_private(tmp_path: Path) -> None:
    today = time.strftime("%Y-%m-%d")
    folder = tmp_path / "data" / "chats"
    open_ones = [SessionFile.create(folder, asked("What's the capital?!"), "demo", no_warning) for _ in range(3)]
    assert [one.name for one in open_ones] == [f"{today}-what-s-the-capital{end}" for end in ("", "-2", "-3")]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in folder.iterdir())
    for one in open_ones:
        one.close()
    assert sorted(one.suffix for one in folder.iterdir()) == [".jsonl"] * 3


def test_a_folder_that_others_can_read_becomes_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    begun(tmp_path, "Hi")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


@given(TEXT | st.text(max_size=2000))
def test_any_question_makes_a_name_that_a_user_could_give(question: str) -> None:
    name = name_from_question(question, 1795387081.0)
    assert checked_name(name) == name
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f".{name}.damaged-999.jsonl.lock").touch()


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "a/b", "a\\b", "-rf", ".hidden", "a b", "a\n", "x.", "C:x", "x" * 101, "語" * 90),
        *("x.damaged", "x.damaged-2", "nul", "COM1.x", "a\x1b[2J", "a\ud800"),
    ],
)
def test_names_that_no_session_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        SessionFile.create(tmp_path, Conversation(), "demo", no_warning, name)
    with closing(SessionFile.create(tmp_path, asked("Hi"), "demo", no_warning, "ok")) as session:
        with pytest.raises(UsageError):
            session.rename(name)
        assert session.name == "ok"


def test_rename(tmp_path: Path) -> None:
    begun(tmp_path, "Hi", name="taken")
    conversation = Conversation()
    session = SessionFile.create(tmp_path, conversation, "demo", no_warning)
    with pytest.raises(UsageError, match="taken"):
        session.rename("taken")
    session.rename("early")
    conversation.add(Message("user", "one"))
    assert session.name == "early"
    with pytest.raises(UsageError, match="taken"):
        session.rename("taken")
    session.rename("Später_1.2")
    conversation.add(Message("user", "two"))
    session.close()
    assert reread(tmp_path / "Später_1.2.jsonl") == ["one", "two"]
    assert {one.name for one in tmp_path.iterdir()} == {"taken.jsonl", "Später_1.2.jsonl"}


def test_links_are_not_followed(tmp_path: Path) -> None:
    folder, outside = tmp_path / "chats", begun(tmp_path / "elsewhere", "secret")
    begun(folder, "Hi")
    (folder / "link.jsonl").symlink_to(outside)
    with pytest.raises(HermesError, match="link"):
        SessionFile.open(folder / "link.jsonl", no_warning)
    (folder / "gone.jsonl").symlink_to(tmp_path / "made-by-us")
    with closing(SessionFile.create(folder, asked("Hi"), "demo", no_warning)) as session, pytest.raises(UsageError):
        session.rename("gone")
    assert not (tmp_path / "made-by-us").exists()
    os.mkfifo(folder / "pipe.jsonl")
    with pytest.raises(HermesError, match="not a regular file"):
        SessionFile.open(folder / "pipe.jsonl", no_warning)


# A conversation that was there already, and one that goes on.


def test_what_was_said_before_it_is_saved_comes_along(tmp_path: Path) -> None:
    conversation = asked("one", "two", "three", "four")
    conversation.set_options(ChatOptions(system="Be brief.", think=True))
    conversation.compact("one and two", 2)
    conversation.compact("one to three", 3)
    conversation.set_title("Numbers")
    session = SessionFile.create(tmp_path, conversation, "demo", no_warning, "s")
    assert conversation.summary
    assert conversation.summary.count == 3
    conversation.add(Message("user", "five"))
    session.close()
    session, again = SessionFile.open(tmp_path / "s.jsonl", no_warning)
    session.close()
    assert (again.entries, again.prompt_options, again.title) == (
        conversation.entries,
        conversation.prompt_options,
        "Numbers",
    )
    assert [again.summary, again.expand(), again.summary] == [
        conversation.summary,
        conversation.expand(),
        conversation.summary,
    ]


def test_the_model_is_the_one_that_answered_last(tmp_path: Path) -> None:
    path = begun(tmp_path, "Hi")
    session, conversation = SessionFile.open(path, no_warning)
    assert session.model == "demo"
    conversation.add(Message("assistant", "Hello"), model="hermes-3:8b")
    session.close()
    session, _ = SessionFile.open(path, no_warning)
    session.close()
    assert session.model == "hermes-3:8b"


def test_undone_is_undone(tmp_path: Path) -> None:
    path = begun(tmp_path, "one", "two", "three")
    size = path.stat().st_size
    session, conversation = SessionFile.open(path, no_warning)
    conversation.truncate(1)
    session.close()
    assert path.stat().st_size > size
    assert reread(path) == ["one"]


# Damage.


def test_a_damaged_file_is_kept_and_what_stands_before_the_damage_goes_on(tmp_path: Path) -> None:
    path = begun(tmp_path, "one", "two", "three")
    damaged = path.read_bytes().replace(b'"two"', b'"tw\xff"')
    for number, aside in enumerate(["s.damaged.jsonl", "s.damaged-2.jsonl"]):
        path.write_bytes(damaged)
        warnings: list[str] = []
        session, conversation = SessionFile.open(path, warnings.append)
        assert contents(conversation) == ["one"]
        conversation.add(Message("user", "more"))
        session.close()
        assert warnings == [
            f"the session s is damaged in line 3: it goes on with the 1 message before that. The damaged file is kept as {aside}."
        ]
        assert (tmp_path / aside).read_bytes() == damaged
        assert reread(path) == ["one", "more"]
        assert len(list(tmp_path.iterdir())) == 2 + number
    with pytest.raises(UsageError, match="kept aside"):
        SessionFile.open(tmp_path / "s.damaged.jsonl", no_warning)


@pytest.mark.parametrize("at", [b"1e300", b"-1", b"1e12"])
def test_a_time_that_no_calendar_has_is_damage(tmp_path: Path, at: bytes) -> None:
    path = begun(tmp_path, "one", "two")
    first, second, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, second, *(re.sub(rb'"at":[0-9.]+', b'"at":' + at, line) for line in rest)]))
    warnings: list[str] = []
    session, conversation = SessionFile.open(path, warnings.append)
    session.close()
    assert contents(conversation) == ["one"]
    assert "damaged in line 3" in warnings[0]


def test_zeros_after_a_loss_of_power_are_cut_off(tmp_path: Path) -> None:
    path = begun(tmp_path, "one", "two")
    with path.open("ab") as file:
        file.write(bytes(5000))
    warnings: list[str] = []
    session, conversation = SessionFile.open(path, warnings.append)
    session.close()
    assert contents(conversation) == ["one", "two"]
    assert "cut off" in warnings[0]
    assert reread(path) == ["one", "two"]


@pytest.mark.parametrize("start", [b"", b"nothing of ours", b"[1]", b'{"model": "demo"}', b'{"hermes_chat": "x"}'])
def test_a_file_that_is_no_session_is_left_alone(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(start + b"\nmore\n")
    with pytest.raises(IntegrityError, match="session s"):
        SessionFile.open(path, no_warning)
    assert path.read_bytes() == start + b"\nmore\n"
    assert [one.name for one in tmp_path.iterdir()] == ["s.jsonl"]


def test_a_newer_format_is_named(tmp_path: Path) -> None:
    path = begun(tmp_path, "Hi")
    path.write_bytes(path.read_bytes().replace(b'"hermes_chat":1', b'"hermes_chat":2'))
    with pytest.raises(IntegrityError, match=r"newer hermes \(format 2; this one reads 1\)"):
        SessionFile.open(path, no_warning)


# Other processes.

TALKER = """
import sys
from pathlib import Path
from hermes_cli.chat.conversation import Conversation
from hermes_cli.chat.sessions.session_file import SessionFile
from hermes_cli.prompting.messages import Message
conversation = Conversation()
session = SessionFile.create(Path(sys.argv[1]), conversation, "demo", print, "s")
for number in range(100_000):
    conversation.add(Message("user", f"{number} " + "x" * (number % 7 * 1000)))
    print(number, flush=True)
"""


@contextmanager
def talking(folder: Path, until: int) -> Iterator[subprocess.Popen[str]]:
    """A process that says one thing after another, and prints each when it is kept; it is killed at the end."""
    with subprocess.Popen([sys.executable, "-c", TALKER, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            while process.stdout.readline() != f"{until}\n":
                assert process.poll() is None
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("until", [0, 3, 11, 20])
def test_what_was_kept_outlives_kill_9(tmp_path: Path, until: int) -> None:
    with talking(tmp_path, until) as process:
        process.kill()
        assert process.stdout
        printed = process.stdout.read().split()
    kept = int(printed[-1]) if printed else until
    warnings: list[str] = []
    session, conversation = SessionFile.open(tmp_path / "s.jsonl", warnings.append)
    session.close()
    found = [int((text or "").split()[0]) for text in contents(conversation)]
    assert found == list(range(len(found)))
    assert len(found) >= kept + 1
    assert all("cut off" in one for one in warnings)


def test_two_chats_cannot_have_one_session(tmp_path: Path) -> None:
    with talking(tmp_path, 2):
        with pytest.raises(UsageError, match="the session s is open in another chat") as caught:
            SessionFile.open(tmp_path / "s.jsonl", no_warning)
        assert "leave that chat" in caught.value.hint
        mine = SessionFile.create(tmp_path, asked("Hi"), "demo", no_warning)
        with closing(mine), pytest.raises(UsageError, match="open"):
            mine.rename("s")
    session, _ = SessionFile.open(tmp_path / "s.jsonl", lambda _: None)
    with pytest.raises(UsageError, match="open in another chat"):
        SessionFile.open(tmp_path / "s.jsonl", no_warning)
    session.close()
    assert reread(tmp_path / "s.jsonl")


def test_what_is_not_there_gets_no_lock(tmp_path: Path) -> None:
    with pytest.raises(HermesError, match="cannot be opened"):
        SessionFile.open(tmp_path / "s.jsonl", no_warning)
    assert list(tmp_path.iterdir()) == []


# Disks that do not take it.


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes: the kernel says EFBIG in the middle of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 100, 400, 401, 1000])
def test_a_full_disk_ends_no_chat_and_loses_nothing_once_there_is_room(tmp_path: Path, room: int) -> None:
    warnings: list[str] = []
    conversation = Conversation()
    session = SessionFile.create(tmp_path / "chats", conversation, "demo", warnings.append, "s")
    wanted = [f"{number} {'x' * 100}" for number in range(12)]
    with room_for(room):
        for text in wanted[:-1]:
            conversation.add(Message("user", text))
        assert len(warnings) == 1
        assert "cannot be saved: File too large" in warnings[0]
        assert session.path
        on_disk = session.path.read_bytes()
        assert on_disk.endswith(b"\n") or not on_disk
        assert [one.message.content for one in decode(on_disk, "s").changes if isinstance(one, MessageAdded)] == wanted[
            : max(on_disk.count(b"\n") - 1, 0)
        ]
    conversation.add(Message("user", wanted[-1]))
    assert len(warnings) == 2
    assert "saved again" in warnings[1]
    session.close()
    assert reread(tmp_path / "chats" / "s.jsonl") == wanted


def test_closing_tries_once_more_and_says_what_is_lost(tmp_path: Path) -> None:
    warnings: list[str] = []
    conversation = Conversation()
    session = SessionFile.create(tmp_path, conversation, "demo", warnings.append, "s")
    with room_for(250):
        for text in ("one", "two", "three"):
            conversation.add(Message("user", text))
        session.close()
    assert len(warnings) == 2
    left = 3 - len(reread(tmp_path / "s.jsonl"))
    assert left
    assert f"{left} message" in warnings[1]


def test_a_folder_that_cannot_be_made_ends_no_chat(tmp_path: Path) -> None:
    (tmp_path / "chats").write_text("in the way")
    warnings: list[str] = []
    conversation = Conversation()
    session = SessionFile.create(tmp_path / "chats", conversation, "demo", warnings.append)
    conversation.add(Message("user", "one"))
    conversation.add(Message("user", "two"))
    assert (len(warnings), session.name) == (1, None)
    (tmp_path / "chats").unlink()
    conversation.add(Message("user", "three"))
    assert len(warnings) == 2
    path = session.path
    session.close()
    assert path
    assert reread(path) == ["one", "two", "three"]


def test_a_damaged_file_stays_as_it_is_where_there_is_no_room(tmp_path: Path) -> None:
    path = begun(tmp_path, "one", "two", "three")
    damaged = path.read_bytes().replace(b'"two"', b"two")
    path.write_bytes(damaged)
    with room_for(50), pytest.raises(HermesError, match="File too large"):
        SessionFile.open(path, no_warning)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == {"s.jsonl": damaged}


def test_ctrl_c_while_saving_neither_doubles_nor_loses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = Conversation()
    session = SessionFile.create(tmp_path, conversation, "demo", no_warning, "s")
    really = os.fsync
    for number in range(4):
        with monkeypatch.context() as interrupted:

            def interrupt(handle: int) -> None:
                really(handle)
                raise KeyboardInterrupt

            interrupted.setattr(os, "fsync", interrupt)
            with pytest.raises(KeyboardInterrupt):
                conversation.add(Message("user", f"{number}"))
        if number % 2:
            conversation.add(Message("user", f"after {number}"))
    session.close()
    assert reread(tmp_path / "s.jsonl") == ["0", "1", "after 1", "2", "3", "after 3"]


def test_it_is_flushed_before_the_next_thing_happens_and_so_is_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[int, int]] = []
    really = os.fsync

    def note(handle: int) -> None:
        really(handle)
        flushed.append((os.fstat(handle).st_ino, os.fstat(handle).st_size))

    monkeypatch.setattr(os, "fsync", note)
    conversation = Conversation()
    with closing(SessionFile.create(tmp_path, conversation, "demo", no_warning, "s")):
        conversation.add(Message("user", "one"))
        file = (tmp_path / "s.jsonl").stat()
        assert [flushed[0], flushed[1][0]] == [(file.st_ino, file.st_size), tmp_path.stat().st_ino]
        conversation.add(Message("user", "two"))
        assert flushed[2:] == [(file.st_ino, (tmp_path / "s.jsonl").stat().st_size)]


def test_the_file_is_json_that_anyone_can_read(tmp_path: Path) -> None:
    path = begun(tmp_path, "Grüße, 世界 \u2028 \x00")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    assert [lines[0]["hermes_chat"], lines[0]["model"]] == [1, "demo"]
    assert lines[1]["message"]["content"] == "Grüße, 世界 \u2028 \x00"
    assert "Grüße, 世界" in path.read_text(encoding="utf-8")
