"""Files that go with a message."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_cli.chat.attachments import MAX_BYTES, Attachment, read_attachment, text_or_file, with_attachments
from hermes_cli.errors import HermesError


def test_a_file_stands_above_the_message_between_fences(tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_text("one\ntwo\n")
    assert (
        with_attachments("What is this?", [read_attachment(str(path))])
        == "notes.md:\n```\none\ntwo\n```\n\nWhat is this?"
    )


@given(st.text("`\nab"))
def test_no_text_ends_its_own_fence(text: str) -> None:
    whole = with_attachments("", [Attachment("a", text)])
    fence = whole.splitlines()[1]
    assert set(fence) == {"`"}
    assert fence not in text


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"\xff\xfe", "is not text"), (b"a\0b", "NUL"), (None, "no such file"), ("folder", "it is a folder")],
)
def test_what_is_no_text_is_one_clear_error(tmp_path: Path, content: bytes | str | None, says: str) -> None:
    path = tmp_path / "x"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(HermesError, match=says):
        read_attachment(str(path))


def test_a_system_prompt_may_stand_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "pirate.txt"
    path.write_text("You are a pirate.\n")
    assert text_or_file(f"@{path}") == "You are a pirate."
    for text in ("You are a pirate.", "@", f"As in:\n@{path}"):
        assert text_or_file(text) == text
    with pytest.raises(HermesError, match="no such file"):
        text_or_file("@none.txt")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(HermesError, match=f"{MAX_BYTES + 1:,} bytes"):
        read_attachment(str(path))


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "~nobody-at-all/x"])
def test_odd_names_are_no_crash(name: str) -> None:
    with pytest.raises(HermesError):
        read_attachment(name)
