"""What sessions are called: a name is that of a file, so it holds nothing that a path or a shell would read into it."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING

from hermes_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUFFIX = ".jsonl"
LONGEST = 100  # characters
MOST_BYTES = 200  # in UTF-8: file systems take 255, and suffixes of ours come behind
SLUG_WORDS, SLUG_CHARACTERS = 6, 40

_DATE = re.compile(r"\d{4}-\d\d-\d\d-")
_DAMAGED = re.compile(r"\.damaged(-\d+)?$")
_OF_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # on Windows, with any suffix


def checked(name: str) -> str:
    """A name that a user gave, composed as file systems compare it (NFC).

    Raises:
        UsageError: no session can be called so.
    """
    name = unicodedata.normalize("NFC", name)
    if not name or len(name) > LONGEST or len(name.encode("utf-8", "replace")) > MOST_BYTES:
        raise UsageError(f"the name of a session has 1 to {LONGEST} characters.", hint="choose a shorter name.")
    if not all(_is_letter(one) or one in "-_." for one in name) or name[0] in "-." or name[-1] == ".":
        raise UsageError(
            f"a session cannot be called {name}.",
            hint="use letters, digits, - _ and . in its name, and begin it with a letter or a digit.",
        )
    if is_damaged(name) or _OF_DEVICES.match(name):
        raise UsageError(f"a session cannot be called {name}: that name is taken.", hint="choose another name.")
    return name


def is_damaged(name: str) -> bool:
    """Whether it is the name of a damaged file that was kept aside."""
    return _DAMAGED.search(name) is not None


def made_of(question: str, at: float) -> str:
    """A name out of a date and the first words of a question, such as `2026-11-22-who-are-you`."""
    letters = "".join(one if _is_letter(one) else " " for one in unicodedata.normalize("NFC", question[:1000].lower()))
    slug = ""
    for word in letters.split()[:SLUG_WORDS]:
        if slug and len(slug) + len(word) >= SLUG_CHARACTERS:
            break
        slug = f"{slug}-{word}"[: SLUG_CHARACTERS + 1]
    return f"{datetime.fromtimestamp(at, UTC).astimezone():%Y-%m-%d}{slug or '-chat'}"


def variants(name: str) -> Iterator[str]:
    """The name, and what to call the next ones that would have it."""
    yield name
    yield from (f"{name}-{number}" for number in count(2))


def without_date(name: str) -> str:
    """The part of a name that `made_of` took from the question."""
    return _DATE.sub("", name, count=1)


def path_of(folder: Path, name: str) -> Path:
    """Where the session of this name is, if it is."""
    return folder / f"{name}{SUFFIX}"


def name_of(path: Path) -> str:
    """The session that a file holds."""
    return path.name.removesuffix(SUFFIX)


def _is_letter(character: str) -> bool:
    """A letter or digit of any script, with the marks that belong to letters."""
    return character == "_" or unicodedata.category(character)[0] in "LMN"
