"""The sessions of this user: files of one folder. Links in it, and what else somebody put there, are left alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.chat.conversation import Conversation
from hermes_cli.chat.sessions import format as record
from hermes_cli.chat.sessions import names
from hermes_cli.chat.sessions.files import SessionLock, explained, open_file
from hermes_cli.errors import HermesError, NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

SEE = "see what is saved: hermes sessions"
MOST_NAMED = 5  # in an error


@dataclass(frozen=True)
class SessionInfo:
    """A session as a list shows it.

    Attributes:
        name: what to type for it.
        title: as it is named, or its first question; on one line.
        model: that answered last, or that it began with.
        messages: how many it has.
        modified: when something was added last, in seconds since 1970.
        bytes: the length of its file.
        path: its file.
        problem: why it cannot be read; None if it can.
    """

    name: str
    title: str
    model: str
    messages: int
    modified: float
    bytes: int
    path: Path
    problem: str | None = None


@dataclass(frozen=True)
class SavedSession:
    """A session that was read, and not opened to go on.

    Attributes:
        conversation: as far as it could be read.
        model: that answered last, or that it began with; empty if neither can be read.
        damaged: the line from which on it could not, counted from 1; None if all could.
    """

    name: str
    conversation: Conversation
    model: str
    damaged: int | None


@dataclass(frozen=True)
class RemovedSessions:
    """What became of sessions that were to go: the names of those that went, their bytes, and those in use."""

    names: tuple[str, ...]
    bytes: int
    kept: tuple[str, ...]


def sessions(folder: Path) -> list[SessionInfo]:
    """All there are, newest first.

    Raises:
        HermesError: the folder cannot be read.
    """
    return [_seen(path, stat) for path, stat in _files(folder)]


def find(folder: Path, name: str) -> SessionInfo:
    """The session that is called so, or the only one whose name begins so, with or without its date.

    Raises:
        NotFoundError: there is none.
        UsageError: there are several.
        HermesError: the folder cannot be read.
    """
    here = {names.name_of(path): (path, stat) for path, stat in _files(folder)}
    if name in here:
        return _seen(*here[name])
    whole = [one for one in here if not names.is_damaged(one)]
    meant = [one for one in whole if name and (one.startswith(name) or names.without_date(one).startswith(name))]
    if len(meant) == 1:
        return _seen(*here[meant[0]])
    if meant:
        more = f" and {len(meant) - MOST_NAMED} more" if len(meant) > MOST_NAMED else ""
        raise UsageError(
            f"{len(meant)} sessions begin with {name}.", hint=f"say which: {', '.join(meant[:MOST_NAMED])}{more}"
        )
    raise NotFoundError(f"there is no session {name}.", hint=_near(name, whole))


def latest(folder: Path) -> SessionInfo:
    """The session that something was added to last.

    Raises:
        NotFoundError: there is none.
        HermesError: the folder cannot be read.
    """
    for path, stat in _files(folder):
        if not names.is_damaged(names.name_of(path)):
            return _seen(path, stat)
    raise NotFoundError("there is no session to continue.", hint="begin one: hermes chat")


def read(path: Path) -> SavedSession:
    """A session to look at, whether a chat has it open or not.

    Raises:
        IntegrityError: it is no session, or one of a newer version.
        HermesError: it cannot be read.
    """
    name = names.name_of(path)
    with explained("read", path), open_file(path, os.O_RDONLY) as file:
        data = file.readall()
    found = record.decode(data, name)
    conversation = Conversation.of(found.changes)
    return SavedSession(name, conversation, found.model_of(conversation), found.damaged)


def remove(paths: Iterable[Path]) -> RemovedSessions:
    """Remove sessions, but for those that a chat has open.

    Raises:
        HermesError: one cannot be removed; those before it are gone.
    """
    gone, kept, freed = list[str](), list[str](), 0
    for path in paths:
        name = names.name_of(path)
        try:
            with explained("removed", path):
                freed += _remove(path)
            gone.append(name)
        except UsageError:
            kept.append(name)
    return RemovedSessions(tuple(gone), freed, tuple(kept))


def _near(name: str, whole: Iterable[str]) -> str:
    """What may have been meant."""
    import difflib  # noqa: PLC0415 - 5 ms, only for a name that is wrong

    spoken = {key: one for one in whole for key in (one, names.without_date(one))}
    close = dict.fromkeys(spoken[key] for key in difflib.get_close_matches(name, spoken, MOST_NAMED))
    return f"did you mean {', '.join(close)}?" if close else f"{SEE}."


def _files(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """The files of sessions, the one last written first."""
    try:
        with explained("read", folder), os.scandir(folder) as entries:
            found = [
                (Path(entry.path), entry.stat(follow_symlinks=False))
                for entry in entries
                if entry.name.endswith(names.SUFFIX)
                and not entry.name.startswith(".")
                and entry.is_file(follow_symlinks=False)
            ]
    except HermesError:
        if not os.path.lexists(folder):
            return []
        raise
    return sorted(found, key=lambda one: (one[1].st_mtime_ns, one[0].name), reverse=True)


def _seen(path: Path, stat: os.stat_result) -> SessionInfo:
    name, problem = names.name_of(path), None
    try:
        with explained("read", path), BufferedReader(open_file(path, os.O_RDONLY)) as lines:
            found = record.glimpse(lines, name)
    except HermesError as error:
        found, problem = record.SessionSummary("", "", 0), error.message
    return SessionInfo(name, found.title, found.model, found.messages, stat.st_mtime, stat.st_size, path, problem)


def _remove(path: Path) -> int:
    """Bytes that are free now."""
    claim = SessionLock(path)
    try:
        size = path.lstat().st_size
        path.unlink()
    finally:
        claim.release()
    return size
