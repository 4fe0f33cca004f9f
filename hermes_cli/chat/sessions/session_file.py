"""One conversation on disk, as it goes: every change is there, flushed, before the next thing happens.

A chat never ends because of its file. What cannot be written waits in memory, and goes to the disk as soon as that
takes it. How lines are made and read is in record.py, who may write them in claim.py.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from copy import copy
from typing import TYPE_CHECKING

from hermes_cli.chat.conversation import Conversation, MessageAdded, OptionsChanged, SummaryAdded, TitleChanged
from hermes_cli.chat.options import ChatOptions
from hermes_cli.chat.sessions import format as record
from hermes_cli.chat.sessions import names
from hermes_cli.chat.sessions.files import SessionLock, explained, flush_folder, make_folder, open_file
from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO
    from pathlib import Path

    from hermes_cli.chat.conversation import Change
    from hermes_cli.chat.sessions.format import SessionContents, SessionHeader

    Warn = Callable[[str], None]


class SessionFile:
    """A session that this process writes; nobody else can, until it is closed."""

    def __init__(self, folder: Path, name: str | None, warn: Warn) -> None:
        """For `create` and `open`."""
        self._folder, self._wanted, self._warn = folder, name, warn
        self._claim: SessionLock | None = None
        self._file: FileIO | None = None
        # How many bytes of the file are whole, and what comes next. One attribute, since Ctrl-C can come between two.
        self._state: tuple[int, tuple[SessionHeader | Change, ...]] = (0, ())
        self._failing = False
        self.model = ""

    @classmethod
    def create(
        cls, folder: Path, conversation: Conversation, model: str, warn: Warn, name: str | None = None
    ) -> SessionFile:
        """Keep a conversation from now on, with what is in it already. There is no file before its first message.

        Args:
            folder: where sessions are; made when needed.
            conversation: tells its changes to this session from now on.
            model: that it begins with, as a user would name it.
            warn: is told what goes wrong with the file.
            name: what to call it; None for the date and the first question.

        Raises:
            UsageError: it cannot be called so, or another one is.
        """
        session = cls(folder, None, warn)
        session.model = model
        if name is not None:
            session.rename(name)
        session._state = (0, (record.SessionHeader(created=time.time(), model=model), *_changes_of(conversation)))
        session._save()
        conversation.keep = session.keep
        return session

    @classmethod
    def open(cls, path: Path, warn: Warn) -> tuple[SessionFile, Conversation]:
        """Go on with a session.

        A line at the end that is not whole is cut off. A damaged file is kept aside, and a new one begins with what
        could be read of it. Both are said.

        Raises:
            UsageError: it is open in another chat, or a damaged one that was kept aside.
            IntegrityError: it is no session, or one of a newer version.
            HermesError: it cannot be read or written.
        """
        name = names.name_of(path)
        if names.is_damaged(name):
            raise UsageError(
                f"{name} is a damaged session that was kept aside.", hint=f"look at it: hermes sessions show {name}"
            )
        session = cls(path.parent, name, warn)
        with explained("opened", path):
            open_file(path, os.O_RDWR).close()  # no lock for what is not there
            session._claim = SessionLock(path)
        try:
            with explained("opened", path):
                conversation = session._resume(path, name)
        except BaseException:
            session._let_go()
            raise
        conversation.keep = session.keep
        return session, conversation

    @property
    def name(self) -> str | None:
        """What it is called; None as long as there is no file."""
        return names.name_of(self._claim.path) if self._claim else None

    @property
    def path(self) -> Path | None:
        """Its file; None as long as there is none."""
        return self._claim.path if self._claim else None

    def keep(self, change: Change) -> None:
        """Have a change on disk when this returns; if that fails, say so once, and try again with the next one."""
        whole, waiting = self._state
        self._state = whole, (*waiting, change)
        self._save()

    def rename(self, name: str) -> None:
        """Call it something else.

        Raises:
            UsageError: it cannot be called so, or another session is.
            HermesError: the disk refuses.
        """
        name = names.checked(name)
        target = names.path_of(self._folder, name)
        if self._claim is None:
            _must_be_free(target)
            self._wanted = name
        elif name != self.name:
            with explained("made", target):
                claim = SessionLock(target)
            try:
                _must_be_free(target)
                with explained("made", target):
                    self._close_file()  # Windows does not rename an open file; the next write opens it again
                    self._claim.path.rename(target)
            except BaseException:
                claim.release()
                raise
            before, self._claim = self._claim, claim
            before.release()
            with suppress(OSError):  # it has its name, if perhaps not after a loss of power
                flush_folder(self._folder)

    def close(self) -> None:
        """Write what waits, if that works now, and let others open it."""
        self._save()
        left = sum(isinstance(one, MessageAdded) for one in self._state[1])
        if left:
            self._warn(f"{'1 message' if left == 1 else f'{left} messages'} of this conversation could not be saved.")
        self._let_go()

    def _save(self) -> None:
        """Write what waits. Without a file, there has to be a message among it."""
        whole, waiting = self._state
        if not waiting or (self._claim is None and not any(isinstance(one, MessageAdded) for one in waiting)):
            return
        try:
            file, begins = self._file or self._reopen() or self._begin(), whole == 0
            data = b"".join(map(record.encode, waiting))
            _write(file, whole, data)
            self._state = whole + len(data), ()
            if begins:
                flush_folder(self._folder)
        except OSError as error:
            if not self._failing:
                reason = error.strerror or error
                self._warn(f"the conversation cannot be saved: {reason}. It goes on, and saving is tried again.")
            self._failing = True
            return
        if self._failing:
            self._warn("the conversation is saved again, with all that was said meanwhile.")
        self._failing = False

    def _reopen(self) -> FileIO | None:
        """Open the file again after `rename` closed it; return None if there is no file yet."""
        if self._claim:
            self._file = open_file(self._claim.path, os.O_RDWR)
        return self._file

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file:
            file.close()

    def _begin(self) -> FileIO:
        """An empty file under a name that nobody has."""
        make_folder(self._folder)
        for name in names.variants(self._wanted or self._name()):
            path = names.path_of(self._folder, name)
            if os.path.lexists(path):
                continue
            try:
                self._claim = SessionLock(path)
                self._file = open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            except (UsageError, FileExistsError):  # somebody else was faster
                self._let_go()
            except BaseException:
                self._let_go()
                raise
            else:
                return self._file
        raise AssertionError  # there is always a next variant

    def _name(self) -> str:
        """Out of the first question that waits."""
        said = [one for one in self._state[1] if isinstance(one, MessageAdded)]
        asked = next((one for one in said if one.message.role == "user"), said[0])
        return names.made_of(asked.message.content or "", asked.at)

    def _resume(self, path: Path, name: str) -> Conversation:
        """Read the file, and put it in order."""
        with open_file(path, os.O_RDWR) as file:
            data = file.readall()
        read = record.decode(data, name)
        if read.damaged:
            aside = _set_aside(path, data[: read.whole])
            self._warn(
                f"the session {name} is damaged in line {read.damaged:,}: it goes on with the "
                f"{_messages(read)} before that. The damaged file is kept as {aside.name}."
            )
        self._file = open_file(path, os.O_RDWR)
        if read.whole < len(data) and not read.damaged:
            self._file.truncate(read.whole)
            self._warn(
                f"the last line of the session {name} was not written to its end, and is cut off: "
                f"{_messages(read)} could be read."
            )
        elif read.whole and not data[: read.whole].endswith(b"\n"):
            _write(self._file, read.whole, b"\n")
        header = read.header or record.SessionHeader(created=time.time(), model="")
        self._state = os.fstat(self._file.fileno()).st_size, () if read.header else (header,)
        conversation = Conversation.of(read.changes)
        self.model = read.model_of(conversation)
        return conversation

    def _let_go(self) -> None:
        self._close_file()
        claim, self._claim = self._claim, None
        if claim:
            claim.release()


def _must_be_free(path: Path) -> None:
    """Raises UsageError: a session is there."""
    if os.path.lexists(path):
        raise UsageError(f"there is a session {names.name_of(path)} already.", hint="choose another name.")


def _write(file: FileIO, at: int, data: bytes) -> None:
    """Put data on disk, all of it or nothing.

    Raises:
        OSError: the disk does not take it.
    """
    left = memoryview(data)
    file.seek(at)
    try:
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            file.truncate(at)
        raise


def _set_aside(path: Path, whole: bytes) -> Path:
    """Give a damaged file another name, untouched, and its name to a new one; whatever interrupts it, both are there.

    Returns:
        Where the damaged one is.

    Raises:
        OSError: the disk refuses; nothing has changed, then.
    """
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)  # of one who was interrupted
    try:
        with open_file(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL) as file:
            _write(file, 0, whole)
        numbered = names.variants(f"{names.name_of(path)}.damaged")
        aside = next(one for name in numbered if not os.path.lexists(one := names.path_of(path.parent, name)))
        try:
            aside.hardlink_to(path)
        except OSError:  # a file system without links
            path.rename(aside)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    flush_folder(path.parent)
    return aside


def _messages(read: SessionContents) -> str:
    count = len(Conversation.of(read.changes).said)
    return "1 message" if count == 1 else f"{count:,} messages"


def _changes_of(conversation: Conversation) -> list[Change]:
    """Changes that make the same conversation, without what was taken back."""
    unfolded, summaries = copy(conversation), list[SummaryAdded]()
    unfolded.keep = lambda _: None
    while unfolded.summary:
        summaries.insert(0, unfolded.summary)
        unfolded.expand()
    changes: list[Change] = [OptionsChanged(conversation.manner)] if conversation.manner != ChatOptions() else []
    changes += [TitleChanged(conversation.title)] if conversation.title else []
    return [*changes, *conversation.said, *summaries]
