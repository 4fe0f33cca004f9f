"""The terminal itself: its echo, keys typed ahead, and the clipboard."""

from __future__ import annotations

import base64
import sys
from contextlib import suppress
from typing import Any

from hermes_cli.errors import HermesError

PROMPT = "> "
HOW_TO_LEAVE = "Ctrl-D or /bye leaves"
MAX_OSC52 = 74_994  # bytes that terminals take at once (xterm's limit of 100,000 bytes of base64)


class TerminalEcho:
    """The echo of standard input. What is typed while the model answers must not be echoed into the answer."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None

    def off(self) -> None:
        """Show nothing of what is typed; it is kept for the next line, and Ctrl-C still works."""
        if sys.platform == "win32" or self._before is not None:
            return  # Windows echoes only what is read
        import termios  # noqa: PLC0415 - not on Windows

        with suppress(OSError, ValueError, AttributeError, termios.error):  # no terminal
            descriptor = sys.stdin.fileno()
            before = termios.tcgetattr(descriptor)
            quiet = [*before]
            quiet[3] = before[3] & ~termios.ECHO
            termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
            self._before = before

    def on(self) -> None:
        """Restore the echo."""
        if sys.platform == "win32" or self._before is None:
            return
        import termios  # noqa: PLC0415 - not on Windows

        with suppress(OSError, ValueError, AttributeError, termios.error):
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._before)
        self._before = None


def drop_typed_ahead() -> None:
    """Drop what was typed before a question was seen: it is no answer to it."""
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - Windows only

        while msvcrt.kbhit():
            msvcrt.getwch()
        return
    import termios  # noqa: PLC0415 - not on Windows

    with suppress(OSError, ValueError, AttributeError, termios.error):
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)


def copy_to_clipboard(text: str) -> str:
    """Copy a text to the system's clipboard, else by the terminal (OSC 52, also over ssh); say which it was.

    Raises:
        HermesError: there is no clipboard that it fits into.
    """
    import pyperclip  # noqa: PLC0415 - it looks for programs, and few conversations copy

    try:
        pyperclip.copy(text)
    except pyperclip.PyperclipException:
        raw = text.encode("utf-8", "replace")
        if len(raw) > MAX_OSC52 or not sys.stdout.isatty():
            raise HermesError(
                "there is no clipboard here that this fits into.", hint="write it to a file: /export md answer.md"
            ) from None
        sys.stdout.write(f"\x1b]52;c;{base64.b64encode(raw).decode()}\a")
        sys.stdout.flush()
        return "by the terminal, if it allows that"
    return "to the clipboard"
