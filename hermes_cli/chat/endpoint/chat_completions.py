"""OpenAI's Chat Completions as a client: the request in the fields of each kind of server, and the streamed answer."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hermes_cli.chat.conversation import ChatOptions, openai_message
from hermes_cli.chat.endpoint.http_client import EndpointError, error_message
from hermes_cli.engine.protocol import Done, FinishReason
from hermes_cli.errors import UsageError
from hermes_cli.prompting.families import canonical
from hermes_cli.prompting.messages import CallFinished, CallStarted, Content, Event, Message, Reasoning, ToolCall
from hermes_cli.prompting.normalize import repaired
from hermes_cli.prompting.parse import Parser, beginning_of

if TYPE_CHECKING:
    from hermes_cli.chat.endpoint.address import ServerKind

# Sampling fields with other names: llama.cpp's (tools/server/README.md), vLLM's and OpenRouter's.
_LLAMA_CPP_FIELDS = {"penalty_last_n": "repeat_last_n", "dry_breakers": "dry_sequence_breakers"}
_VLLM_FIELDS = {"repeat_penalty": "repetition_penalty"}

_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")  # vLLM, llama.cpp, ours; OpenRouter, Ollama; proxies
_REASONING_TAGS = ("<think>", "<scratch_pad>")
_CLOSING_TAGS = ("</think>", "</scratch_pad>")
_LINE_BREAKS = re.compile(r"\A\s*\n")
_LENGTH_REASONS = {"length", "max_tokens", "model_length"}
_MAX_NUMBER = 2**53  # JSON's largest exact integer (RFC 8259, section 6): a server's larger count is no count


@dataclass(frozen=True)
class EndpointModel:
    """A model behind an endpoint: `name` as requests have it, `context_length` in tokens; None is unknown."""

    name: str
    kind: ServerKind
    context_length: int | None = None
    supports_reasoning: bool | None = None
    supports_tools: bool | None = None


def request_body(
    model: EndpointModel, messages: Sequence[Message], tools: Sequence[dict[str, Any]], options: ChatOptions
) -> dict[str, Any]:
    """Return the body of a streamed request for the next turn, or raise UsageError if the server has no such option."""
    if options.shift:
        raise UsageError(
            "--context-shift is for models that run in this program.", hint="leave it out, or use /compact."
        )
    body: dict[str, Any] = {
        "model": model.name,
        "messages": list(_openai_messages(messages, options.system)),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if tools:
        body["tools"] = list(tools)
    if options.schema is True:
        body["response_format"] = {"type": "json_object"}
    elif options.schema is not None and options.schema is not False:
        json_schema = {"name": "answer", "schema": options.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": json_schema}
    if options.max_tokens is not None:
        body["max_completion_tokens" if model.kind == "openai" else "max_tokens"] = options.max_tokens
    if options.stops:
        body["stop"] = list(options.stops)
    names = _VLLM_FIELDS if model.kind in {"vllm", "sglang", "openrouter"} else _LLAMA_CPP_FIELDS
    sampling = {names.get(name, name): value for name, value in options.sampling.items()}
    return body | sampling | _thinking_fields(model.kind, options)


def prompt_body(
    model: EndpointModel, messages: Sequence[Message], tools: Sequence[dict[str, Any]], options: ChatOptions
) -> dict[str, Any]:
    """Return the fields that make the prompt: for llama.cpp's `/apply-template`, vLLM's and SGLang's `/tokenize`."""
    body: dict[str, Any] = {"model": model.name, "messages": list(_openai_messages(messages, options.system))}
    if tools:
        body["tools"] = list(tools)
    thinking = _thinking_fields(model.kind, options)
    return body | {key: value for key, value in thinking.items() if key == "chat_template_kwargs"}


