"""The clipboard: of the system where a program reaches it, else of the terminal (OSC 52), which works over ssh, too."""

from __future__ import annotations

import base64
import sys

from hermes_cli.errors import HermesError

MOST_BYTES = 74_994  # of text that terminals take at once (xterm's limit of 100,000 bytes of base64)


def copy(text: str) -> str:
    """Copy a text; says to where.

    Raises:
        HermesError: there is no clipboard that it fits into.
    """
    import pyperclip  # noqa: PLC0415 - it looks for programs, and few conversations copy

    try:
        pyperclip.copy(text)
    except pyperclip.PyperclipException:
        raw = text.encode("utf-8", "replace")
        if len(raw) > MOST_BYTES or not sys.stdout.isatty():
            raise HermesError(
                "there is no clipboard here that this fits into.", hint="write it to a file: /export md answer.md"
            ) from None
        sys.stdout.write(f"\x1b]52;c;{base64.b64encode(raw).decode()}\a")
        sys.stdout.flush()
        return "by the terminal, if it allows that"
    return "to the clipboard"
