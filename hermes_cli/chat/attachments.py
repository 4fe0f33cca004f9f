"""Text files that go along with a message, or stand for a text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hermes_cli.errors import NotFoundError, UsageError

MAX_BYTES = 16 << 20  # more than any context holds


@dataclass(frozen=True)
class Attachment:
    """A file's name and its text."""

    name: str
    text: str


def read_attachment(path_text: str) -> Attachment:
    """Read a text file; raise NotFoundError or UsageError if there is none that fits any context."""
    try:
        path = Path(path_text).expanduser()
        if not path.is_file():
            problem = "it is a folder" if path.is_dir() else "there is no such file"
            raise NotFoundError(f"{path_text}: {problem}.", hint="give the path of a text file.")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UsageError(
                f"{path_text} has {size:,} bytes, which is too much for any context.", hint="give a part of it."
            )
        text = path.read_bytes().decode("utf-8")
        if "\0" in text:
            raise UsageError(f"{path_text} is not text (it has NUL bytes).", hint="give a text file, not a binary one.")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path_text} is not text (byte {error.start:,} is not UTF-8).", hint="give a text file, not a binary one."
        ) from None
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise NotFoundError(f"{path_text} cannot be read: {reason}.", hint="check its name and permissions.") from None
    return Attachment(path.name, text)


def text_or_file(typed: str) -> str:
    """Return a text as it was typed, or that of the file which it names as `@path`; errors as of `read_attachment`."""
    is_path = typed.startswith("@") and len(typed) > 1 and "\n" not in typed
    return read_attachment(typed[1:]).text.strip() if is_path else typed


def unread_files(*texts: str) -> list[str]:
    """Return the files that texts name as `@path`, as other programs attach them; we send these words as they stand.

    To attach them by themselves would let a text that was pasted read any file.
    """
    names = [word[1:].rstrip(".,;:?!)") for text in texts for word in text.split() if word.startswith("@")]
    return [name for name in dict.fromkeys(names) if name and os.path.isfile(os.path.expanduser(name))]  # noqa: PTH111, PTH113 - any text


def with_attachments(text: str, attachments: Sequence[Attachment]) -> str:
    """Return a message below its files, each between fences that are longer than any in it."""
    parts = []
    for file in attachments:
        fence = "```"
        while fence in file.text:
            fence += "`"
        parts.append(f"{file.name}:\n{fence}\n{file.text.rstrip()}\n{fence}")
    return "\n\n".join([*parts, text] if text else parts)
