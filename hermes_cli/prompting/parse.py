"""Generated text, in pieces of any size, to content, reasoning and calls.

Wire form of all Hermes generations: `<think>…</think>` (Hermes 3: `<scratch_pad>`) around reasoning,
`<tool_call>{"name": …, "arguments": {…}}</tool_call>` around each call, text elsewhere. Rules:

- How the text is cut into pieces never matters; each character is looked at a bounded number of times.
- No character that may still become part of a tag, a call or the end of the turn is given out before that is decided.
- A call is given out when its block has ended. What cannot be read as a call is content, letter for letter: also a call
  that was cut off, because half a command is another command.
- A block that goes wrong ends at its end tag, or where it went wrong if that comes first; strings of a broken block are
  not searched for calls.
- `<think>` counts at the start of a line. Calls in a closed thought are thoughts; calls that end the turn in an open
  one are calls.
- White space around content, reasoning and calls is dropped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hermes_cli.prompting.call_block import CALL, END_CALL, Block, EarlyCall, State
from hermes_cli.prompting.output import Output, WithoutEnd, beginning_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from hermes_cli.prompting.call_block import WrittenCall
    from hermes_cli.prompting.messages import Event

_END_THINK = "</think>"
_THOUGHTS = {"<think>": _END_THINK, "<scratch_pad>": "</scratch_pad>"}
_BLANK = re.compile(r"\s*")
_TAGS = (*_THOUGHTS, *_THOUGHTS.values(), END_CALL)


def _pattern(*tags: str) -> tuple[tuple[str, ...], re.Pattern[str]]:
    return tags, re.compile("|".join(tags))


_TEXT, _TEXT_AND_CALLS = _pattern(*_TAGS), _pattern(*_TAGS, CALL)
_THOUGHT = {end: _pattern(begin, end) for begin, end in _THOUGHTS.items()}
_THOUGHT_AND_CALLS = {end: _pattern(begin, end, CALL) for begin, end in _THOUGHTS.items()}


@dataclass
class _Open:
    """A block that is being read, and its text, for the case that it is none."""

    opening: list[str]
    start: int  # in the parser's text: what was not yet put aside
    block: Block
    early: EarlyCall | None
    earlier: list[str] = field(default_factory=list)

    def put_aside(self, text: str, at: int) -> None:
        """The parser drops its text before `at`."""
        self.earlier.append(text[self.start : at])
        self.start = 0

    def text(self, text: str, at: int) -> str:
        """All of the block up to `at`, without what opened it."""
        return "".join(self.earlier) + text[self.start : at]


@dataclass
class _Ending:
    """Calls in an open thought, which count if the turn ends with them."""

    text: list[str] = field(default_factory=list)
    calls: list[WrittenCall] = field(default_factory=list)


class Parser:
    """One turn of the model: `feed` it text as it comes, `finish` at the end."""

    def __init__(
        self,
        *,
        tools: Collection[str] | None = None,
        prompt_opens_think: bool = False,
        parallel: bool = True,
        early: bool = False,
    ) -> None:
        """Expect the turn that follows a prompt.

        tools: the names offered; None if unknown. If none are offered, nothing is a call. A call of another name is
            given out like any: who runs the calls answers it with an error, which the model can learn from.
        prompt_opens_think: the prompt ended with `<think>`.
        parallel: take more than one call; otherwise all but the first are content.
        early: give a call out while it is written. Only for text that a grammar holds to the wire form: what is given
            out cannot be taken back, so a call that is cut off ends as a call that is not `complete`.
        """
        self._takes_calls = tools is None or len(tools) > 0
        self._parallel = parallel
        self._early = early
        self._end = WithoutEnd()
        self._output = Output()
        self._text, self._at = "", 0
        self._thought = _END_THINK if prompt_opens_think else ""  # the tag that ends it
        self._open: _Open | None = None
        self._ending: _Ending | None = None
        self._double = ""  # the end tag before, which may be written twice

    def feed(self, text: str) -> list[Event]:
        """Return the events that the new text makes certain."""
        self._go_on(self._end.feed(text), last=False)
        return self._output.take()

    def finish(self) -> list[Event]:
        """Return the remaining events when the turn ends, for whatever reason it does."""
        self._go_on(self._end.finish(), last=True)
        return self._output.take()

    def _go_on(self, text: str, *, last: bool) -> None:
        if self._open:
            self._open.put_aside(self._text, self._at)
        self._text, self._at = self._text[self._at :] + text, 0
        while self._step(last=last):
            pass

    def _step(self, *, last: bool) -> bool:
        """Read up to the next tag. Returns whether there may be more to read."""
        if self._open:
            return self._in_block(self._open, last=last)
        if self._ending:
            return self._after_call_in_thought(self._ending, last=last)
        if self._thought:
            return self._in_thought(last=last)
        return self._in_text(last=last)

    def _in_text(self, *, last: bool) -> bool:
        tags, pattern = _TEXT_AND_CALLS if self._may_call() else _TEXT
        match = pattern.search(self._text, self._at)
        if not match:
            self._output.say(self._skip_to_tag(tags, last=last))
            return False
        self._output.say(self._text[self._at : match.start()])
        self._at, tag = match.end(), match[0]
        if tag == CALL:
            self._open_block([CALL])
        elif tag in _THOUGHTS and self._output.line_start:
            self._thought = _THOUGHTS[tag]
        elif tag != self._double or not self._output.nothing_said:
            self._output.say(tag)
        return True

    def _in_thought(self, *, last: bool) -> bool:
        tags, pattern = (_THOUGHT_AND_CALLS if self._may_call() else _THOUGHT)[self._thought]
        match = pattern.search(self._text, self._at)
        if not match:
            self._output.think(self._skip_to_tag(tags, last=last))
            return False
        self._output.think(self._text[self._at : match.start()])
        self._at, tag = match.end(), match[0]
        if tag == CALL:
            self._open_block([CALL])
        elif tag == self._thought:
            self._output.end_part()
            self._thought, self._double = "", tag
        elif not self._output.nothing_thought:
            self._output.think(tag)  # at the beginning it repeats the one that opened the thought
        return True

    def _skip_to_tag(self, tags: tuple[str, ...], *, last: bool) -> str:
        """The rest of the text, without an end that may become one of the tags."""
        start = self._at
        self._at = len(self._text) if last else beginning_of(tags, self._text, start)
        return self._text[start : self._at]

    def _may_call(self) -> bool:
        return self._takes_calls and (self._parallel or not (self._output.calls or self._ending))

    def _open_block(self, opening: list[str]) -> None:
        early = EarlyCall(self._output.calls) if self._early and not self._thought else None
        block = Block(most=None if self._parallel else 1, early=early)
        self._open = _Open(opening, self._at, block, early)

    def _in_block(self, opened: _Open, *, last: bool) -> bool:
        block = opened.block
        self._at = block.read(self._text, self._at)
        if last and block.state is State.OPEN and block.finish(self._text[self._at :]):
            self._at = len(self._text)
        if opened.early and (events := opened.early.take()):
            self._output.add(*events)
        if block.state is State.OPEN:
            return False
        self._open = None
        if block.state is State.DOUBLED:
            blank = opened.text(self._text, self._at)
            self._at += len(CALL)
            opened.opening += [blank, CALL]
            self._open_block(opened.opening)
        elif block.state is State.BROKEN:
            self._give_up(opened)
        else:
            self._end_block(opened)
        return True

    def _end_block(self, opened: _Open) -> None:
        """The block is whole."""
        text = "".join([*opened.opening, opened.text(self._text, self._at)])
        calls = opened.block.calls
        if not opened.block.readable:
            self._as_written(text)
        elif self._thought:
            self._ending = self._ending or _Ending()
            self._ending.text.append(text)
            self._ending.calls += calls
        else:
            for call in calls:
                self._output.call(call)
            self._double = END_CALL

    def _give_up(self, opened: _Open) -> None:
        """The block is none: it is text, up to where it ended or went wrong. What follows that is read once more.

        No text is read often: of blocks that begin in one another's strings, no two are ever in the same kind of string
        or both outside of strings (a quote changes places between two of these), so at most three are whole so far.
        """
        if opened.block.given_out:
            return
        text = opened.text(self._text, self._at)
        end = text.find(END_CALL)
        size = len(text) if end < 0 else end + len(END_CALL)
        if self._thought and (end_of_thought := text.find(self._thought, 0, size)) >= 0:
            size = end_of_thought
        self._as_written("".join([*opened.opening, text[:size]]))
        back = len(text) - size
        if back <= self._at - opened.start:
            self._at -= back
        else:
            self._text, self._at = text[size:] + self._text[self._at :], 0

    def _as_written(self, text: str) -> None:
        """A block that is no call."""
        if self._thought:
            self._output.think("".join(self._ending.text) if self._ending else "")
            self._output.think(text)
            self._ending = None
        else:
            self._output.say(text)

    def _after_call_in_thought(self, ending: _Ending, *, last: bool) -> bool:
        """After a call in an open thought: only the end of the turn or another call makes it one."""
        start = self._at
        blank = _BLANK.match(self._text, start)
        self._at = blank.end() if blank else start
        ending.text.append(self._text[start : self._at])
        rest = self._text[self._at : self._at + len(END_CALL)]
        if not rest and last:
            self._ending = None
            for call in ending.calls:
                self._output.call(call)
        elif rest.startswith(CALL) and self._may_call():
            self._at += len(CALL)
            self._open_block([CALL])
        elif rest == END_CALL:
            self._at += len(END_CALL)
            ending.text.append(rest)
        elif last or not any(tag.startswith(rest) for tag in (CALL, END_CALL)):
            self._as_written("")
        else:
            return False
        return bool(rest)
