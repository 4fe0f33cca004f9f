"""The chunks of an answer, in all the shapes that servers give them, to events."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hermes_cli.chat.endpoint.failures import EndpointError, Told, one_line, said_by
from hermes_cli.engine.protocol import Done, FinishReason
from hermes_cli.prompting.messages import CallArguments, CallFinished, CallStarted, Content, Reasoning, ToolCall
from hermes_cli.prompting.normalize import repaired
from hermes_cli.prompting.prompt_texts import canonical

if TYPE_CHECKING:
    from collections.abc import Callable

    from hermes_cli.prompting.messages import Event
    from hermes_cli.prompting.parse import Parser

_THOUGHTS = ("reasoning_content", "reasoning", "thinking")  # vLLM, llama.cpp, ours; OpenRouter, Ollama; some proxies
_TAGS = ("<think>", "<scratch_pad>")
_REASONS: dict[str, FinishReason] = {"length": "length", "max_tokens": "length", "model_length": "length"}


class CompletionReader:
    """One answer: `read` chunks as they come, then `finish`."""

    def __init__(self, *, separated: bool, warn: Callable[[str], object]) -> None:
        """The request was just sent.

        Args:
            separated: the server is known to tell reasoning from content.
            warn: is told of calls that cannot be read.
        """
        self._content = _Text(separated=separated)
        self._calls = _Calls(warn)
        self._reason: str | None = None
        self._usage: dict[str, Any] = {}
        self._timings: dict[str, Any] = {}
        self._asked = time.monotonic()
        self._first: float | None = None
        self.ended = False

    def read(self, chunk: dict[str, Any]) -> list[Event]:
        """What a chunk brings; an empty one is the end.

        Raises:
            RefusedError: it tells of an error.
        """
        self.ended = self.ended or not chunk
        self._usage = _object(chunk.get("usage")) or self._usage
        self._timings = _object(chunk.get("timings")) or self._timings
        choices = chunk.get("choices")
        choice = _object(choices[0]) if isinstance(choices, list) and choices else {}
        events = self._read(_object(choice.get("delta")) or _object(choice.get("message")))
        if events and self._first is None:
            self._first = time.monotonic()
        if choice.get("finish_reason"):
            self._reason, self.ended = str(choice["finish_reason"]), True
            if self._reason in {"error", "content_filter"}:
                said = "its filter ended it" if self._reason == "content_filter" else "an error"
                raise EndpointError(Told(500, one_line(said_by(choice, said)), {"error": choice.get("error")}))
        return events

    def finish(self, context: int | None, asked: int | None) -> list[Event | Done]:
        """What was left, and how it ended; where the server does not count, numbers are 0.

        Args:
            context: tokens that one request can use.
            asked: tokens that the answer could have.
        """
        end = time.monotonic()
        length = _REASONS.get(self._reason or "stop") == "length"
        rest: list[Event | Done] = [*self._content.finish(), *self._calls.finish(cut=length)]
        reason: FinishReason = "length" if length else "tool_calls" if self._calls.whole else "stop"
        first = end if self._first is None else self._first
        read, written = self._seconds("prompt_ms"), self._seconds("predicted_ms")
        usage, timed = self._usage, self._timings
        before, after = _object(usage.get("prompt_tokens_details")), _object(usage.get("completion_tokens_details"))
        cached = _count(before, "cached_tokens") or _count(timed, "cache_n")
        prompt = _count(usage, "prompt_tokens") or _count(timed, "prompt_n") + _count(timed, "cache_n")
        completion = _count(usage, "completion_tokens") or _count(timed, "predicted_n")
        right = _count(after, "accepted_prediction_tokens")
        used_up = context is not None and prompt + completion >= context
        full = length and (asked is None or used_up or 0 < completion < asked)
        done = Done(
            reason,
            prompt,
            cached,
            completion,
            first - self._asked if read is None else read,
            end - first if written is None else written,
            reasoning_tokens=_count(after, "reasoning_tokens"),
            drafted_tokens=right + _count(after, "rejected_prediction_tokens"),
            accepted_tokens=right,
            context_full=full,
        )
        return [*rest, done]

    def _read(self, delta: dict[str, Any]) -> list[Event]:
        events: list[Event] = []
        thought = next(filter(None, (_text(delta.get(name)) for name in _THOUGHTS)), "")
        if thought:
            self._content.separated = True
            events.append(Reasoning(thought))
        if text := _text(delta.get("content")) or _text(delta.get("refusal")):
            events += self._content.read(text)
        calls = delta.get("tool_calls")
        if isinstance(calls, list) and calls:
            events += self._content.finish()
            events += self._calls.read([_object(call) for call in calls])
        return events

    def _seconds(self, name: str) -> float | None:
        value = self._timings.get(name)
        return value / 1000 if isinstance(value, (int, float)) and 0 <= value < math.inf else None


class _Text:
    """Content, which begins with a thought in tags where a server does not look for them."""

    def __init__(self, *, separated: bool) -> None:
        self._held = ""
        self.separated = separated  # there is no thought in what comes
        self._parser: Parser | None = None

    def read(self, text: str) -> list[Event]:
        """What a piece makes certain."""
        if self._parser:
            return self._parser.feed(text)
        if self.separated:
            return [Content(text)]
        self._held += text
        begin = self._held.lstrip()
        if begin.startswith(_TAGS):
            from hermes_cli.prompting.parse import Parser  # noqa: PLC0415 - few servers need it

            self._parser = Parser(tools=())
            return self._parser.feed(self._held)
        if any(tag.startswith(begin) for tag in _TAGS):
            return []
        return self.finish()

    def finish(self) -> list[Event]:
        """What was held back, as it is."""
        parser, held = self._parser, self._held
        self.separated, self._parser, self._held = True, None, ""
        if parser:
            return parser.finish()
        return [Content(held)] if held else []


@dataclass
class _Call:
    """A call while it is written; `key` is what its pieces name it by."""

    key: object
    id: str = ""
    name: str = ""
    text: str = ""
    told: int = 0  # characters of it
    started: bool = False
    finished: bool = False

    @property
    def arguments(self) -> dict[str, Any] | None:
        """As an object, if they are one."""
        try:
            value = json.loads(repaired(canonical(json.loads(self.text))))  # escapes may spell half a character
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None


@dataclass
class _Calls:
    """Calls, whose pieces may be whole or parts, with numbers or ids or neither. Events of one call stand together."""

    warn: Callable[[str], object]
    calls: list[_Call] = field(default_factory=list)
    whole: int = 0

    def read(self, pieces: list[dict[str, Any]]) -> list[Event]:
        """What pieces of calls make certain."""
        for piece in pieces:
            function = _object(piece.get("function"))
            call = self._of(piece, _text(function.get("name")))
            arguments = function.get("arguments")
            if isinstance(arguments, dict):
                arguments = canonical(arguments)
            if not call.finished:
                call.text += _text(arguments)
        return self._given(last=False)

    def finish(self, *, cut: bool) -> list[Event]:
        """What is left of them; a call that was cut off must not be run."""
        events = self._given(last=True)
        if not cut:
            for call in self.calls:
                if call.arguments is None or not call.name:
                    self.warn(f"the model's call of {call.name or 'nothing'} cannot be read; it is not run.")
        self.calls = []
        return events

    def _of(self, piece: dict[str, Any], name: str) -> _Call:
        """The call that a piece belongs to. Some servers number all calls 0, and tell them apart by ids."""
        number, given = piece.get("index"), _text(piece.get("id"))
        key = number if isinstance(number, int) else given or None
        last = self.calls[-1] if self.calls else None
        found = last if key is None and not name else next((c for c in reversed(self.calls) if c.key == key), None)
        another = found and name and found.name and (key is None or (given and found.id and given != found.id))
        if found is None or another:
            found = _Call(key)
            self.calls.append(found)
        found.id, found.name = found.id or given, found.name or name
        return found

    def _given(self, *, last: bool) -> list[Event]:
        """What can be told: of the first call that is not whole, and of others once that one is."""
        events: list[Event] = []
        for index, call in enumerate(self.calls):
            if call.finished:
                continue
            if last and call.text.strip() in {"", "null"}:
                call.text = "{}"
            events += self._more(index, call)
            followed = index + 1 < len(self.calls)
            if not last and not (followed and call.arguments is not None and call.name):
                break
            events += self._end(index, call)
        return events

    @staticmethod
    def _more(index: int, call: _Call) -> list[Event]:
        events: list[Event] = []
        if call.name and not call.started:
            call.id = call.id or ToolCall("", {}).id
            call.started = True
            events.append(CallStarted(index, call.id, call.name))
        if call.started and call.told < len(call.text) and not "null".startswith(call.text.strip()):
            events.append(CallArguments(index, call.text[call.told :]))
            call.told = len(call.text)
        return events

    def _end(self, index: int, call: _Call) -> list[Event]:
        call.finished = True
        if not call.started:
            return []
        arguments = call.arguments
        self.whole += arguments is not None
        whole = ToolCall(call.name, arguments or {}, call.id)
        return [CallFinished(index, whole, complete=arguments is not None)]


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    """A text, or the texts of a list of parts."""
    listed = [_object(part).get("text") for part in value] if isinstance(value, list) else [value]
    return repaired("".join(text for text in listed if isinstance(text, str)))


def _count(of: dict[str, Any], name: str) -> int:
    """A number of tokens; 0 where it is not told."""
    value = of.get(name)
    return value if type(value) is int and value >= 0 else 0
