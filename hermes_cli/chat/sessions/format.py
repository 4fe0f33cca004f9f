"""A session as text: a header, then one change of the conversation on each line, as JSON.

    {"hermes_chat":1,"created":1795387081.2,"model":"hermes-3:8b"}
    {"type":"said","message":{"role":"user","content":"Who are you?", …},"at":1795387083.9}

Lines are only ever added. So whatever ends a chat, the file is a beginning of what was to be in it, and all lines but
the last are whole. Where one is not, something else damaged the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from hermes_cli.chat.conversation import Change, MessageAdded, TitleChanged, TurnsDropped
from hermes_cli.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hermes_cli.chat.conversation import Conversation

VERSION = 1
TITLE_CHARACTERS = 80

# What `encode` writes: enough to count messages without reading them.
_SAID = b'{"type":"said","message":{"role":"'
_DROPPED, _NAMED, _MODEL = b'{"type":"dropped",', b'{"type":"named",', b'"model":"'


class SessionHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The first line.

    Attributes:
        hermes_chat: version of the format.
        created: when, in seconds since 1970.
        model: that it began with, as a user would name it.
    """

    hermes_chat: int = VERSION
    created: float
    model: str


@dataclass(frozen=True)
class SessionContents:
    """What can be read of a file.

    Attributes:
        header: None if the file ends before it is whole.
        changes: all of them up to the first line that is not whole.
        whole: bytes that hold those.
        damaged: the line that is no change although others follow, counted from 1; None if there is none.
    """

    header: SessionHeader | None
    changes: tuple[Change, ...]
    whole: int
    damaged: int | None = None

    def model_of(self, conversation: Conversation) -> str:
        """That answered last in the conversation that came of it, or that it began with; empty if nothing says."""
        answered = (one.model for one in reversed(conversation.said) if one.model)
        return next(answered, self.header.model if self.header else "")


@dataclass(frozen=True)
class SessionSummary:
    """What a list of sessions shows of one.

    Attributes:
        title: as it is named, or the first question, on one line; empty if there is neither.
        model: that answered last, or that it began with.
        messages: how many there are.
    """

    title: str
    model: str
    messages: int


def encode(part: SessionHeader | Change) -> bytes:
    """A line."""
    value = msgspec.to_builtins(part)
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a character, as a broken tool may return it: JSON can only escape it
        text = json.dumps(value, separators=(",", ":")).encode()
    return text + b"\n"


def decode(data: bytes, name: str) -> SessionContents:
    """What a file says.

    Args:
        data: all of it.
        name: of the session, for errors.

    Raises:
        IntegrityError: it is no session, or one of a newer version.
    """
    header, changes, whole, number = None, [], 0, 0
    while whole < len(data):
        number += 1
        end = data.find(b"\n", whole)
        line = data[whole:] if end < 0 else data[whole:end]
        if number == 1:
            header = _header(line, name, cut=end < 0)
            read: SessionHeader | Change | None = header
        else:
            read = _change(line)
            changes += [] if read is None else [read]
        if read is None:
            return SessionContents(header, tuple(changes), whole, None if end < 0 else number)
        whole = len(data) if end < 0 else end + 1
    return SessionContents(header, tuple(changes), whole)


def glimpse(lines: Iterable[bytes], name: str) -> SessionSummary:
    """What a list shows, without reading messages that it does not.

    Raises:
        IntegrityError: as `decode`.
    """
    numbered = iter(lines)
    first = next(numbered, b"")
    header = _header(first, name, cut=not first.endswith(b"\n"))
    said: list[bytes] = []
    title = ""
    for line in numbered:
        if not line.endswith(b"\n") and _change(line) is None:
            break
        if line.startswith(_SAID):
            said.append(line)
        elif line.startswith((_DROPPED, _NAMED)):
            change = _change(line)
            if isinstance(change, TurnsDropped):
                del said[max(len(said) - max(change.count, 0), 0) :]
            elif isinstance(change, TitleChanged):
                title = change.title
    return SessionSummary(
        one_line(title or _question(said)), _model(said) or (header.model if header else ""), len(said)
    )


def one_line(text: str) -> str:
    """Text as a title: what fits on a line."""
    line = " ".join(text[: TITLE_CHARACTERS * 10].split())
    return line if len(line) <= TITLE_CHARACTERS else line[: TITLE_CHARACTERS - 1] + "…"


def _header(line: bytes, name: str, *, cut: bool) -> SessionHeader | None:
    """The header; None if the file ends in it."""
    try:
        value = json.loads(line.decode())
        if isinstance(value, dict) and isinstance(version := value.get("hermes_chat"), int) and version > VERSION:
            raise IntegrityError(
                f"the session {name} was written by a newer hermes (format {version}; this one reads {VERSION}).",
                hint="bring hermes up to date.",
            )
        return msgspec.convert(value, SessionHeader)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        if cut:
            return None
        raise IntegrityError(
            f"the session {name} does not begin as sessions of hermes do.",
            hint=f"look at the file, or remove it: hermes sessions rm {name}",
        ) from None


def _change(line: bytes) -> Change | None:
    try:
        change: Change = msgspec.convert(json.loads(line.decode()), Change)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return None
    return change


def _question(said: Sequence[bytes]) -> str:
    changes = (_change(line) for line in said if line.startswith(_SAID + b'user"'))
    return next((one.message.content or "" for one in changes if isinstance(one, MessageAdded)), "")


def _model(said: Sequence[bytes]) -> str:
    changes = (_change(line) for line in reversed(said) if _MODEL in line)
    return next((one.model for one in changes if isinstance(one, MessageAdded) and one.model), "")
