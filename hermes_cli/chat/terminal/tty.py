"""What is typed while the model answers is kept for the next line, but must not be echoed into the answer."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any


class TerminalEcho:
    """The echo of the terminal that standard input is, if it is one."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None

    def off(self) -> None:
        """Show nothing of what is typed; Ctrl-C works on."""
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
        """As it was."""
        if sys.platform == "win32" or self._before is None:
            return
        import termios  # noqa: PLC0415 - not on Windows

        with suppress(OSError, ValueError, AttributeError, termios.error):
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._before)
        self._before = None


def forget_typed() -> None:
    """Drop what was typed before a question was seen: it is no answer to it."""
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 - Windows only

        while msvcrt.kbhit():
            msvcrt.getwch()
        return
    import termios  # noqa: PLC0415 - not on Windows

    with suppress(OSError, ValueError, AttributeError, termios.error):
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
