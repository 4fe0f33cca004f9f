"""One conversation on disk: every change is written and flushed before the chat goes on.

A chat never ends because of its file. What cannot be written stays in memory and is written with a later change.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from io import FileIO
from pathlib import Path

from hermes_cli.chat.conversation import (
    Change,
    ChatOptions,
    Conversation,
    MessageAdded,
    OptionsChanged,
    SummaryAdded,
    TitleChanged,
)
from hermes_cli.chat.sessions.format import (
    SessionHeader,
    checked_name,
    decode,
    encode,
    is_damaged,
    name_from_question,
    name_of,
    numbered,
    path_of,
)
from hermes_cli.errors import HermesError, UsageError
from hermes_cli.units import counted

_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class SessionFile:
    """A session that this process writes; no other process can until it is closed."""

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        """Use `create` or `open` instead."""
        self._folder, self._warn = folder, warn
        self._wanted_name: str | None = None  # of a file that is to be created
        self._lock: SessionLock | None = None
        self._file: FileIO | None = None
        # Bytes that are written, and lines that are not. One attribute, since Ctrl-C can come between two assignments.
        self._state: tuple[int, tuple[SessionHeader | Change, ...]] = (0, ())
        self._failing = False
        self.model = ""

    @classmethod
    def create(
        cls, folder: Path, conversation: Conversation, model: str, warn: Callable[[str], None], name: str | None = None
    ) -> SessionFile:
        """Save a conversation from now on, with what is in it. The file appears with its first message.

        `model` is for the header, `warn` is called with problems of the file. Without a name the session is called by
        the date and the first question; errors as of `rename`.
        """
        session = cls(folder, warn)
        session.model = model
        if name is not None:
            session.rename(name)
        session._state = (0, (SessionHeader(created=time.time(), model=model), *_changes_of(conversation)))
        session._save()
        conversation.on_change = session.add
        return session

    @classmethod
    def open(cls, path: Path, warn: Callable[[str], None]) -> tuple[SessionFile, Conversation]:
        """Open a session to go on with it; raise UsageError if it is open in another chat, or was kept aside.

        An incomplete last line is cut off. A damaged file is kept aside, and a new one begins with what could be read
        of it. Both are warned of.
        """
        name = name_of(path)
        if is_damaged(name):
            raise UsageError(
                f"{name} is a damaged session that was kept aside.", hint=f"look at it: hermes sessions show {name}"
            )
        session = cls(path.parent, warn)
        with os_errors("opened", path):
            open_file(path, os.O_RDWR).close()  # no lock file for a missing session
            session._lock = SessionLock(path)
        try:
            with os_errors("opened", path):
                conversation = session._resume(path, name)
        except BaseException:
            session._release()
            raise
        conversation.on_change = session.add
        return session, conversation

    @property
    def name(self) -> str | None:
        """Name of the session; None as long as there is no file."""
        return name_of(self._lock.path) if self._lock else None

    @property
    def path(self) -> Path | None:
        """Path of the file; None as long as there is none."""
        return self._lock.path if self._lock else None

    def add(self, change: Change) -> None:
        """Write a change to disk; on failure warn once, and try again with the next change."""
        size, pending = self._state
        self._state = size, (*pending, change)
        self._save()

    def rename(self, name: str) -> None:
        """Give the session another name; raise UsageError if it is not allowed, or another session has it."""
        name = checked_name(name)
        target = path_of(self._folder, name)
        if self._lock is None:
            _check_free(target)
            self._wanted_name = name
        elif name != self.name:
            with os_errors("made", target):
                lock = SessionLock(target)
            try:
                _check_free(target)
                with os_errors("made", target):
                    self._close_file()  # Windows does not rename an open file; the next write opens it again
                    self._lock.path.rename(target)
            except BaseException:
                lock.release()
                raise
            before, self._lock = self._lock, lock
            before.release()
            with suppress(OSError):  # it has its name, if perhaps not after a loss of power
                flush_folder(self._folder)

    def close(self) -> None:
        """Write what is pending, warn of what cannot be written, and unlock the session."""
        self._save()
        unsaved = sum(isinstance(line, MessageAdded) for line in self._state[1])
        if unsaved:
            self._warn(f"{counted(unsaved, 'message')} of this conversation could not be saved.")
        self._release()

    def _save(self) -> None:
        """Write what is pending. A new file needs a message in it."""
        size, pending = self._state
        if not pending or (self._lock is None and not any(isinstance(line, MessageAdded) for line in pending)):
            return
        try:
            if self._file is None:  # a new session, or `rename` closed the file
                self._file = open_file(self._lock.path, os.O_RDWR) if self._lock else self._create_file()
            data = b"".join(map(encode, pending))
            _append(self._file, size, data)
            self._state = size + len(data), ()
            if size == 0:
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

    def _create_file(self) -> FileIO:
        make_private_folder(self._folder)
        messages = [line for line in self._state[1] if isinstance(line, MessageAdded)]
        question = next((line for line in messages if line.message.role == "user"), messages[0])
        wanted_name = self._wanted_name or name_from_question(question.message.content or "", question.at)
        for name in numbered(wanted_name):
            path = path_of(self._folder, name)
            if os.path.lexists(path):
                continue
            try:
                self._lock = SessionLock(path)
                return open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            except (UsageError, FileExistsError):  # another process was faster
                self._release()
            except BaseException:
                self._release()
                raise
        raise AssertionError  # the numbers do not end

    def _resume(self, path: Path, name: str) -> Conversation:
        """Read the file, and repair its end."""
        with open_file(path, os.O_RDWR) as file:
            data = file.readall()
        saved = decode(data, name)
        messages = counted(len(saved.conversation.entries), "message")
        if saved.damaged_line:
            aside = _set_aside(path, data[: saved.size])
            self._warn(
                f"the session {name} is damaged in line {saved.damaged_line:,}: it goes on with the "
                f"{messages} before that. The damaged file is kept as {aside.name}."
            )
        self._file = open_file(path, os.O_RDWR)
        if saved.size < len(data) and not saved.damaged_line:
            self._file.truncate(saved.size)
            self._warn(
                f"the last line of the session {name} was not written to its end, and is cut off: "
                f"{messages} could be read."
            )
        elif saved.size and not data[: saved.size].endswith(b"\n"):
            _append(self._file, saved.size, b"\n")
        pending = () if saved.header else (SessionHeader(created=time.time(), model=""),)
        self._state = os.fstat(self._file.fileno()).st_size, pending
        self.model = saved.model
        return saved.conversation

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file:
            file.close()

    def _release(self) -> None:
        self._close_file()
        lock, self._lock = self._lock, None
        if lock:
            lock.release()


def _check_free(path: Path) -> None:
    if os.path.lexists(path):
        raise UsageError(f"there is a session {name_of(path)} already.", hint="choose another name.")


def _append(file: FileIO, offset: int, data: bytes) -> None:
    """Write and flush data at an offset, all of it, or nothing if the disk raises OSError."""
    remaining = memoryview(data)
    file.seek(offset)
    try:
        while remaining:
            remaining = remaining[file.write(remaining) :]
        os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            file.truncate(offset)
        raise


def _set_aside(path: Path, readable: bytes) -> Path:
    """Rename a damaged file, untouched, and write its readable part under its name; return where the damaged one is.

    Whatever interrupts it, both are there. After an OSError nothing has changed.
    """
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)  # of an interrupted run
    try:
        with open_file(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL) as file:
            _append(file, 0, readable)
        names = numbered(f"{name_of(path)}.damaged")
        paths = (path_of(path.parent, name) for name in names)
        aside = next(candidate for candidate in paths if not os.path.lexists(candidate))
        try:
            aside.hardlink_to(path)
        except OSError:  # a file system without links
            path.rename(aside)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    flush_folder(path.parent)
    return aside


def _changes_of(conversation: Conversation) -> list[Change]:
    """Return changes that make the same conversation, without what was undone."""
    unfolded, summaries = copy(conversation), list[SummaryAdded]()
    unfolded.on_change = lambda _: None
    while unfolded.summary:
        summaries.insert(0, unfolded.summary)
        unfolded.expand()
    changes: list[Change] = [OptionsChanged(conversation.options)] if conversation.options != ChatOptions() else []
    changes += [TitleChanged(conversation.title)] if conversation.title else []
    return [*changes, *conversation.entries, *summaries]


class SessionLock:
    """The right to write, rename and remove a session. It ends with the process, however that ends."""

    def __init__(self, path: Path) -> None:
        """Lock a file, which need not exist; its folder must. UsageError if another chat has the session open."""
        from filelock import FileLock, Timeout  # noqa: PLC0415 - 30 ms, only where a session is written

        self.path = path
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0, mode=0o600, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise UsageError(
                f"the session {name_of(path)} is open in another chat.",
                hint="leave that chat first (Ctrl-D), or begin a new one.",
            ) from None

    def release(self) -> None:
        """Unlock. The lock file goes while it is locked: whoever opened it meanwhile tries again."""
        with suppress(OSError):  # Windows keeps what is open
            os.unlink(self._lock.lock_file)  # noqa: PTH108 - a path as text
        self._lock.release()


def make_private_folder(folder: Path) -> None:
    """Make the folder of sessions, readable by its owner alone: names tell what was talked about."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if os.name == "posix" and stat.S_IMODE(folder.stat().st_mode) & 0o077:
        folder.chmod(0o700)


def open_file(path: Path, flags: int) -> FileIO:
    """Open a plain file of the folder itself, never through a link; a new one is private. Raises OSError."""
    if path.is_symlink():  # not every system has O_NOFOLLOW
        raise OSError(0, "it is a link to somewhere else")
    handle = os.open(path, flags | _NO_LINKS, 0o600)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(0, "it is not a regular file")
    return FileIO(handle, "rb" if flags & (os.O_WRONLY | os.O_RDWR) == 0 else "r+b")


def flush_folder(folder: Path) -> None:
    """Make new names survive a loss of power, where a folder can be flushed."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def os_errors(action: str, path: Path) -> Iterator[None]:
    """Raise HermesError in place of OSError, with the action that failed and the file."""
    try:
        yield
    except OSError as error:
        raise HermesError(
            f"{path} cannot be {action}: {error.strerror or error}.",
            hint="see where sessions are with `hermes paths`, and whether you may write there.",
        ) from None
