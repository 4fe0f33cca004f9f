"""Who may write to a session: the one process that holds its lock. A lock ends with its process, however that ends."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from io import FileIO
from typing import TYPE_CHECKING

from hermes_cli.chat.sessions.names import name_of
from hermes_cli.errors import HermesError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class SessionLock:
    """The right to write to a session, and to rename and remove it."""

    def __init__(self, path: Path) -> None:
        """Take it.

        Args:
            path: of the session's file, which need not exist; its folder must.

        Raises:
            UsageError: some chat has it.
            OSError: there can be no lock in this folder.
        """
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
        """Give it back. The lock's file goes while the lock is held: whoever opened it meanwhile tries again."""
        with suppress(OSError):  # Windows keeps what is open
            os.unlink(self._lock.lock_file)  # noqa: PTH108 - a path as text
        self._lock.release()


def make_folder(folder: Path) -> None:
    """Make the folder of sessions, or make it private: names say what was talked about.

    Raises:
        OSError: it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if os.name == "posix" and stat.S_IMODE(folder.stat().st_mode) & 0o077:
        folder.chmod(0o700)


def open_file(path: Path, flags: int) -> FileIO:
    """A file of the folder itself: private if it is new, and never one that a link leads to.

    Raises:
        OSError: it cannot be opened, or is no plain file.
    """
    if path.is_symlink():  # not every system has O_NOFOLLOW
        raise OSError(0, "it is a link to somewhere else")
    handle = os.open(path, flags | _NO_LINKS, 0o600)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(0, "it is no plain file")
    return FileIO(handle, "rb" if flags & (os.O_WRONLY | os.O_RDWR) == 0 else "r+b")


def flush_folder(folder: Path) -> None:
    """Have names survive a loss of power, where a folder can be flushed.

    Raises:
        OSError: the disk failed.
    """
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def explained(doing: str, path: Path) -> Iterator[None]:
    """Say what could not be done with a file.

    Raises:
        HermesError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise HermesError(
            f"{path} cannot be {doing}: {error.strerror or error}.",
            hint="see where sessions are with `hermes paths`, and whether you may write there.",
        ) from None
