"""A tool call block: the text between `<tool_call>` and `</tool_call>`.

One object, or several with commas or white space between them, or a list of them; perhaps in a Markdown fence. Too many
closing braces are passed over; missing ones are added if the end tag says that the call is over. A tag inside a string
is part of the string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, TypeGuard

from hermes_cli.prompting.json_reader import Reader, skip, strict_object
from hermes_cli.prompting.messages import CallArguments, CallFinished, CallStarted, Event, ToolCall

CALL, END_CALL = "<tool_call>", "</tool_call>"
BLANK = re.compile(r"\s*")
_FENCE = "```"
_LANGUAGE = re.compile(r"[A-Za-z]{0,10}")


class State(Enum):
    """State of a block."""

    OPEN = auto()
    ENDED = auto()  # by its end tag; or, where that is missing, by the next opening tag or the end of the turn
    DOUBLED = auto()  # nothing but white space before the next opening tag
    BROKEN = auto()  # the next character cannot belong to it


class Block:
    """Reads a block piece by piece, from after its opening tag."""

    def __init__(self, early: EarlyCall | None = None) -> None:
        """Read a block; if there is an `early` call, it is given out while it is written."""
        self.state = State.OPEN
        self.calls: list[WrittenCall] = []
        self.readable = True  # as calls; a block of other JSON is still read to its end
        self.early = early
        self._reader: Reader | None = None
        self._values = 0
        self._waiting = False
        self._comma = False
        self._fences = 0

    @property
    def given_out(self) -> bool:
        """Return whether the call was given out before the end of the block was seen."""
        return self.early is not None and self.early.started

    def read(self, text: str, at: int) -> int:
        """Read on from `at`; return where it stopped. What is left of an open block may become a tag."""
        self._waiting = False
        while self.state is State.OPEN and not self._waiting:
            at = self._between(text, at) if self._reader is None else self._value(self._reader, text, at)
        self._cut()
        return at

    def finish(self, tail: str) -> bool:
        """End the turn with `tail` unread; return whether `tail` belongs to a sign or call that was cut off."""
        whole = self._values > 0 and self._reader is None
        self.state = State.ENDED if whole else State.BROKEN
        self._cut()
        sign = END_CALL.startswith(tail) or (self._fences > 0 and _FENCE.startswith(tail))
        return sign if whole else self.given_out

    def _cut(self) -> None:
        if self.state is State.BROKEN and self.early and self._reader:
            self.early.cut(self._reader)

    def _between(self, text: str, at: int) -> int:
        """Read what stands before, between and after values."""
        at = skip(BLANK, text, at)
        if at == len(text):
            self._waiting = True
            return at
        character = text[at]
        if character == "<":
            return self._tag(text, at)
        if character == "`":
            return self._fence(text, at)
        if self._values == 0:
            openers, fillers = "{[", ""
        else:
            openers = "" if self.given_out or self._fences > 1 else "{"
            fillers = "}" if self.given_out or self._comma else "},"
        if character in openers:
            self._reader, self._comma = Reader(), False
        elif character in fillers:
            self._comma = self._comma or character == ","
            at += 1
        else:
            self.state = State.BROKEN
        return at

    def _tag(self, text: str, at: int) -> int:
        if text.startswith(END_CALL, at) and self._values:
            self.state = State.ENDED
            return at + len(END_CALL)
        if text.startswith(CALL, at):
            nothing_yet = State.BROKEN if self._fences else State.DOUBLED
            self.state = State.ENDED if self._values else nothing_yet
        else:
            self._wait_for(text, at, CALL, END_CALL)
        return at

    def _fence(self, text: str, at: int) -> int:
        most = 1 if self._values else 0  # before a value there may be one, after it its counterpart
        if not text.startswith(_FENCE, at) or self._fences > most:
            self._wait_for(text, at, _FENCE)
            return at
        at += len(_FENCE)
        if self._values:
            self._fences = 2
            return at
        end = skip(_LANGUAGE, text, at)
        if end == len(text):
            self._waiting = True
            return at - len(_FENCE)
        self._fences = 1
        return end

    def _wait_for(self, text: str, at: int, *signs: str) -> None:
        """End the block as broken, unless the text ends within one of the signs."""
        rest = text[at : at + max(map(len, signs))]
        if at + len(rest) == len(text) and any(sign.startswith(rest) and sign != rest for sign in signs):
            self._waiting = True
        else:
            self.state = State.BROKEN

    def _value(self, reader: Reader, text: str, at: int) -> int:
        at = reader.read(text, at)
        if reader.stuck and text.startswith(END_CALL, at):
            if not reader.close():
                self.state = State.BROKEN
        elif reader.stuck:
            self._wait_for(text, at, END_CALL)
        elif not reader.closed:
            self._waiting = True
        if self.early:
            self.early.follow(reader)
        if reader.closed:
            self._reader = None
            self._values += 1
            if not self.given_out:
                calls = read_calls("".join(reader.pieces).strip())
                self.calls += calls or []
                self.readable &= calls is not None
        return at


_BETWEEN = re.compile(r"[\s,:]*")  # values of strict JSON
_decode = json.JSONDecoder().raw_decode
# Beside a name without arguments these say nothing; anything else may be an argument in the wrong place.
_LABELS = frozenset({"name", "type", "id"})


@dataclass(frozen=True)
class WrittenCall:
    """A call and its arguments as JSON text, with the numbers and escapes that the model wrote."""

    call: ToolCall
    arguments: str


def read_calls(text: str) -> list[WrittenCall] | None:
    """Return the calls in strict JSON, None if it is anything but calls."""
    try:
        objects = [item for _, item in _values(text)] if text.startswith("[") else [text]
        calls = [_call(item) for item in objects]
    except (ValueError, RecursionError):  # Python was told to convert fewer digits or to recurse less than usual
        return None
    read = [call for call in calls if call is not None]
    return read if read and len(read) == len(calls) else None


def is_name(value: object) -> TypeGuard[str]:
    """Return whether a function can have this name: letters of any script, but nothing that cannot be seen or sent."""
    return isinstance(value, str) and value.isprintable() and bool(value.strip())


def _call(text: str) -> WrittenCall | None:
    members = dict(_values(text)) if text.startswith("{") else {}
    if "function" in members and "name" not in members:
        function = members["function"]
        members = dict(_values(function)) if function.startswith("{") else {}
    name, written = json.loads(members.get("name", "null")), _arguments(members)
    if written is None or not is_name(name):
        return None
    return WrittenCall(ToolCall(name, json.loads(written)), written)


def _arguments(members: dict[str, str]) -> str | None:
    """Return the arguments as the JSON text of an object."""
    if "arguments" in members:
        return _object(members["arguments"])
    if "parameters" in members:
        # With a description this is the definition of a tool, repeated.
        return None if "description" in members else _object(members["parameters"])
    return "{}" if members.keys() <= _LABELS else None


def _object(text: str) -> str | None:
    if text.startswith('"'):
        inner = json.loads(text).strip()
        text = (strict_object(inner) or "") if inner else "{}"
    if text == "null":
        return "{}"
    return text if text.startswith("{") else None


def _values(text: str) -> Iterator[tuple[Any, str]]:
    """Yield the values of an object or array as they are written, those of an object with their keys."""
    key, at = None, skip(_BETWEEN, text, 1)
    while text[at] not in "}]":
        if text[0] == "{":
            key, at = _decode(text, at)
            at = skip(_BETWEEN, text, at)
        _, end = _decode(text, at)
        yield key, text[at:end]
        at = skip(_BETWEEN, text, end)


_HEAD = re.compile(r'\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*')


class EarlyCall:
    """Follows the reader of a call and says what has become certain."""

    def __init__(self, index: int) -> None:
        self.started = False
        self._over = False
        self._index = index
        self._call = ToolCall("", {})
        self.events: list[Event] = []  # the parser takes them out
        self._written: list[str] = []
        self._next = 0  # of the reader's pieces

    def follow(self, reader: Reader) -> None:
        """Give out what the reader has read."""
        if self._over or reader.inner_from is None:
            return
        if not self.started:
            head = _HEAD.fullmatch("".join(reader.pieces[: reader.inner_from]))
            name: object = json.loads(head[1]) if head else None
            if not is_name(name) or reader.pieces[reader.inner_from] != "{":
                self._over = True
                return
            self.started, self._next = True, reader.inner_from
            self._call = replace(self._call, name=name)
            self.events.append(CallStarted(self._index, self._call.id, self._call.name))
        self._give(reader.pieces[self._next : reader.inner_to])
        if reader.closed:
            self._finish(complete=True)

    def cut(self, reader: Reader) -> None:
        """End a call whose text ends or goes wrong here."""
        if self.started and not self._over:
            self._give([reader.closers(1) if reader.inner_to is None else ""])
            self._finish(complete=False)

    def _give(self, pieces: list[str]) -> None:
        self._next += len(pieces)
        if text := "".join(pieces):
            self._written.append(text)
            self.events.append(CallArguments(self._index, text))

    def _finish(self, *, complete: bool) -> None:
        self._over = True
        try:
            call = replace(self._call, arguments=json.loads("".join(self._written)))
        except (ValueError, RecursionError):  # Python was told to convert fewer digits or to recurse less than usual
            call, complete = self._call, False
        self.events.append(CallFinished(self._index, call, complete=complete))
