"""The session format: names of sessions, and their files: a header, then one change of a conversation per line.

    {"hermes_chat":1,"created":1795387081.2,"model":"hermes-3:8b"}
    {"type":"said","message":{"role":"user","content":"Who are you?", …},"at":1795387083.9}

Lines are only ever appended. So after a crash every line but the last is complete; if another one is not, something
else damaged the file.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import msgspec

from hermes_cli.chat.conversation import Change, Conversation
from hermes_cli.errors import IntegrityError, UsageError

VERSION = 1
SUFFIX = ".jsonl"
MAX_CHARACTERS = 100  # of a name
MAX_BYTES = 200  # in UTF-8: file systems allow 255, and our suffixes are added
SLUG_WORDS, SLUG_CHARACTERS = 6, 40

_DATE = re.compile(r"\d{4}-\d\d-\d\d-")
_DAMAGED = re.compile(r"\.damaged(-\d+)?\Z")
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # reserved on Windows, with any suffix

_DECODER = msgspec.json.Decoder(Change)


class SessionHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The first line: format version, creation time in seconds since 1970, and the model it began with."""

    hermes_chat: int = VERSION
    created: float
    model: str


@dataclass(frozen=True)
class SavedSession:
    """The readable part of a session file."""

    name: str
    header: SessionHeader | None  # None if the file ends within it
    changes: list[Change]  # those before the first incomplete line; they make the `conversation`
    conversation: Conversation
    size: int  # bytes of header and changes
    damaged_line: int | None  # number of a line in the middle that is not a change; None if there is none

    @property
    def model(self) -> str:
        """Model of the last answer, else that of the header, else an empty string."""
        models = (entry.model for entry in reversed(self.conversation.entries) if entry.model)
        return next(models, self.header.model if self.header else "")


def encode(line: SessionHeader | Change) -> bytes:
    """Return a line of the file."""
    value = msgspec.to_builtins(line)
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair, as a broken tool may return it: only \u escapes can hold it
        text = json.dumps(value, separators=(",", ":")).encode()
    return text + b"\n"


def decode(data: bytes, name: str) -> SavedSession:
    """Parse the whole file of a session; raise IntegrityError if it is none, or one of a newer version."""
    header, damaged_line, changes, size, number = None, None, list[Change](), 0, 0
    while size < len(data):
        number += 1
        end = data.find(b"\n", size)
        line = data[size:] if end < 0 else data[size:end]
        if number == 1:
            header = _header(line, name, truncated=end < 0)
            if header is None:
                break
        elif change := _change(line):
            changes.append(change)
        else:
            damaged_line = None if end < 0 else number
            break
        size = len(data) if end < 0 else end + 1
    return SavedSession(name, header, changes, Conversation.replay(changes), size, damaged_line)


def _header(line: bytes, name: str, *, truncated: bool) -> SessionHeader | None:
    try:
        value = json.loads(line.decode())
        if isinstance(value, dict) and isinstance(version := value.get("hermes_chat"), int) and version > VERSION:
            raise IntegrityError(
                f"the session {name} was written by a newer hermes (format {version}; this one reads {VERSION}).",
                hint="bring hermes up to date.",
            )
        return msgspec.convert(value, SessionHeader)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        if truncated:
            return None
        raise IntegrityError(
            f"the session {name} does not begin like a session of hermes.",
            hint=f"look at the file, or remove it: hermes sessions rm {name}",
        ) from None


def _change(line: bytes) -> Change | None:
    try:
        return _DECODER.decode(line)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        pass
    try:
        change: Change = msgspec.convert(json.loads(line.decode()), Change)  # takes half a surrogate pair, too
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return None
    return change


def checked_name(name: str) -> str:
    """Return a name from the user in NFC, safe in a path and in a shell, or raise UsageError."""
    name = unicodedata.normalize("NFC", name)
    if not name or len(name) > MAX_CHARACTERS or len(name.encode("utf-8", "replace")) > MAX_BYTES:
        raise UsageError(f"the name of a session has 1 to {MAX_CHARACTERS} characters.", hint="choose a shorter name.")
    if not all(_is_letter(character) or character in "-_." for character in name) or name[0] in "-." or name[-1] == ".":
        raise UsageError(
            f"a session cannot be called {name}.",
            hint="use letters, digits, - _ and . in its name, and begin it with a letter or a digit.",
        )
    if is_damaged(name) or _DEVICE.match(name):
        raise UsageError(f"a session cannot be called {name}: that name is taken.", hint="choose another name.")
    return name


def is_damaged(name: str) -> bool:
    """Return whether the name is that of a damaged file that was kept aside."""
    return _DAMAGED.search(name) is not None


def name_from_question(question: str, at: float) -> str:
    """Return a name of the date and the first words of a question, such as `2026-11-22-who-are-you`."""
    lower = unicodedata.normalize("NFC", question[:1000].lower())
    words = "".join(character if _is_letter(character) else " " for character in lower).split()
    slug = ""
    for word in words[:SLUG_WORDS]:
        if slug and len(slug) + len(word) >= SLUG_CHARACTERS:
            break
        slug = f"{slug}-{word}"[: SLUG_CHARACTERS + 1]
    return f"{datetime.fromtimestamp(at, UTC).astimezone():%Y-%m-%d}{slug or '-chat'}"


def numbered(name: str) -> Iterator[str]:
    """Yield the name, then the name with -2, -3 and so on."""
    yield name
    yield from (f"{name}-{number}" for number in count(2))


def without_date(name: str) -> str:
    """Return the part of a name that `name_from_question` took from the question."""
    return _DATE.sub("", name, count=1)


def path_of(folder: Path, name: str) -> Path:
    """Return the file of a session."""
    return folder / f"{name}{SUFFIX}"


def name_of(path: Path) -> str:
    """Return the session of a file."""
    return path.name.removesuffix(SUFFIX)


def _is_letter(character: str) -> bool:
    """Return whether it is a letter or digit of any script, or a mark that belongs to letters."""
    return character == "_" or unicodedata.category(character)[0] in "LMN"
