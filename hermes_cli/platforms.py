"""Differences between operating systems that several rooms meet. docs/platforms.md has the whole table.

Functions take the platform, as `sys.platform` names it, so that every branch can be tested on any system.
"""

from __future__ import annotations

import codecs
import errno
import ipaddress
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path

REINSTALL = "pip install --force-reinstall --no-cache-dir"
INSTEAD_HINT = "take a server that is built already: hermes engine install llama-server"
REINSTALL_HINT = f"install it again: {REINSTALL} llama-cpp-python"
ENTRY_POINT = b"hermes_cli.cli"  # stands in every script that pip, pipx or uv make for us; Hermes Agent's says .main
STDIN = 0  # its file descriptor
# Characters that hermes draws with, in ASCII: bars, marks, arrows, and what stands between words.
_SIGNS = dict(zip("█▓▒░●◐○✓·•∴→←…━╸╺", "#=-.*~-x-*:><.=--", strict=True))


class _Lookalikes(dict[int, str]):
    def __missing__(self, code: int) -> str:
        return "?"


_LOOKALIKES = _Lookalikes({ord(sign): letter for sign, letter in _SIGNS.items()})


def child_python(platform: str = sys.platform) -> str:
    """Return the interpreter for child processes that get their `sys.path` from this one.

    On Windows the `python.exe` of a virtual environment only starts the real interpreter as a child of its own. Its
    process id would be the wrong one to measure and to end.
    """
    base: str | None = getattr(sys, "_base_executable", None)  # multiprocessing uses it in the same way
    return base if platform == "win32" and base else sys.executable


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask a program to end: Ctrl-C, SIGTERM and, on Windows, Ctrl-Break."""
    names = ("SIGINT", "SIGTERM", "SIGBREAK")
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


def is_loopback(host: str) -> bool:
    """Return whether an address, or its name, is reached from this machine alone."""
    host = host.strip("[]").lower()
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, section 6.3
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def drop_typed_ahead(descriptor: int) -> None:
    """Drop what was typed on a terminal before a question was seen: it is no answer to it."""
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - Windows only

        while msvcrt.kbhit():
            msvcrt.getwch()
        return
    import termios  # noqa: PLC0415 - not on Windows

    with suppress(termios.error):  # no terminal
        termios.tcflush(descriptor, termios.TCIFLUSH)


@contextmanager
def echo(descriptor: int, *, on: bool) -> Iterator[None]:
    """Have a terminal show what is typed, or not; as before in the end.

    What is typed while nobody reads it is kept either way, and shown again by the prompt that reads it.
    """
    if sys.platform == "win32":  # shows only what is read
        yield
        return
    import termios  # noqa: PLC0415 - not on Windows

    before = None
    with suppress(termios.error):  # no terminal
        before = termios.tcgetattr(descriptor)
        changed = [*before]
        changed[3] = changed[3] | termios.ECHO if on else changed[3] & ~termios.ECHO
        termios.tcsetattr(descriptor, termios.TCSANOW, changed)
    try:
        yield
    finally:
        with suppress(termios.error):
            if before is not None:
                termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def open_closed_streams() -> None:
    """Give the standard streams that were closed (`>&-`) to the null device, so that no file gets their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for good
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def prepare_streams(streams: Iterable[object], platform: str = sys.platform) -> None:
    """Let text streams take every character.

    A terminal that cannot show a character gets one of ASCII that stands for it, or else a `?` in its place. On Windows
    pipes and files get UTF-8 instead of the code page of the system, which has no room for most of Unicode;
    PYTHONIOENCODING overrides that.
    """
    codecs.register_error("hermes", _in_ascii)
    for stream in streams:
        if isinstance(stream, TextIOWrapper):
            use_utf8 = platform == "win32" and not stream.isatty() and "PYTHONIOENCODING" not in os.environ
            stream.reconfigure(encoding="utf-8" if use_utf8 else None, errors="hermes")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Encode what a stream has no characters for; the handler of `prepare_streams`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return error.object[error.start : error.end].translate(_LOOKALIKES), error.end


def is_broken_pipe(error: OSError, platform: str = sys.platform) -> bool:
    """Return whether a write failed because the reader of a pipe left. Windows calls that an invalid argument."""
    if isinstance(error, BrokenPipeError):
        return True
    return platform == "win32" and error.errno == errno.EINVAL and error.filename is None


def foreign_hermes(search_path: str | None = None) -> Path | None:
    """Return the program that typing `hermes` starts, if it is not this one (Nous' Hermes Agent, for instance)."""
    import shutil  # noqa: PLC0415 - the engine's process does without

    program = shutil.which("hermes", path=search_path)
    if program is None or ENTRY_POINT in Path(program).read_bytes():
        return None
    return Path(program)
