"""Chunks of chat completions as Server-Sent Events, written by hand: there are hundreds in a second.

What all chunks of a choice have in common is encoded once; only texts are encoded each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from hermes_cli.generation import CallStarted, Content, Reasoning
from hermes_cli.prompting.normalize import repaired
from hermes_cli.server.errors import problem
from hermes_cli.server.openai.logprobs import for_chat
from hermes_cli.server.openai.replies import FINGERPRINT
from hermes_cli.server.openai.usage import timings

if TYPE_CHECKING:
    from hermes_cli.errors import HermesError
    from hermes_cli.generation import Done
    from hermes_cli.server.openai.turns import Sent, TurnSent
    from hermes_cli.server.openai.usage import Timings, Usage

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.encode
_LINES = tuple((mark.encode(), rf"\u{ord(mark):04x}".encode()) for mark in "\u0085\u2028\u2029")
_NO_LOGPROBS = b',"logprobs":null'


def text(value: str) -> bytes:
    """A text as JSON that fits on a line, whatever a client takes for a line."""
    try:
        encoded = _encode(value)
    except UnicodeEncodeError:  # half a character, which JSON can spell
        encoded = _encode(repaired(value))
    return encoded if value.isascii() else one_line(encoded)


def one_line(data: bytes) -> bytes:
    """JSON without characters that some clients take for the end of a line."""
    for mark, escaped in _LINES:
        data = data.replace(mark, escaped)
    return data


def event(data: bytes) -> bytes:
    """JSON on one line as an event."""
    return b"data: " + data + b"\n\n"


def error_event(error: HermesError) -> bytes:
    """What clients understand of an error in a stream that has begun; no `[DONE]` follows."""
    return event(problem(error).body())


class Stream:
    """The chunks of one answer, whichever choice they are of."""

    def __init__(self, name: str, created: int, model: str, *, usage: bool) -> None:
        """Encode what all have in common.

        Args:
            name: the id.
            created: in seconds since 1970.
            model: the served name.
            usage: it is told at the end; until then it is null.
        """
        self._head = (
            b'data: {"id":' + text(name) + b',"object":"chat.completion.chunk","created":' + _encode(created)
            + b',"model":' + text(model) + b',"system_fingerprint":' + text(FINGERPRINT)
        )  # fmt: skip
        self._tell_usage = usage
        self._chunk = self._head + (b',"usage":null' if usage else b"")

    def choice(self, index: int) -> tuple[bytes, bytes]:
        """What stands before and after the delta, its log-probabilities and the reason of its end."""
        return self._chunk + b',"choices":[{"index":' + _encode(index) + b',"delta":', b"}]}\n\n"

    def end(self, usage: Usage, times: Timings) -> bytes:
        """The last event of the answer, if it is told."""
        if not self._tell_usage:
            return DONE
        return (
            self._head + b',"choices":[],"usage":' + _encode(usage) + b',"timings":' + _encode(times) + b"}\n\n" + DONE
        )

    def last(self, index: int, done: Done) -> bytes:
        """The chunk that ends a choice; it tells its timings where no chunk with the usage follows."""
        before, _ = self.choice(index)
        told = b"" if self._tell_usage else b',"timings":' + _encode(timings([[done]]))
        return before + b"{}" + _NO_LOGPROBS + b',"finish_reason":"' + done.reason.encode() + b'"}]' + told + b"}\n\n"


class ChoiceChunks:
    """The chunks of one choice."""

    def __init__(self, stream: Stream, index: int, turn: TurnSent) -> None:
        """Encode what they have in common; `turn` knows the log-probabilities."""
        self._before, after = stream.choice(index)
        self._after = _NO_LOGPROBS + b',"finish_reason":null' + after
        self._turn = turn

    def begin(self) -> bytes:
        """The first chunk: who speaks."""
        return self._before + b'{"role":"assistant","content":""}' + self._after

    def chunk(self, sent: Sent) -> bytes:
        """One event."""
        if isinstance(sent, Content):
            delta = b'{"content":' + text(sent.text) + b"}"
            tokens = self._turn.logprobs(sent)
            if tokens is not None:
                told = b',"logprobs":' + one_line(_encode(for_chat(tokens)))
                return self._before + delta + told + self._after[len(_NO_LOGPROBS) :]
        elif isinstance(sent, Reasoning):
            thought = text(sent.text)
            delta = b'{"reasoning_content":' + thought + b',"reasoning":' + thought + b"}"
        elif isinstance(sent, CallStarted):
            delta = (
                b'{"tool_calls":[{"index":' + _encode(sent.index) + b',"id":' + text(sent.id)
                + b',"type":"function","function":{"name":' + text(sent.name) + b',"arguments":""}}]}'
            )  # fmt: skip
        else:
            index, arguments = _encode(sent.index), text(sent.text)
            delta = b'{"tool_calls":[{"index":' + index + b',"function":{"arguments":' + arguments + b"}}]}"
        return self._before + delta + self._after