def _thinking_fields(kind: ServerKind, options: ChatOptions) -> dict[str, Any]:
    """Return the fields that switch reasoning and limit it.

    llama.cpp, vLLM, SGLang and this program's server hand `chat_template_kwargs` to the template (Hermes 4's reads
    `thinking`, most others `enable_thinking`). Ollama takes OpenAI's levels, OpenRouter has an object of its own.
    """
    think, budget = options.think, None if options.think is False else options.think_budget
    if kind == "openrouter":
        reasoning: dict[str, Any] = {} if think is None else {"enabled": think}
        reasoning |= {} if budget is None else {"max_tokens": budget}
        return {"reasoning": reasoning} if reasoning else {}
    if budget is not None and kind in {"openai", "ollama", "sglang"}:
        raise UsageError(
            "--think-budget: this server has no limit in tokens for its reasoning.",
            hint="leave it out; --max-tokens limits reasoning and answer together.",
        )
    if kind in {"openai", "ollama"}:
        return {} if think is None else {"reasoning_effort": "medium" if think else "none"}
    fields: dict[str, Any] = {}
    if think is not None:
        fields["chat_template_kwargs"] = {"thinking": think, "enable_thinking": think}
    if budget is not None:
        fields["thinking_token_budget" if kind == "vllm" else "thinking_budget_tokens"] = budget
    return fields


def _openai_messages(messages: Sequence[Message], system: str | None) -> Iterator[dict[str, Any]]:
    """Yield the messages without their reasoning: no model was trained to read it."""
    if system:
        yield {"role": "system", "content": system}
    for message in messages:
        fields = openai_message(message)
        if not message.tool_calls:
            fields["content"] = message.content or ""
        if message.role == "tool":
            fields |= {"tool_call_id": message.tool_call_id or ""}
            fields |= {"name": message.name} if message.name else {}
        yield fields


class CompletionReader:
    """Turns the chunks of one answer into events, in all the shapes that servers give them."""

    def __init__(self, *, reasoning_separated: bool, warn: Callable[[str], object], think_budget: bool = False) -> None:
        """Start the clock: the request was just sent.

        With `reasoning_separated` the server never leaves reasoning in the content; with `think_budget` the request
        limits reasoning. `warn` is called with calls that cannot be parsed.
        """
        self._content = _ContentReader(reasoning_separated=reasoning_separated, budget=think_budget)
        self._calls = _CallReader(warn)
        self._finish_reason = ""
        self._usage: dict[str, Any] = {}
        self._timings: dict[str, Any] = {}
        self._sent_at = time.monotonic()
        self._first_at: float | None = None
        self.is_finished = False

    def feed(self, chunk: dict[str, Any]) -> list[Event]:
        """Return the events of a chunk; an empty chunk is the end. Raise EndpointError if it is an error."""
        self.is_finished = self.is_finished or not chunk
        self._usage = _object(chunk.get("usage")) or self._usage
        self._timings = _object(chunk.get("timings")) or self._timings
        choices = chunk.get("choices")
        choice = _object(choices[0]) if isinstance(choices, list) and choices else {}
        events = self._read_delta(_object(choice.get("delta")) or _object(choice.get("message")))
        if events and self._first_at is None:
            self._first_at = time.monotonic()
        if choice.get("finish_reason"):
            self._finish_reason, self.is_finished = str(choice["finish_reason"]), True
            if self._finish_reason in {"error", "content_filter"}:
                default = "an error" if self._finish_reason == "error" else "its filter ended it"
                raise EndpointError(500, error_message(choice, default), {"error": choice.get("error")})
        return events

    def finish(self, context_length: int | None, max_tokens: int | None) -> list[Event | Done]:
        """Return the last events and `Done`; counts that the server does not send are 0.

        `context_length` is for prompt and answer together, `max_tokens` the limit of the answer in the request.
        """
        end = time.monotonic()
        is_cut = self._finish_reason in _LENGTH_REASONS
        events: list[Event | Done] = [*self._content.finish(), *self._calls.finish(is_cut=is_cut)]
        reason: FinishReason = "length" if is_cut else "tool_calls" if self._calls.complete else "stop"
        first_at = end if self._first_at is None else self._first_at
        usage, timings = self._usage, self._timings
        prompt_details = _object(usage.get("prompt_tokens_details"))
        completion_details = _object(usage.get("completion_tokens_details"))
        prompt = _count(usage, "prompt_tokens") or _count(timings, "prompt_n") + _count(timings, "cache_n")
        completion = _count(usage, "completion_tokens") or _count(timings, "predicted_n")
        accepted = _count(completion_details, "accepted_prediction_tokens")
        drafted = accepted + _count(completion_details, "rejected_prediction_tokens")
        is_full = context_length is not None and prompt + completion >= context_length
        done = Done(
            reason,
            prompt,
            _count(prompt_details, "cached_tokens") or _count(timings, "cache_n"),
            completion,
            self._seconds("prompt_ms", first_at - self._sent_at),
            self._seconds("predicted_ms", end - first_at),
            reasoning_tokens=_count(completion_details, "reasoning_tokens"),
            drafted_tokens=drafted or _count(timings, "draft_n"),
            accepted_tokens=accepted or _count(timings, "draft_n_accepted"),
            context_full=is_cut and (max_tokens is None or is_full or 0 < completion < max_tokens),
        )
        return [*events, done]

    def _read_delta(self, delta: dict[str, Any]) -> list[Event]:
        events: list[Event] = []
        reasoning = next(filter(None, (_text(delta.get(name)) for name in _REASONING_FIELDS)), "")
        if reasoning:
            events.append(self._content.reasoning(reasoning))
        if text := _text(delta.get("content")) or _text(delta.get("refusal")):
            events += self._content.feed(text)
        calls = delta.get("tool_calls")
        if isinstance(calls, list) and calls:
            events += self._content.finish()
            events += self._calls.feed([_object(call) for call in calls])
        return events

    def _seconds(self, name: str, default: float) -> float:
        value = self._timings.get(name)
        return value / 1000 if isinstance(value, (int, float)) and 0 <= value <= _MAX_NUMBER else default


