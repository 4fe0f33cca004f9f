"""Session files: their names, their locks, and opening them safely."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from itertools import count
from typing import TYPE_CHECKING

from hermes_cli.errors import HermesError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUFFIX = ".jsonl"
MAX_CHARACTERS = 100
MAX_BYTES = 200  # in UTF-8: file systems allow 255, and our suffixes are added
SLUG_WORDS, SLUG_CHARACTERS = 6, 40

_DATE = re.compile(r"\d{4}-\d\d-\d\d-")
_DAMAGED = re.compile(r"\.damaged(-\d+)?$")
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # reserved on Windows, with any suffix
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def checked_name(name: str) -> str:
    """Return a name from the user in NFC, as file systems compare names. It is safe in a path and in a shell.

    Raises:
        UsageError: not allowed as the name of a session.
    """
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


class SessionLock:
    """The right to write, rename and remove a session. It ends with the process, however that ends."""

    def __init__(self, path: Path) -> None:
        """Lock a file, which need not exist; its folder must.

        Raises:
            UsageError: another chat has the session open.
            OSError: the folder allows no lock.
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
    """Open a plain file of the folder itself, never through a link; a new one is private.

    Raises:
        OSError: it cannot be opened, or is not a plain file.
    """
    if path.is_symlink():  # not every system has O_NOFOLLOW
        raise OSError(0, "it is a link to somewhere else")
    handle = os.open(path, flags | _NO_LINKS, 0o600)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(0, "it is no plain file")
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
