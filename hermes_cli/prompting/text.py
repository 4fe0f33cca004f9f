"""Text that knows where it came from: from a template, or from somebody who talks to the model.

A template may write control tokens (`<|im_end|>`) and tags (`<tool_call>`); in what users and tools say they are only
letters. So every character carries its origin along, through all that a template does to it. As a string a
`SourcedText` is no other than the plain one: it compares, sorts and tests alike, and templates cannot tell the
difference.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Self

TEMPLATE, CONTENT = b"\0", b"\1"

# Tags that the models were trained on as parts of system prompts and of their own turns. Uppercase: Hermes 3's report
# (arXiv 2408.11857, section 2). None of them ends a turn.
_WORDS = (
    "tools tool_call tool_response schema think scratch_pad SCRATCHPAD REASONING INNER_MONOLOGUE PLAN EXECUTION "
    "REFLECTION THINKING SOLUTION EXPLANATION UNIT_TEST"
)
TAGS = tuple(f"<{slash}{word}>" for word in _WORDS.split() for slash in ("", "/"))
_TAG = re.compile("|".join(TAGS))


class SourcedText(str):
    """A string with the origin of each character: one byte each, `TEMPLATE` or `CONTENT`."""

    __slots__ = ("_origin",)
    _origin: bytes

    def __new__(cls, text: str, origin: bytes | None = None) -> Self:
        """Content, unless `origin` says otherwise; it has as many bytes as the text has characters."""
        made = super().__new__(cls, text)
        made._origin = CONTENT * len(text) if origin is None else origin
        return made

    @overload
    def __getitem__(self, key: SupportsIndex) -> SourcedText: ...
    @overload
    def __getitem__(self, key: slice) -> SourcedText: ...
    def __getitem__(self, key: SupportsIndex | slice) -> SourcedText:
        text = super().__getitem__(key)
        return SourcedText(
            text, self._origin[key] if isinstance(key, slice) else self._origin[key : key.__index__() + 1]
        )

    def __str__(self) -> SourcedText:
        """Itself: what templates print keeps its origin. `plain` gives it up."""
        return self

    def __iter__(self) -> Iterator[SourcedText]:
        return (SourcedText(letter, self._origin[at : at + 1]) for at, letter in enumerate(str.__iter__(self)))

    def __add__(self, other: str) -> SourcedText:
        return joined((self, other))

    def __radd__(self, other: str) -> SourcedText:
        return joined((other, self))


def origin(text: str) -> bytes:
    """Where each character came from; a plain string is a template's."""
    return text._origin if isinstance(text, SourcedText) else TEMPLATE * len(text)  # noqa: SLF001 - this module's


def plain(text: str) -> str:
    """The letters alone."""
    return str.__str__(text)


def joined(parts: Iterable[str]) -> SourcedText:
    """All parts as one text."""
    parts = list(parts)
    return SourcedText("".join(parts), b"".join(map(origin, parts)))


def with_tags(text: str) -> SourcedText:
    """Content that may hold tags: a system prompt, or a turn of the model."""
    mask = bytearray(CONTENT * len(text))
    for tag in _TAG.finditer(text):
        mask[tag.start() : tag.end()] = TEMPLATE * (tag.end() - tag.start())
    return SourcedText(text, bytes(mask))


def is_content(text: str) -> bool:
    """Whether any of it is content."""
    return CONTENT in origin(text)


def alike(text: str, source: str) -> SourcedText:
    """Something made of all of `source` at once: letter by letter if it has as many, else it is what `source` is."""
    mask = origin(source)
    if len(text) == len(source):
        return SourcedText(text, mask)
    return SourcedText(text, (CONTENT if CONTENT in mask else TEMPLATE) * len(text))


def _located(text: SourcedText, pieces: Iterable[str]) -> list[SourcedText]:
    """Parts of a text, in its order."""
    found, at = [], 0
    for piece in pieces:
        at = text.index(piece, at)
        found.append(text[at : at + len(piece)])
        at += len(piece)
    return found


def _strip(text: SourcedText, letters: str | None = None) -> SourcedText:
    return _rstrip(_lstrip(text, letters), letters)


def _lstrip(text: SourcedText, letters: str | None = None) -> SourcedText:
    return text[len(text) - len(str.lstrip(text, letters)) :]


def _rstrip(text: SourcedText, letters: str | None = None) -> SourcedText:
    return text[: len(str.rstrip(text, letters))]


def _split(text: SourcedText, sep: str | None = None, maxsplit: int = -1) -> list[SourcedText]:
    return _located(text, str.split(text, sep, maxsplit))


def _rsplit(text: SourcedText, sep: str | None = None, maxsplit: int = -1) -> list[SourcedText]:
    return _located(text, str.rsplit(text, sep, maxsplit))


def _partition(text: SourcedText, sep: str) -> tuple[SourcedText, ...]:
    return tuple(_located(text, str.partition(text, sep)))


def _rpartition(text: SourcedText, sep: str) -> tuple[SourcedText, ...]:
    return tuple(_located(text, str.rpartition(text, sep)))


def _removeprefix(text: SourcedText, prefix: str) -> SourcedText:
    return text[len(text) - len(str.removeprefix(text, prefix)) :]


def _removesuffix(text: SourcedText, suffix: str) -> SourcedText:
    return text[: len(str.removesuffix(text, suffix))]


def _replace(text: SourcedText, old: str, new: str, count: int = -1) -> SourcedText:
    if not old:
        return alike(str.replace(text, old, new, count), joined((text, new)))
    parts, at = [], 0
    while count and (found := text.find(old, at)) >= 0:
        parts += [text[at:found], new]
        at, count = found + len(old), count - 1
    return joined((*parts, text[at:]))


def _join(text: SourcedText, parts: Iterable[str]) -> SourcedText:
    spaced: list[str] = []
    for part in parts:
        if not isinstance(part, str):
            raise TypeError(f"only strings can be joined, not {type(part).__name__}")
        spaced += [text, part] if spaced else [part]
    return joined(spaced)


def _same_letters(change: Callable[[str], str]) -> Callable[[SourcedText], SourcedText]:
    return lambda text: alike(change(text), text)


# What templates may do to strings, with the origin kept. All that chat templates use (llama.cpp's models/templates),
# and nothing that makes a long string of a short one, but for `replace` and `join`.
METHODS: dict[str, Callable[..., Any]] = {
    "strip": _strip,
    "lstrip": _lstrip,
    "rstrip": _rstrip,
    "split": _split,
    "rsplit": _rsplit,
    "partition": _partition,
    "rpartition": _rpartition,
    "removeprefix": _removeprefix,
    "removesuffix": _removesuffix,
    "replace": _replace,
    "join": _join,
    **{name: _same_letters(getattr(str, name)) for name in ("upper", "lower", "capitalize", "title")},
    **{
        name: getattr(str, name)
        for name in (
            *("startswith", "endswith", "find", "rfind", "index", "rindex", "count", "isdigit", "isalpha", "isalnum"),
            *("isspace", "isupper", "islower", "isnumeric", "isdecimal", "istitle", "isidentifier"),
        )
    },
}
