"""One generated turn as a stream of deltas: what all APIs make their events and their whole replies of.

A call that was cut off is given as far as it was written. The parser closes its arguments to valid JSON, but a client
that looks at nothing else would run it, and half a command is another command: so that end is left out here, as OpenAI
does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace

from hermes_cli.engine.protocol import TokenLogprobs
from hermes_cli.generation import (
    TAGS,
    CallArguments,
    CallFinished,
    CallStarted,
    ChatModel,
    Content,
    Done,
    Event,
    LogprobsEvent,
    Reasoning,
    TurnRequest,
)
from hermes_cli.prompting.normalize import repaired

_TAGS = frozenset(tag.encode() for tag in TAGS)
_END_CALL = b"</tool_call>"


@dataclass(frozen=True)
class ContentDelta:
    """A piece of the answer, with its tokens if their log-probabilities were asked for."""

    text: str
    logprobs: list[TokenLogprobs] | None = None


Delta = ContentDelta | Reasoning | CallStarted | CallArguments
"""A piece of a turn. Its texts can be encoded: halves of surrogate pairs are replaced."""


async def stream_turn(
    model: ChatModel, turn: TurnRequest, *, reasoning: bool = True
) -> AsyncGenerator[Delta | Done, None]:
    """Generate a turn; the deltas end with `Done`. Closing it cancels the request; `reasoning` includes reasoning."""
    choice = _Choice(reasoning=reasoning, logprobs=turn.top_logprobs is not None)
    async with aclosing(model.answer(turn)) as events:
        async for event in events:
            if isinstance(event, Done):
                yield event
            elif delta := choice.delta(event):
                yield delta


def continues(first: Delta | None, delta: Delta) -> bool:
    """Return whether a delta belongs to the block, or item, that began with another; only calls have arguments."""
    if isinstance(delta, CallArguments):
        if not isinstance(first, CallStarted):
            raise TypeError("arguments without a call")
        return True
    return not isinstance(delta, CallStarted) and type(first) is type(delta)


class _Choice:
    """The state between two events of a turn."""

    def __init__(self, *, reasoning: bool, logprobs: bool) -> None:
        self._reasoning, self._logprobs = reasoning, logprobs
        self._tokens = TokenAttribution()
        self._held: CallArguments | None = None  # it may turn out to be nothing but the end of what was cut off
        self._sent_arguments = False  # of the call at hand

    def delta(self, event: Event) -> Delta | None:
        if isinstance(event, Content):
            tokens = self._tokens.take(event.text) if self._logprobs else None
            return ContentDelta(repaired(event.text), tokens)
        if isinstance(event, Reasoning):
            if self._logprobs:
                self._tokens.take(event.text)
            return Reasoning(repaired(event.text)) if self._reasoning else None
        if isinstance(event, CallStarted):
            self._sent_arguments = False
            return replace(event, name=repaired(event.name))
        if isinstance(event, CallArguments | CallFinished):
            return self._arguments(event)
        if isinstance(event, LogprobsEvent):
            self._tokens.add(event.logprobs)
        return None

    def _arguments(self, event: CallArguments | CallFinished) -> CallArguments | None:
        """Return the arguments before these, unless they are the end of a call that was cut off."""
        before, self._held = self._held, None
        if isinstance(event, CallArguments):
            self._held = replace(event, text=repaired(event.text))
        else:
            self._tokens.end_call()
            if not event.complete and self._sent_arguments:
                return None
        self._sent_arguments = self._sent_arguments or before is not None
        return before


class TokenAttribution:
    """Tokens that wait until it is known which text they became.

    Not all became content: tags, calls, white space around them, and the token that ends the turn did not.
    """

    def __init__(self) -> None:
        self._waiting: list[TokenLogprobs] = []

    def add(self, tokens: Iterable[TokenLogprobs]) -> None:
        """Add tokens as they come; those without a text become nothing."""
        self._waiting += [token for token in tokens if token.chosen.bytes]

    def take(self, text: str) -> list[TokenLogprobs]:
        """Return the tokens of a text. Those before it are forgotten, those behind it wait."""
        data = text.encode()
        # Tags that are one token did not become text that does not spell them.
        self._waiting = [
            token for token in self._waiting if token.chosen.bytes not in _TAGS or token.chosen.bytes in data
        ]
        begin = b"".join(token.chosen.bytes for token in self._waiting).find(data)
        taken: list[TokenLogprobs] = []
        later: list[TokenLogprobs] = []
        if begin < 0:  # bytes that are no UTF-8 were replaced
            taken, self._waiting = self._waiting, []
            return taken
        at, end = 0, begin + len(data)
        for token in self._waiting:
            size = len(token.chosen.bytes)
            if at >= end:
                later.append(token)
            elif at + size > begin:
                taken.append(token)
            at += size
        self._waiting = later
        return taken

    def rest(self) -> list[TokenLogprobs]:
        """Return the tokens that became no text so far."""
        rest, self._waiting = self._waiting, []
        return rest

    def end_call(self) -> None:
        """Forget the tokens of a call."""
        ends = [number for number, token in enumerate(self._waiting, 1) if token.chosen.bytes == _END_CALL]
        self._waiting = self._waiting[ends[-1] :] if ends else []
