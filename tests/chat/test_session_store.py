"""The folder of sessions: what is listed, found and removed."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest
from changes import CHANGES
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.chat.conversation import Change, ChatOptions, Conversation, TurnsDropped
from hermes_cli.chat.sessions.export import title_of
from hermes_cli.chat.sessions.session_file import SessionFile
from hermes_cli.chat.sessions.store import find_session, latest_session, list_sessions, read_session, remove_sessions
from hermes_cli.errors import HermesError, IntegrityError, NotFoundError, UsageError
from hermes_cli.prompting.messages import Message


def no_warning(message: str) -> None:
    pytest.fail(message)


def saved(folder: Path, name: str, *texts: str, at: float = 1795387081.0) -> Path:
    """A session in which these were said, by the user and the model in turn, that was last changed at some time."""
    conversation = Conversation()
    session = SessionFile.create(folder, conversation, "demo", no_warning, name)
    for number, text in enumerate(texts):
        if number % 2:
            conversation.add(Message("assistant", text), model="hermes-3:8b")
        else:
            conversation.add(Message("user", text))
    path = session.path
    session.close()
    assert path
    os.utime(path, (at, at))
    return path


def test_there_are_none(tmp_path: Path) -> None:
    assert list_sessions(tmp_path / "chats") == []
    with pytest.raises(NotFoundError, match="no session x"):
        find_session(tmp_path / "chats", "x")
    with pytest.raises(NotFoundError):
        latest_session(tmp_path / "chats")


def test_a_list_is_newest_first_and_says_what_each_is(tmp_path: Path) -> None:
    saved(tmp_path, "old", "Who are\nyou?  \t Tell", "A model.", "And?", at=1000)
    path = saved(tmp_path, "new", "x" * 500, at=2000)
    first, second = list_sessions(tmp_path)
    assert (first.name, first.title, first.model, first.messages) == ("new", "x" * 79 + "…", "demo", 1)
    assert (first.modified, first.bytes, first.path, first.problem) == (2000, path.stat().st_size, path, None)
    assert (second.name, second.title, second.model, second.messages) == ("old", "Who are you? Tell", "hermes-3:8b", 3)


def test_it_agrees_with_the_conversation_whatever_happened_in_it(tmp_path: Path) -> None:
    conversation = Conversation(ChatOptions(system='{"type":"said","message":{"role":"user"'))
    session = SessionFile.create(tmp_path, conversation, "demo", no_warning, "s")
    conversation.add(Message("user", "first"))
    conversation.add(Message("assistant", "one"), model="a")
    conversation.truncate(0)
    conversation.add(Message("user", "second"))
    conversation.add(Message("assistant", "two"), model="b")
    conversation.add(Message("tool", '{"type":"said"}\n{"type":"dropped","count":9}'))
    conversation.compact("sum", 2)
    (listed,) = list_sessions(tmp_path)
    assert (listed.title, listed.model, listed.messages) == ("second", "b", len(conversation.entries))
    conversation.truncate(1)
    conversation.set_title("Named\nnow")
    (listed,) = list_sessions(tmp_path)
    assert (listed.title, listed.model, listed.messages) == ("Named now", "demo", 1)
    conversation.add(Message("user", "more"))
    conversation.add(Message("user", "and more"))
    session.add(TurnsDropped(-1))
    assert [one.messages for one in list_sessions(tmp_path)] == [3]
    session.add(TurnsDropped(4))
    assert [one.messages for one in list_sessions(tmp_path)] == [0]
    session.close()


@given(st.lists(CHANGES, max_size=8))
def test_it_agrees_with_any_conversation(changes: list[Change]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        saved(Path(folder), "s", "first")
        session, _ = SessionFile.open(Path(folder) / "s.jsonl", no_warning)
        for change in changes:
            session.add(change)
        session.close()
        (listed,) = list_sessions(Path(folder))
        found = read_session(listed.path)
    assert (listed.messages, listed.model) == (len(found.conversation.entries), found.model)
    assert listed.title == title_of(found.conversation)


def test_cut_at_any_byte_it_lists_what_can_be_read(tmp_path: Path) -> None:
    path = saved(tmp_path, "s", "one", "two", "three")
    data = path.read_bytes()
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        (listed,) = list_sessions(tmp_path)
        found = read_session(path)
        assert (listed.messages, listed.model) == (len(found.conversation.entries), found.model)
        assert listed.problem is None


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    saved(tmp_path, "mine", "Hi")
    outside = saved(tmp_path / "outside", "theirs", "secret")
    (tmp_path / "link.jsonl").symlink_to(outside)
    (tmp_path / ".mine.jsonl.new").write_text("half")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    listed = {one.name: one.problem for one in list_sessions(tmp_path)}
    assert set(listed) == {"mine", "other"}
    assert listed["mine"] is None
    assert "does not begin" in (listed["other"] or "")
    with pytest.raises(NotFoundError):
        find_session(tmp_path, "link")
    with pytest.raises(IntegrityError):
        read_session(find_session(tmp_path, "other").path)
    assert remove_sessions([find_session(tmp_path, "other").path]).names == ("other",)


def test_find(tmp_path: Path) -> None:
    for name in ("2026-11-22-capital-of-france", "2026-11-22-capital-of-peru", "2026-11-23-haiku", "hai"):
        saved(tmp_path, name, "Hi")
    assert find_session(tmp_path, "2026-11-22-capital-of-peru").name.endswith("peru")
    assert find_session(tmp_path, "2026-11-23").name == "2026-11-23-haiku"
    assert find_session(tmp_path, "capital-of-f").name == "2026-11-22-capital-of-france"
    assert find_session(tmp_path, "hai").name == "hai"
    with pytest.raises(UsageError, match="2 sessions begin with capital") as several:
        find_session(tmp_path, "capital")
    assert "france" in several.value.hint
    assert "peru" in several.value.hint
    with pytest.raises(NotFoundError) as near:
        find_session(tmp_path, "capital-of-frence")
    assert near.value.hint.startswith("did you mean 2026-11-22-capital-of-france")
    for name in ("", "nothing like it", "../hai", "/etc/passwd"):
        with pytest.raises(NotFoundError):
            find_session(tmp_path, name)


def test_damaged_ones_that_were_kept_are_listed_but_never_meant(tmp_path: Path) -> None:
    path = saved(tmp_path, "talk", "one", "two", "three")
    path.write_bytes(path.read_bytes().replace(b'"two"', b"two"))
    warnings: list[str] = []
    session, _ = SessionFile.open(path, warnings.append)
    session.close()
    os.utime(path, (1, 1))
    assert {one.name for one in list_sessions(tmp_path)} == {"talk", "talk.damaged"}
    assert latest_session(tmp_path).name == "talk"
    assert find_session(tmp_path, "tal").name == "talk"
    kept = read_session(find_session(tmp_path, "talk.damaged").path)
    assert (kept.damaged_line, [one.message.content for one in kept.conversation.entries]) == (3, ["one"])


def test_latest(tmp_path: Path) -> None:
    saved(tmp_path, "b", "Hi", at=2000)
    saved(tmp_path, "a", "Hi", at=3000)
    assert latest_session(tmp_path).name == "a"


def test_remove_leaves_what_a_chat_has_open(tmp_path: Path) -> None:
    paths = [saved(tmp_path, name, "Hi") for name in ("a", "b", "c")]
    size = paths[0].stat().st_size + paths[2].stat().st_size
    session, _ = SessionFile.open(paths[1], no_warning)
    removed = remove_sessions(paths)
    assert (removed.names, removed.kept, removed.bytes) == (("a", "c"), ("b",), size)
    assert [one.name for one in list_sessions(tmp_path)] == ["b"]
    session.close()
    assert remove_sessions([paths[1]]).names == ("b",)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path: Path) -> None:
    (tmp_path / "chats").write_text("in the way")
    with pytest.raises(HermesError, match="cannot be read"):
        list_sessions(tmp_path / "chats")


def test_a_thousand_sessions_are_listed_soon(tmp_path: Path) -> None:
    data = saved(tmp_path, "first", *(f"{number} {'word ' * 200}" for number in range(20))).read_bytes()
    for number in range(1000):
        (tmp_path / f"s{number}.jsonl").write_bytes(data)
    before = time.process_time()  # of this process alone, whatever else the machine does
    listed = list_sessions(tmp_path)
    took = time.process_time() - before
    assert len(listed) == 1001
    assert {one.messages for one in listed} == {20}
    assert took < 10  # 0.3 s is usual
    print(f"{took * 1000:.0f} ms for {len(listed) * len(data) / 1e6:.0f} MB")  # noqa: T201 - read with pytest -s
