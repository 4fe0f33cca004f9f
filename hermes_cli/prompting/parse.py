"""Generated text, in pieces of any size, to content, reasoning and tool calls.

Wire form (all Hermes generations): `<think>…</think>` around reasoning, `<tool_call>{"name": …, "arguments": {…}}
</tool_call>` around each call, text elsewhere. Rules:

- No byte that may still become a tag is given out before that is decided.
- A call ends at the first `</tool_call>` that leaves whole JSON before it, so the tag may stand inside a string.
- A block that never becomes a valid call is content, letter for letter.
- Calls inside closed reasoning are thoughts; calls in reasoning that the turn ends in, unclosed, are calls.
- White space around reasoning and calls is not content.
"""

from __future__ import annotations

import ast
import json
from functools import partial
from typing import Any

from hermes_cli.prompting.messages import Content, Parsed, Reasoning, ToolCall

THINK, END_THINK = "<think>", "</think>"
CALL, END_CALL = "<tool_call>", "</tool_call>"


def _tail_that_may_become(text: str, tags: tuple[str, ...]) -> int:
    """Length of the longest end of `text` that is the beginning of a tag."""
    longest = max(map(len, tags)) - 1
    for size in range(min(longest, len(text)), 0, -1):
        if any(tag.startswith(text[-size:]) for tag in tags):
            return size
    return 0


def _first(text: str, tags: tuple[str, ...]) -> tuple[int, str] | None:
    found = [(text.find(tag), tag) for tag in tags if tag in text]
    return min(found) if found else None


def _as_object(text: str) -> dict[str, Any] | None:
    """A JSON object, or a Python dict literal: Hermes 2 Pro was trained on both."""
    # strict=False: models write line breaks into strings as they are.
    for load in (partial(json.loads, strict=False), ast.literal_eval):
        try:
            value = load(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return value if isinstance(value, dict) else None
    return None


def parse_call(text: str) -> ToolCall | None:
    """The call that stands between the tags, or None if there is none."""
    value = _as_object(text.strip())
    if value is None:
        return None
    name, arguments = value.get("name"), value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _as_object(arguments)
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    return ToolCall(name, arguments)


class _Trimmed:
    """Text without white space at its ends, given out as soon as it is certain.

    Between two pieces (what stands between two tags) white space is kept; a piece of white space alone is dropped.
    """

    def __init__(self) -> None:
        self._started = False
        self._blank = True
        self._lead = ""
        self._gap = ""

    def push(self, text: str) -> str:
        """Add text to the piece; returns what can be shown now."""
        if self._blank:
            text = self._lead + text
        body = text.strip()
        if not body:
            if self._blank:
                self._lead = text
            else:
                self._gap += text
            return ""
        lead = text[: text.index(body)]
        ready = (self._gap + lead if self._started else "") + body
        self._gap = text[len(lead) + len(body) :]
        self._started, self._blank, self._lead = True, False, ""
        return ready

    def end_piece(self) -> None:
        """A tag follows."""
        self._blank, self._lead = True, ""


class Parser:
    """Feed it text as it comes; what it is inside of (content, a call, reasoning) is the state it hands text to."""

    def __init__(self) -> None:
        self._text = ""
        self._state = self._in_content
        self._content = _Trimmed()
        self._reasoning = _Trimmed()

    def feed(self, text: str) -> list[Parsed]:
        """What the new text makes certain."""
        self._text += text
        events: list[Parsed] = []
        while self._state(events):
            pass
        return events

    def finish(self) -> list[Parsed]:
        """What is left when the turn ends."""
        events: list[Parsed] = []
        rest, self._text = self._text, ""
        if self._state == self._in_call:
            self._unfinished_call(rest, events)
        elif self._state == self._in_reasoning:
            self._unfinished_reasoning(rest, events)
        else:
            self._say(rest, events)
        return events

    def _in_content(self, events: list[Parsed]) -> bool:
        """Outside all tags. Returns whether there may be more to do."""
        found = _first(self._text, (THINK, CALL))
        if found is None:
            cut = len(self._text) - _tail_that_may_become(self._text, (THINK, CALL))
            self._say(self._text[:cut], events)
            self._text = self._text[cut:]
            return False
        at, tag = found
        self._say(self._text[:at], events)
        self._text = self._text[at + len(tag) :]
        self._state = self._in_reasoning if tag == THINK else self._in_call
        return True

    def _in_call(self, events: list[Parsed]) -> bool:
        """Inside <tool_call>, up to the end tag that completes it."""
        at = self._text.find(END_CALL)
        while at >= 0:
            call = parse_call(self._text[:at])
            # Another opening tag means that this block was never closed properly; it is text then.
            if call is not None or CALL in self._text[at + len(END_CALL) :]:
                self._end_call(call, at, events)
                return True
            at = self._text.find(END_CALL, at + 1)
        return False

    def _end_call(self, call: ToolCall | None, at: int, events: list[Parsed]) -> None:
        block, self._text = self._text[:at], self._text[at + len(END_CALL) :]
        self._state = self._in_content
        if call is None:
            self._say(CALL + block + END_CALL, events)
        else:
            self._content.end_piece()
            events.append(call)

    def _in_reasoning(self, events: list[Parsed]) -> bool:
        """Inside <think>. A call in there is held until it is known whether the thought ends."""
        end = self._text.find(END_THINK)
        if end >= 0:
            self._think(self._text[:end], events)
            self._text = self._text[end + len(END_THINK) :]
            self._content.end_piece()
            self._reasoning.end_piece()
            self._state = self._in_content
            return True
        call = self._text.find(CALL)
        cut = call if call >= 0 else len(self._text) - _tail_that_may_become(self._text, (END_THINK, CALL))
        self._think(self._text[:cut], events)
        self._text = self._text[cut:]
        return False

    def _unfinished_call(self, rest: str, events: list[Parsed]) -> None:
        call = parse_call(rest.rstrip().removesuffix(END_CALL))
        if call is None:
            self._say(CALL + rest, events)
        else:
            events.append(call)

    def _unfinished_reasoning(self, rest: str, events: list[Parsed]) -> None:
        """The turn ended in a thought: whole calls at its end are meant."""
        thought, _, calls = rest.partition(CALL)
        if calls:
            inner = Parser()
            found = inner.feed(CALL + calls) + inner.finish()
            if all(isinstance(event, ToolCall) for event in found):
                self._think(thought, events)
                events.extend(found)
                return
        self._think(rest, events)

    def _think(self, text: str, events: list[Parsed]) -> None:
        if ready := self._reasoning.push(text):
            events.append(Reasoning(ready))

    def _say(self, text: str, events: list[Parsed]) -> None:
        if ready := self._content.push(text):
            events.append(Content(ready))
