"""Text files that are sent with a message."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_BYTES = 16 << 20  # more than any context holds


@dataclass(frozen=True)
class Attachment:
    """A file's name and its text."""

    name: str
    text: str


def read_attachment(path_text: str) -> Attachment:
    """Read a text file.

    Raises:
        NotFoundError: no such file, or it cannot be read.
        UsageError: not text, or too large for any context.
    """
    try:
        path = Path(path_text).expanduser()
        if not path.is_file():
            problem = "is a directory" if path.is_dir() else "there is no such file"
            raise NotFoundError(f"{path_text}: {problem}.", hint="give the path of a text file; Tab completes it.")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UsageError(f"{path_text} has {size:,} bytes, and no context holds that.", hint="give a part of it.")
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


def with_attachments(text: str, attachments: Sequence[Attachment]) -> str:
    """Return a message below its files, each between fences that are longer than any in it."""
    parts = []
    for file in attachments:
        fence = "```"
        while fence in file.text:
            fence += "`"
        parts.append(f"{file.name}:\n{fence}\n{file.text.rstrip()}\n{fence}")
    return "\n\n".join([*parts, text] if text else parts)
