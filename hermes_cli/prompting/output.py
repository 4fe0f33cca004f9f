"""Output side of the parser: text without white space at its ends, numbered calls, joined pieces of one kind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hermes_cli.prompting.messages import CallArguments, CallFinished, CallStarted, Content, Event, Reasoning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_cli.prompting.call_block import WrittenCall

# What ends a turn, in every Hermes format. Vocabularies spell it out as text where special tokens are rendered.
_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>")
_END = "|".join(map(re.escape, _ENDS))
_END_RUN = re.compile(rf"(?:(?:{_END})\s*)+")
_END_MORE = re.compile(rf"(?:{_END}|\s)*")


_LONGEST = 16  # characters; no tag and no marker is longer


def beginning_of(tags: Sequence[str], text: str, at: int) -> int:
    """Return where the end of `text` begins that may yet become one of the tags; tags begin with `<`."""
    start = text.rfind("<", max(at, len(text) - _LONGEST))
    if start < 0:
        return len(text)
    rest = text[start:]
    return start if any(tag.startswith(rest) and tag != rest for tag in tags) else len(text)


class WithoutEnd:
    """Text without the end-of-turn markers (and white space) that it ends with."""

    def __init__(self) -> None:
        self._held: list[str] = []
        self._tail = ""  # may become a marker

    def feed(self, text: str) -> str:
        """Return the text that is certainly not the end of the turn."""
        if "<" not in text and not self._tail and not self._held:
            return text
        text, self._tail = self._tail + text, ""
        at = 0
        if self._held:
            more = _END_MORE.match(text)
            at = more.end() if more else 0
            self._held.append(text[:at])
        end = beginning_of(_ENDS, text, at)
        if at == end:
            self._tail = text[end:]
            return ""
        before, self._held = self._held, []
        run = None
        for run in _END_RUN.finditer(text, at, end):  # noqa: B007 - the last one is wanted
            pass
        if run and run.end() == end:
            self._held, end = [run[0]], run.start()
            self._tail = text[run.end() :]
        else:
            self._tail = text[end:]
        return "".join(before) + text[at:end]

    def finish(self) -> str:
        """Return the text that was held back and is no marker."""
        text, self._tail = self._tail, ""
        return "".join(self._held) + text if text else ""


class _Trimmed:
    """Text without white space at its ends, given out as soon as it is certain.

    It comes in parts, with calls or thoughts between them; a part of white space alone is dropped.
    """

    def __init__(self) -> None:
        self._started = False
        self._space: list[str] = []  # wanted if this part goes on
        self._gap: list[str] = []  # white space at the end of the part before
        self.blank = True  # this part, so far

    def push(self, text: str) -> str:
        """Add text to the part; returns what can be given out now."""
        body = text.strip()
        if not body:
            self._space.append(text)
            return ""
        lead = text[: len(text) - len(text.lstrip())]
        before = [*self._gap, *self._space, lead] if self._started else []
        self._gap, self._space = [], [text[len(lead) + len(body) :]]
        self._started, self.blank = True, False
        return "".join(before) + body

    def end_part(self) -> None:
        """Something else follows."""
        if not self.blank:
            self._gap = self._space
        self._space, self.blank = [], True


class Output:
    """Collects events until they are asked for."""

    def __init__(self) -> None:
        self.calls = 0
        self.line_start = True  # whether only white space stands before, on this line
        self._content, self._reasoning = _Trimmed(), _Trimmed()
        self._events: list[Event] = []
        self._pieces: list[str] = []
        self._kind: type[Content | Reasoning] = Content

    @property
    def nothing_said(self) -> bool:
        """There was only white space since the last call or thought."""
        return self._content.blank

    @property
    def nothing_thought(self) -> bool:
        """The thought has only white space so far."""
        return self._reasoning.blank

    def say(self, text: str) -> None:
        """Add to the content."""
        line = text.rpartition("\n")
        self.line_start = (self.line_start or bool(line[1])) and not line[2].strip()
        self._give(Content, self._content.push(text))

    def think(self, text: str) -> None:
        """Add to the reasoning."""
        self._give(Reasoning, self._reasoning.push(text))

    def end_part(self) -> None:
        """A call or the end of a thought: what is said next stands apart."""
        self._content.end_part()
        self._reasoning.end_part()
        self.line_start = True

    def call(self, written: WrittenCall) -> None:
        """Add a whole call."""
        index, call = self.calls, written.call
        self.add(
            CallStarted(index, call.id, call.name),
            CallArguments(index, written.arguments),
            CallFinished(index, call),
        )

    def add(self, *events: Event) -> None:
        """Add events of calls."""
        self._join()
        self._events += events
        self.calls += sum(isinstance(event, CallStarted) for event in events)
        self.end_part()

    def take(self) -> list[Event]:
        """All events since the last time."""
        self._join()
        events, self._events = self._events, []
        return events

    def _give(self, kind: type[Content | Reasoning], text: str) -> None:
        if not text:
            return
        if kind is not self._kind:
            self._join()
            self._kind = kind
        self._pieces.append(text)

    def _join(self) -> None:
        if self._pieces:
            self._events.append(self._kind("".join(self._pieces)))
            self._pieces = []
