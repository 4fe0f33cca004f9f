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
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from hermes_cli.prompting.call_block import BLANK, CALL, END_CALL, Block, EarlyCall, State, WrittenCall
from hermes_cli.prompting.json_reader import skip
from hermes_cli.prompting.messages import CallArguments, CallFinished, CallStarted, Content, Event, Reasoning

_END_THINK = "</think>"
_THOUGHTS = {"<think>": _END_THINK, "<scratch_pad>": "</scratch_pad>"}

# Tags that count: in text, and in a thought by the tag that ends it.
_TAGS = {"": (*_THOUGHTS, *_THOUGHTS.values(), END_CALL), **{end: (begin, end) for begin, end in _THOUGHTS.items()}}
_TAGS_AND_CALLS = {where: (*tags, CALL) for where, tags in _TAGS.items()}
_PATTERNS = {tags: re.compile("|".join(tags)) for tags in (*_TAGS.values(), *_TAGS_AND_CALLS.values())}

# What ends a turn, in every Hermes format. Vocabularies spell it out as text where special tokens are rendered.
_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>")
_END = "|".join(map(re.escape, _ENDS))
_END_RUN = re.compile(rf"(?:(?:{_END})\s*)+")
_END_MORE = re.compile(rf"(?:{_END}|\s)*")
_LONGEST = 16  # characters; no tag and no marker is longer


