"""Text files that go with a message."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_cli.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_BYTES = 16 << 20  # more than any context holds


@dataclass(frozen=True)
class Attachment:
    """A file's name and its text."""

    name: str
    text: str


def read_file(given: str) -> Attachment:
    """A text file.

    Raises:
        NotFoundError: there is none of this name.
        UsageError: it is no text, or too large for any context.
    """
    try:
        path = Path(given).expanduser()
        if not path.is_file():
            what = "is a directory" if path.is_dir() else "there is no such file"
            raise NotFoundError(f"{given}: {what}.", hint="give the path of a text file; Tab completes it.")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UsageError(f"{given} has {size:,} bytes, and no context holds that.", hint="give a part of it.")
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{given} is not text (byte {error.start:,} is not UTF-8).", hint="give a text file, not a binary one."
        ) from None
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise NotFoundError(f"{given} cannot be read: {reason}.", hint="check its name and permissions.") from None
    if "\0" in text:
        raise UsageError(f"{given} is not text (it has NUL bytes).", hint="give a text file, not a binary one.")
    return Attachment(path.name, text)


def with_files(text: str, files: Sequence[Attachment]) -> str:
    """A message, the files above it, each between fences that are in none of it."""
    parts = []
    for file in files:
        fence = "```"
        while fence in file.text:
            fence += "`"
        parts.append(f"{file.name}:\n{fence}\n{file.text.rstrip()}\n{fence}")
    return "\n\n".join([*parts, text] if text else parts)
