"""JSON of strangers, read so that nothing else in this process waits for a large one.

Python's own reader keeps the interpreter to itself from the first to the last byte: a body of 30 MB would stop the
event loop for a second even from another thread. So large ones are read here, some values or a piece of a long text at
a time, with the same results: halves of surrogate pairs and NaN, which clients send, are taken.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Sequence
from json.decoder import scanstring  # type: ignore[attr-defined]  # it has been there since Python 2.6
from typing import Any

from hermes_cli.threads import LARGE

PIECE = 64 << 10  # characters of a text, or bytes of UTF-8, that are read together
MOST_VALUES = 1_200_000  # in a body: a list of a million tokens, which no context exceeds, has less
MOST_CONTAINERS = 100_000  # lists and objects in a body: 10,000 messages with a call each are 60,000
MOST_KEYS = 150_000  # of one object: a bias for each token of a vocabulary is one
BATCH = 32 << 10  # characters whose values are read together
DEEPEST = 500  # levels of brackets, about as Python's reader has it

_ENDS = ("},", "],", '",', ",")  # where a value in a container may end, the surest first
_SPACE = re.compile(r"[ \t\n\r]{0,4096}")
_WORD = re.compile(r"[-+.0-9A-Za-z]{1,5000}")  # Python makes no number of more than 4,300 digits
_TEXT = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)  # one without end, too: the time is linear for any input
_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][-+]?[0-9]+)?")
# A part of a text that ends neither in the middle of an escape nor between two that are one character; by whether
# control characters are mistakes in it.
_PARTS = {
    strict: re.compile(
        rf"""(?: [^"\\{controls}]++ | \\["\\/bfnrt] | \\u(?![dD][89abAB])[0-9a-fA-F]{{4}}
          | \\u[dD][89abAB][0-9a-fA-F]{{2}}(?=.{{6}})(?:\\u[dD][c-fC-F][0-9a-fA-F]{{2}})?+ )*+""",
        re.DOTALL | re.VERBOSE,
    )
    for strict, controls in ((True, r"\x00-\x1f"), (False, ""))
}
_OPENERS, _CLOSERS = frozenset("[{"), frozenset("]}")
_WORDS: dict[str, Any] = {
    "true": True,
    "false": False,
    "null": None,
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "-Infinity": float("-inf"),
}


class TooManyValuesError(ValueError):
    """JSON with more values than any request needs."""


def read(*parts: bytes) -> Any:  # noqa: ANN401 - as it was sent
    """Return the value of JSON that came in these parts.

    Raises:
        json.JSONDecodeError: it is not JSON.
        TooManyValuesError: it has too many values.
        ValueError: it is not text, or a number has too many digits.
        RecursionError: its brackets are too deep in one another.
    """
    if sum(map(len, parts)) < LARGE:
        return json.loads(b"".join(parts))
    return _Reader(_decoded(parts)).read()


def read_text(text: str, *, strict: bool = True) -> Any:  # noqa: ANN401 - as it was sent
    """Return the value of JSON in a text, in which strings may have control characters unless it is read strictly.

    Raises:
        ValueError, RecursionError: as of `read`.
    """
    return json.loads(text, strict=strict) if len(text) < LARGE else _Reader(text, strict=strict).read()


def _decoded(parts: Sequence[bytes]) -> str:
    decoder = codecs.getincrementaldecoder(json.detect_encoding(b"".join(parts[:4])))("surrogatepass")
    pieces = (part[at : at + PIECE] for part in parts for at in range(0, len(part), PIECE))
    return "".join([*map(decoder.decode, pieces), decoder.decode(b"", final=True)])


class _Reader:
    """One text, and how far it is read."""

    def __init__(self, text: str, *, strict: bool = True) -> None:
        self._text, self._at, self._strict = text, 0, strict
        self._batched = 0  # up to here no more values are read together
        self._keys: dict[str, str] = {}  # each key once, as Python's reader has it
        self._values = self._containers = 0

    def read(self) -> Any:  # noqa: ANN401 - as it was sent
        """Return the value; nothing may stand behind it."""
        stack: list[tuple[Any, str]] = []  # the open containers that another is in, and the key of that
        container: Any = None
        key = ""
        while True:
            opened, value = self._value()
            if opened:
                stack.append((container, key))
                if len(stack) > DEEPEST:
                    raise RecursionError
                container = value
                if self._next() not in _CLOSERS:
                    key = self._item(container)
                    continue
                value, (container, key) = self._closed(container), stack.pop()
            while container is not None:  # put the value where it belongs, and close what ends behind it
                if type(container) is list:
                    container.append(value)
                else:
                    container[key] = value
                if self._next() == ",":
                    self._at += 1
                    key = self._item(container)
                    break
                value, (container, key) = self._closed(container), stack.pop()
            else:
                if self._next():
                    raise self._wrong("Extra data")
                return value

    def _next(self) -> str:
        """Return the next character behind white space, nothing at the end."""
        text = self._text
        mark = text[self._at : self._at + 1]
        while mark and mark in " \t\n\r":
            match = _SPACE.match(text, self._at)
            self._at = match.end() if match else self._at
            mark = text[self._at : self._at + 1]
        return mark

    def _closed(self, container: Any) -> Any:  # noqa: ANN401 - a list or an object
        """Return a container that ends here."""
        if self._next() != ("]" if type(container) is list else "}"):
            raise self._wrong("Expecting ',' delimiter")
        self._at += 1
        return container

    def _item(self, container: Any) -> str:  # noqa: ANN401 - a list or an object
        """Go to the next value of a container that is read by itself; return its key, which those of objects have."""
        while self._at >= self._batched and self._batch(container):
            pass
        if type(container) is list:
            return ""
        if len(container) > MOST_KEYS:
            raise TooManyValuesError
        if self._next() != '"':
            raise self._wrong("Expecting property name enclosed in double quotes")
        key = self._string()
        if self._next() != ":":
            raise self._wrong("Expecting ':' delimiter")
        self._at += 1
        return self._keys.setdefault(key, key)

    def _batch(self, container: Any) -> bool:  # noqa: ANN401 - as above
        """Read the next values of a container with Python's reader; return whether there are some before a comma.

        What is read as values up to a comma begins the container in the same way, whatever follows.
        """
        text, start = self._text, self._at
        limit = start + BATCH
        opener, closer = "[]" if type(container) is list else "{}"
        for end in _ENDS:
            cut = text.rfind(end, start, limit) + len(end) - 1
            if cut < start:
                continue
            part = text[start:cut]
            try:
                values = json.loads(f"{opener}{part}{closer}", strict=self._strict)
            except (ValueError, RecursionError):  # it ends inside of a value, or something is wrong with it
                continue
            if not values:
                break
            marks = _TEXT.sub("", part)
            containers = marks.count("[") + marks.count("{")
            self._count(marks.count(",") + containers + 1, containers)
            self._at = cut + 1
            if type(container) is list:
                container.extend(values)
                return True
            container.update(values)
            return len(container) <= MOST_KEYS
        self._batched = limit
        return False

    def _count(self, values: int, containers: int) -> None:
        if self._values + values > MOST_VALUES or self._containers + containers > MOST_CONTAINERS:
            raise TooManyValuesError
        self._values += values
        self._containers += containers

    def _value(self) -> tuple[bool, Any]:
        """Return the next value, an empty one for a container, which is opened by it."""
        mark = self._next()
        self._count(1, mark in _OPENERS)
        if mark == '"':
            return False, self._string()
        if mark in _OPENERS:
            self._at += 1
            return True, {} if mark == "{" else []
        word = _WORD.match(self._text, self._at)
        number = _NUMBER.fullmatch(word[0]) if word else None
        if not word or not (number or word[0] in _WORDS):
            raise self._wrong("Expecting value")
        self._at = word.end()
        if not number:
            return False, _WORDS[word[0]]
        return False, float(word[0]) if number[2] or number[3] else int(word[0])

    def _string(self) -> str:
        """Return the text whose quote comes next, of a long one piece by piece."""
        text, start = self._text, self._at + 1
        end = text.find('"', start, start + PIECE)
        value: str
        if end >= 0 and text[end - 1] != "\\":  # it ends there
            value, self._at = scanstring(text, start, self._strict)
            return value
        pieces: list[str] = []
        while True:
            part = _PARTS[self._strict].match(text, start, start + PIECE)
            end = part.end() if part else start
            if text[end : end + 1] == '"' or end == start:  # its end, or a mistake that Python's reader names
                value, self._at = scanstring(text, start, self._strict)
                return "".join([*pieces, value])
            pieces.append(scanstring(text[start:end] + '"', 0, self._strict)[0])
            start = end

    def _wrong(self, reason: str) -> json.JSONDecodeError:
        return json.JSONDecodeError(reason, self._text, self._at)