@dataclass
class _Open:
    """A block that is being read, and its text, for the case that it is none."""

    opening: list[str]
    start: int  # in the parser's text: what was not yet put aside
    block: Block
    earlier: list[str] = field(default_factory=list)  # what the parser dropped of it

    def text(self, text: str, at: int) -> str:
        """Return all of the block up to `at`, without what opened it."""
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
        early: bool = False,
    ) -> None:
        """Expect the turn that follows a prompt.

        tools: the names offered; None if unknown. If none are offered, nothing is a call. A call of another name is
            given out like any: who runs the calls answers it with an error, which the model can learn from.
        prompt_opens_think: the prompt ended with `<think>`.
        early: give a call out while it is written. Only for text that a grammar holds to the wire form: what is given
            out cannot be taken back, so a call that is cut off ends as a call that is not `complete`.
        """
        self._takes_calls = tools is None or len(tools) > 0
        self._early = early
        self._end = WithoutEnd()
        self._output = Output()
        self._text, self._at = "", 0
        self._thought = _END_THINK if prompt_opens_think else ""  # the tag that ends it
        self._open: _Open | None = None
        self._ending: _Ending | None = None
        self._double = ""  # the end tag before, which may be written twice
        self.reasoning_cut = False  # a thought was ended for the model, whose own end of it is dropped when it comes

    def begin(self, text: str) -> list[Event]:
        """Read what the client has written of the turn; return the calls in it, which are the model's to finish.

        The thought or the content is the client's own and is not given out again.
        """
        events = self.feed(text)
        self._output.go_on()
        return [event for event in events if not isinstance(event, Content | Reasoning)]

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
            self._open.earlier.append(self._text[self._open.start : self._at])
            self._open.start = 0
        self._text, self._at = self._text[self._at :] + text, 0
        while self._step(last=last):
            pass

    def _step(self, *, last: bool) -> bool:
        """Read up to the next tag; return whether there may be more to read."""
        if self._open:
            return self._in_block(self._open, last=last)
        if self._ending:
            return self._after_call_in_thought(self._ending, last=last)
        tags = (_TAGS_AND_CALLS if self._takes_calls else _TAGS)[self._thought]
        start = self._at
        match = _PATTERNS[tags].search(self._text, start)
        if match:
            end, self._at = match.span()
        else:
            end = self._at = len(self._text) if last else beginning_of(tags, self._text, start)
        write = self._output.think if self._thought else self._output.say
        write(self._text[start:end])
        if match:
            self._tag(match[0])
        return match is not None

    def _tag(self, tag: str) -> None:
        if tag == CALL:
            self._open_block([CALL])
        elif not self._thought:
            if tag in _THOUGHTS and self._output.line_start:
                self._thought = _THOUGHTS[tag]
            elif self.reasoning_cut and tag in _THOUGHTS.values():
                pass
            elif tag != self._double or not self._output.content.blank:
                self._output.say(tag)
        elif tag == self._thought:
            self._output.end_part()
            self._thought, self._double = "", tag
        elif not self._output.reasoning.blank:
            self._output.think(tag)  # at the beginning it repeats the one that opened the thought

    def _open_block(self, opening: list[str]) -> None:
        early = EarlyCall(self._output.calls) if self._early and not self._thought else None
        self._open = _Open(opening, self._at, Block(early))

    def _in_block(self, opened: _Open, *, last: bool) -> bool:
        block = opened.block
        self._at = block.read(self._text, self._at)
        if last and block.state is State.OPEN and block.finish(self._text[self._at :]):
            self._at = len(self._text)
        if block.early and block.early.events:
            self._output.add(*block.early.events)
            block.early.events.clear()
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
        """Take a block as text up to where it ended or went wrong; what follows that is read once more.

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
        if self._thought:
            self._output.think("".join(self._ending.text) if self._ending else "")
            self._output.think(text)
            self._ending = None
        else:
            self._output.say(text)

    def _after_call_in_thought(self, ending: _Ending, *, last: bool) -> bool:
        """Read on after a call in an open thought: only the end of the turn or another call makes it one."""
        start, self._at = self._at, skip(BLANK, self._text, self._at)
        ending.text.append(self._text[start : self._at])
        rest = self._text[self._at : self._at + len(END_CALL)]
        if not rest and last:
            self._ending = None
            for call in ending.calls:
                self._output.call(call)
        elif rest.startswith(CALL) and self._takes_calls:
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
            at = skip(_END_MORE, text, 0)
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
        """Add text to the part; return what can be given out now."""
        body = text.strip()
        if not body:
            self._space.append(text)
            return ""
        lead = text[: len(text) - len(text.lstrip())]
        before = [*self._gap, *self._space, lead] if self._started else []
        self._gap, self._space = [], [text[len(lead) + len(body) :]]
        self._started, self.blank = True, False
        return "".join(before) + body

    def go_on(self) -> None:
        """Take all so far for given out, white space at its end, too."""
        self._started, self.blank, self._space, self._gap = True, False, [], []

    def end_part(self) -> None:
        """Set apart what follows."""
        if not self.blank:
            self._gap = self._space
        self._space, self.blank = [], True


class Output:
    """Collects events until they are asked for."""

    def __init__(self) -> None:
        self.calls = 0
        self.line_start = True  # whether only white space stands before, on this line
        self.content, self.reasoning = _Trimmed(), _Trimmed()
        self._events: list[Event] = []
        self._pieces: list[str] = []
        self._kind: type[Content | Reasoning] = Content

    def say(self, text: str) -> None:
        """Add to the content."""
        line = text.rpartition("\n")
        self.line_start = (self.line_start or bool(line[1])) and not line[2].strip()
        self._give(Content, self.content.push(text))

    def think(self, text: str) -> None:
        """Add to the reasoning."""
        self._give(Reasoning, self.reasoning.push(text))

    def end_part(self) -> None:
        """Set apart what is said next, after a call or a thought."""
        self.content.end_part()
        self.reasoning.end_part()
        self.line_start = True

    def go_on(self) -> None:
        """Take all so far for given out."""
        for trimmed in (self.content, self.reasoning):
            if not trimmed.blank:
                trimmed.go_on()

    def call(self, written: WrittenCall) -> None:
        """Add a whole call."""
        index, call, arguments = self.calls, written.call, written.arguments
        self.add(CallStarted(index, call.id, call.name), CallArguments(index, arguments), CallFinished(index, call))

    def add(self, *events: Event) -> None:
        """Add events of calls."""
        self._join()
        self._events += events
        self.calls += sum(isinstance(event, CallStarted) for event in events)
        self.end_part()

    def take(self) -> list[Event]:
        """Return all events since the last time."""
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