class _ContentReader:
    """Content, which begins with tagged reasoning where a server does not separate it.

    Line breaks before it are dropped: vLLM's and SGLang's parsers leave those that follow reasoning. Where a server
    ends reasoning at its budget the model closes it once more, and that tag is dropped, too.
    """

    def __init__(self, *, reasoning_separated: bool, budget: bool) -> None:
        self.reasoning_separated, self._budget = reasoning_separated, budget
        self._pending = ""
        self._parser: Parser | None = None
        self._begun = False  # some content was given out
        self._reasoned = False
        self._held = ""  # may become a closing tag

    def feed(self, text: str) -> list[Event]:
        return self._cleaned(self._parsed(text), last=False)

    def finish(self) -> list[Event]:
        return self._cleaned(self._rest(), last=True)

    def reasoning(self, text: str) -> Reasoning:
        """Return reasoning that the server has separated."""
        self.reasoning_separated = self._reasoned = True
        return Reasoning(text)

    def _cleaned(self, events: list[Event], *, last: bool) -> list[Event]:
        cleaned: list[Event] = []
        for event in [*events, Content("")] if last else events:
            self._reasoned = self._reasoned or isinstance(event, Reasoning)
            if not isinstance(event, Content):
                cleaned.append(event)
            elif text := self._clean(event.text, last=last):
                cleaned.append(Content(text))
        return cleaned

    def _clean(self, text: str, *, last: bool) -> str:
        """Return what can be given out of the content; the rest is held back, unless it is the `last`."""
        text, self._held = self._held + text, ""
        if self._budget and self._reasoned:
            tag = next((tag for tag in _CLOSING_TAGS if tag in text), None)
            if tag:
                before, _, behind = text.partition(tag)
                self._budget, text = False, before + (behind if self._begun or before.strip() else behind.lstrip())
            elif not last:
                end = beginning_of(_CLOSING_TAGS, text, 0)
                text, self._held = text[:end], text[end:]
        if not self._begun:
            if not text.strip():
                self._held = "" if last else text + self._held
                return ""
            text, self._begun = _LINE_BREAKS.sub("", text), True
        return text

    def _parsed(self, text: str) -> list[Event]:
        if self._parser:
            return self._parser.feed(text)
        if self.reasoning_separated:
            return [Content(text)]
        self._pending += text
        start = self._pending.lstrip()
        if start.startswith(_REASONING_TAGS):
            self._parser = Parser(tools=())
            return self._parser.feed(self._pending)
        if any(tag.startswith(start) for tag in _REASONING_TAGS):
            return []
        return self._rest()

    def _rest(self) -> list[Event]:
        parser, pending = self._parser, self._pending
        self.reasoning_separated, self._parser, self._pending = True, None, ""
        if parser:
            return parser.finish()
        return [Content(pending)] if pending else []


