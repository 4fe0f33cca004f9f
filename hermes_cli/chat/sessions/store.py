"""The sessions of this user, files of one folder: list, find, read and remove them, and the one that is in use.

Links in the folder and other files are left alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hermes_cli.chat.conversation import Conversation
from hermes_cli.chat.sessions.export import title_of
from hermes_cli.chat.sessions.format import SUFFIX, SavedSession, decode, is_damaged, name_of, without_date
from hermes_cli.chat.sessions.session_file import SessionFile, SessionLock, open_file, os_errors
from hermes_cli.errors import HermesError, NotFoundError, UsageError

MAX_LISTED = 5  # names in an error


@dataclass(frozen=True)
class SessionInfo:
    """A session in a list: first question where it has no title, seconds since 1970, length of its file in bytes.

    `problem` says why it cannot be read; None if it can.
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
class RemovedSessions:
    """Names of removed sessions, the bytes they took, and names of those that are in use and stay."""

    names: tuple[str, ...]
    bytes: int
    kept: tuple[str, ...]


def list_sessions(folder: Path) -> list[SessionInfo]:
    """Return all sessions, newest first."""
    return [_info(path, stat) for path, stat in _files(folder)]


def find_session(folder: Path, name: str) -> SessionInfo:
    """Return the session of a name, or the only one whose name begins so, with or without its date.

    Raise NotFoundError if there is none, UsageError if there are several.
    """
    existing = {name_of(path): (path, stat) for path, stat in _files(folder)}
    if name in existing:
        return _info(*existing[name])
    names = [other for other in existing if not is_damaged(other)]
    matches = [other for other in names if name and (other.startswith(name) or without_date(other).startswith(name))]
    if len(matches) == 1:
        return _info(*existing[matches[0]])
    if matches:
        more = f" and {len(matches) - MAX_LISTED} more" if len(matches) > MAX_LISTED else ""
        raise UsageError(
            f"{len(matches)} sessions begin with {name}.", hint=f"say which: {', '.join(matches[:MAX_LISTED])}{more}"
        )
    import difflib  # noqa: PLC0415 - 5 ms, only for a wrong name

    by_any_name = {key: other for other in names for key in (other, without_date(other))}
    close = dict.fromkeys(by_any_name[key] for key in difflib.get_close_matches(name, by_any_name, MAX_LISTED))
    hint = f"did you mean {', '.join(close)}?" if close else "see what is saved: hermes sessions, or /list in a chat."
    raise NotFoundError(f"there is no session {name}.", hint=hint)


def latest_session(folder: Path) -> SessionInfo:
    """Return the session that was written last; errors as of `find_session`."""
    for path, stat in _files(folder):
        if not is_damaged(name_of(path)):
            return _info(path, stat)
    raise NotFoundError("there is no session to continue.", hint="begin one: hermes chat")


def read_session(path: Path) -> SavedSession:
    """Read a session, whether a chat has it open or not; raise HermesError if it cannot be read."""
    with os_errors("read", path), open_file(path, os.O_RDONLY) as file:
        data = file.readall()
    return decode(data, name_of(path))


def remove_sessions(paths: Iterable[Path]) -> RemovedSessions:
    """Remove sessions, except those that a chat has open; after a HermesError those before it are gone."""
    removed, kept, freed = list[str](), list[str](), 0
    for path in paths:
        try:
            with os_errors("removed", path):
                lock = SessionLock(path)
                try:
                    freed += path.lstat().st_size
                    path.unlink()
                finally:
                    lock.release()
            removed.append(name_of(path))
        except UsageError:  # locked
            kept.append(name_of(path))
    return RemovedSessions(tuple(removed), freed, tuple(kept))


class CurrentSession:
    """The session of the running conversation: none, a new one, or one from earlier. Close it."""

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self._folder, self._warn = folder, warn
        self._file: SessionFile | None = None

    @property
    def name(self) -> str | None:
        """Name of the session; None if nothing is saved."""
        return self._file.name if self._file else None

    @property
    def model(self) -> str:
        """Name of the model of the last answer, or an empty string."""
        return self._file.model if self._file else ""

    def create(self, conversation: Conversation, model: str, name: str | None = None) -> None:
        """Save a conversation in a session of its own; errors as of `SessionFile.create`."""
        created = SessionFile.create(self._folder, conversation, model, self._warn, name)
        self.close()
        self._file = created

    def load(self, name: str | None) -> Conversation:
        """Go on with a session; None is the latest. Raise UsageError if it is open already, here or elsewhere."""
        info = latest_session(self._folder) if name is None else find_session(self._folder, name)
        if self._file and self._file.path == info.path:
            raise UsageError(f"{self.name} is the session that you are in.", hint="/list shows the others.")
        opened, conversation = SessionFile.open(info.path, self._warn)
        self.close()
        self._file = opened
        return conversation

    def save(self, name: str | None, conversation: Conversation, model: str) -> str:
        """Name the session, or create one where nothing was saved so far; return its name.

        Raise UsageError if the name is not allowed or taken, HermesError if there is nothing to save.
        """
        if not conversation.entries:
            raise HermesError("there is nothing to save yet.", hint="what you say is saved as you say it.")
        if self._file is None:
            self.create(conversation, model, name)
        elif name is not None:
            self._file.rename(name)
        if self.name is None:
            raise HermesError("the session could not be written.", hint="make room on the disk, and try again.")
        return self.name

    def sessions(self) -> Sequence[SessionInfo]:
        """Return all sessions, newest first."""
        return list_sessions(self._folder)

    def close(self) -> None:
        """Close the file, so that other chats can open the session."""
        if self._file:
            self._file.close()
            self._file = None


def _files(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """Return session files, the one last written first."""
    try:
        with os_errors("read", folder), os.scandir(folder) as entries:
            sessions = [
                (Path(entry.path), entry.stat(follow_symlinks=False))
                for entry in entries
                if entry.name.endswith(SUFFIX)
                and not entry.name.startswith(".")
                and entry.is_file(follow_symlinks=False)
            ]
    except HermesError:
        if not os.path.lexists(folder):
            return []
        raise
    return sorted(sessions, key=lambda file: (file[1].st_mtime_ns, file[0].name), reverse=True)


def _info(path: Path, stat: os.stat_result) -> SessionInfo:
    title, model, messages, problem = "", "", 0, None
    try:
        saved = read_session(path)
        title, model, messages = title_of(saved.conversation), saved.model, len(saved.conversation.entries)
    except HermesError as error:
        problem = error.message
    return SessionInfo(name_of(path), title, model, messages, stat.st_mtime, stat.st_size, path, problem)