@dataclass
class _PartialCall:
    """A call that is being generated; `key` is what its pieces identify it by."""

    key: object
    id: str = ""
    name: str = ""
    text: str = ""
    started: bool = False

    @property
    def arguments(self) -> dict[str, Any] | None:
        """Arguments as an object; None if they are not one (yet)."""
        try:
            value = json.loads(repaired(canonical(json.loads(self.text))))  # escapes may spell half a surrogate pair
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None


@dataclass
class _CallReader:
    """Calls, whose pieces may be whole or parts, with numbers or ids or neither; `complete` counts those to be run."""

    warn: Callable[[str], object]
    calls: list[_PartialCall] = field(default_factory=list)
    complete: int = 0

    def feed(self, pieces: list[dict[str, Any]]) -> list[Event]:
        events: list[Event] = []
        for piece in pieces:
            function = _object(piece.get("function"))
            call = self._call_of(piece, _text(function.get("name")))
            arguments = function.get("arguments")
            call.text += canonical(arguments) if isinstance(arguments, dict) else _text(arguments)
            if call.name and not call.started:
                call.started, call.id = True, call.id or ToolCall("", {}).id
                events.append(CallStarted(self.calls.index(call), call.id, call.name))
        return events

    def finish(self, *, is_cut: bool) -> list[Event]:
        """Return the ends of all calls; one that was cut off must not be run."""
        events: list[Event] = []
        for index, call in enumerate(self.calls):
            is_cut_here = is_cut and call is self.calls[-1]
            if call.text.strip() in {"", "null"} and not is_cut_here:
                call.text = "{}"
            arguments = call.arguments
            if call.name:
                complete = arguments is not None
                self.complete += complete
                events.append(CallFinished(index, ToolCall(call.name, arguments or {}, call.id), complete=complete))
            if not is_cut and (arguments is None or not call.name):
                self.warn(f"the model's call of {call.name or 'nothing'} cannot be read; it is not run.")
        self.calls = []
        return events

    def _call_of(self, piece: dict[str, Any], name: str) -> _PartialCall:
        """Return the call of a piece. Some servers number all calls 0, and tell them apart by ids."""
        number, call_id = piece.get("index"), _text(piece.get("id"))
        key = number if isinstance(number, int) else call_id or None
        if key is None and not name:
            call = self.calls[-1] if self.calls else None
        else:
            call = next((other for other in reversed(self.calls) if other.key == key), None)
        if call and name and call.name and (key is None or (call_id and call.id and call_id != call.id)):
            call = None
        if call is None:
            call = _PartialCall(key)
            self.calls.append(call)
        call.id, call.name = call.id or call_id, call.name or name
        return call


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    """Return a text, or the joined texts of a list of parts."""
    parts = [_object(part).get("text") for part in value] if isinstance(value, list) else [value]
    return repaired("".join(text for text in parts if isinstance(text, str)))


def _count(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    return value if type(value) is int and 0 <= value <= _MAX_NUMBER else 0
