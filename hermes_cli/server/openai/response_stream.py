"""Replies of the Responses API as types, and the stream that makes their items and events from deltas.

Whole replies are generated the same way, and their events thrown away: so both are the same.
"""

from __future__ import annotations

import itertools
import secrets
import time
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import structs

from hermes_cli.engine.request import SamplingOptions
from hermes_cli.generation import CallStarted, Done, Reasoning
from hermes_cli.server.choice_stream import ContentDelta, Delta, continues
from hermes_cli.server.errors import Problem
from hermes_cli.server.openai.objects import ChatLogprob, Timings, chat_logprobs, timings
from hermes_cli.server.openai.response_tools import COMMAND, INPUT, SHELL, ResponseTools, only_text
from hermes_cli.server.streaming_reply import named_event

Status = Literal["in_progress", "completed", "incomplete"]


class OutputText(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="output_text"):
    """Text of the answer."""

    text: str
    annotations: list[dict[str, Any]] = []
    logprobs: list[ChatLogprob] = []


class ReasoningTextPart(msgspec.Struct, frozen=True, tag_field="type", tag="reasoning_text"):
    """Reasoning."""

    text: str


class SummaryText(msgspec.Struct, frozen=True, tag_field="type", tag="summary_text"):
    """Reasoning where a summary was asked for: there is no shorter one."""

    text: str


class MessageItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """Text of the answer; one part, once there is any."""

    id: str
    status: Status
    role: Literal["assistant"] = "assistant"
    content: list[OutputText]


class ReasoningItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="reasoning"):
    """Reasoning, in either of the two."""

    id: str
    status: Status
    summary: list[SummaryText]
    content: list[ReasoningTextPart]
    encrypted_content: None = None


class CallItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    """A call that the client is asked to make. The arguments are JSON, but for a call that was cut off."""

    id: str
    status: Status
    call_id: str
    name: str
    namespace: str | msgspec.UnsetType = msgspec.UNSET  # that the function was offered in
    arguments: str


class CustomCallItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="custom_tool_call"):
    """A call of a tool that takes a text."""

    id: str
    status: Status
    call_id: str
    name: str
    namespace: str | msgspec.UnsetType = msgspec.UNSET
    input: str


class ShellAction(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="exec"):
    """A command for the client's own machine."""

    command: list[str]
    env: dict[str, str] = {}


class ShellCallItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="local_shell_call"):
    """A command that the client is asked to run."""

    id: str
    status: Status
    call_id: str
    action: ShellAction


Item = MessageItem | ReasoningItem | CallItem | CustomCallItem | ShellCallItem


class CachedTokens(msgspec.Struct, frozen=True):
    """Of the input's tokens, those from the cache."""

    cached_tokens: int
    cache_write_tokens: int = 0


class ReasoningTokens(msgspec.Struct, frozen=True):
    """Of the generated tokens, those of reasoning."""

    reasoning_tokens: int


class ResponseUsage(msgspec.Struct, frozen=True):
    """Tokens."""

    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class IncompleteDetails(msgspec.Struct, frozen=True):
    """The reason why a response ends early."""

    reason: Literal["max_output_tokens"]


class ResponseFailure(msgspec.Struct, frozen=True):
    """The error that ends a response."""

    code: str
    message: str


class ResponseObject(msgspec.Struct, frozen=True, kw_only=True):
    """A response. Times in seconds since 1970; the request's options are repeated as they were understood."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Literal["in_progress", "completed", "incomplete", "failed"] = "in_progress"
    error: ResponseFailure | None = None
    incomplete_details: IncompleteDetails | None = None
    model: str
    output: list[Item] = []
    usage: ResponseUsage | None = None
    timings: Timings | msgspec.UnsetType = msgspec.UNSET
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET
    instructions: str | None
    previous_response_id: str | None
    store: bool
    max_output_tokens: int | None
    temperature: float
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int
    text: dict[str, Any]
    reasoning: dict[str, Any]
    tools: list[dict[str, Any]]
    tool_choice: Any
    parallel_tool_calls: bool
    metadata: dict[str, str]
    max_tool_calls: None = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    background: Literal[False] = False
    truncation: Literal["disabled"] = "disabled"
    service_tier: Literal["default"] = "default"


class DeletedResponse(msgspec.Struct, frozen=True):
    """A response that was deleted."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class _ItemNames(NamedTuple):
    """Names of an item: the prefix of its id, the begin of its events, and its only part, if it has one."""

    prefix: str
    text_event: str
    part_event: str = ""
    part_index: str = ""


_MESSAGE = _ItemNames("msg", "response.output_text", "response.content_part", "content_index")
_REASONING = _ItemNames("rs", "response.reasoning_text", "response.content_part", "content_index")
_SUMMARY = _ItemNames("rs", "response.reasoning_summary_text", "response.reasoning_summary_part", "summary_index")
_CALL = _ItemNames("fc", "response.function_call_arguments")
_CUSTOM_CALL = _ItemNames("ctc", "response.custom_tool_call_input")
_SHELL_CALL = _ItemNames("lsh", "")


class ResponseStream:
    """The items and events of one response."""

    def __init__(self, response: ResponseObject, tools: ResponseTools, *, summary: bool) -> None:
        """Begin with what is known of a response before; `summary` sends reasoning as its summary."""
        self.response, self._tools, self._summary = response, tools, summary
        self._items: list[Item] = []
        self._numbers = itertools.count()
        self._begun = False
        # The open item:
        self._first: Delta | None = None
        self._texts: list[str] = []
        self._logprobs: list[ChatLogprob] = []
        self._names = _MESSAGE
        self._position: dict[str, Any] = {}

    def use_model(
        self, name: str, sampling: SamplingOptions | None, warnings: list[str] | msgspec.UnsetType = msgspec.UNSET
    ) -> None:
        """Name the model that generates, its sampling, and what was relaxed or left out for it."""
        sampling = sampling or SamplingOptions()
        names = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
        options = {option: getattr(sampling, option) for option in names}
        self.response = structs.replace(self.response, model=name, warnings=warnings, **options)

    def take(self, delta: Delta | Done) -> bytes:
        """Add a delta or the end; return the events that tell of it."""
        data = self._begin()
        if isinstance(delta, Done):
            return data + self._end(delta)
        if not continues(self._first, delta):
            data += self._close("completed") + self._open(delta)
        if isinstance(delta, CallStarted):
            return data
        self._texts.append(delta.text)
        if self._names in (_CUSTOM_CALL, _SHELL_CALL):  # their text is known when their arguments are whole
            return data
        fields: dict[str, Any] = {"delta": delta.text}
        if isinstance(delta, ContentDelta):
            fields["logprobs"] = chat_logprobs(delta.logprobs or ()).content
            self._logprobs += fields["logprobs"]
        return data + self._event(f"{self._names.text_event}.delta", **self._position, **fields)

    def failed(self, error: Problem) -> bytes:
        """Return the events of an error in the middle."""
        code = {429: "rate_limit_exceeded", 500: "server_error"}.get(error.status, error.code or "server_error")
        data = self._begin() + self._close("incomplete")
        failure = ResponseFailure(code, error.message)
        self.response = structs.replace(self.response, status="failed", error=failure, output=self._items)
        return data + self._event("response.failed", response=self.response)

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        kinds = ("response.created", "response.in_progress")
        return b"".join(self._event(kind, response=self.response) for kind in kinds)

    def _open(self, first: Delta) -> bytes:
        self._first, self._texts, self._logprobs = first, [], []
        if isinstance(first, ContentDelta):
            self._names = _MESSAGE
        elif isinstance(first, Reasoning):
            self._names = _SUMMARY if self._summary else _REASONING
        else:
            kind = self._tools.client_tool(first.name).kind if isinstance(first, CallStarted) else "function"
            self._names = {"custom": _CUSTOM_CALL, "local_shell": _SHELL_CALL}.get(kind, _CALL)
        item_id, index = f"{self._names.prefix}_{secrets.token_hex(24)}", len(self._items)
        self._position = {"item_id": item_id, "output_index": index}
        if self._names.part_index:
            self._position[self._names.part_index] = 0
        data = self._event("response.output_item.added", output_index=index, item=self._item("in_progress"))
        if part := self._part():
            data += self._event(f"{self._names.part_event}.added", **self._position, part=part)
        return data

    def _close(self, status: Status) -> bytes:
        if self._first is None:
            return b""
        item, part, data = self._item(status), self._part(), b""
        fields: dict[str, Any] = {"text": "".join(self._texts)}
        if isinstance(item, MessageItem):
            fields["logprobs"] = self._logprobs
        elif isinstance(item, CallItem):
            fields = {"name": item.name, "arguments": item.arguments}
        elif isinstance(item, CustomCallItem):
            data = self._event(f"{self._names.text_event}.delta", **self._position, delta=item.input)
            fields = {"input": item.input}
        if self._names.text_event:
            data += self._event(f"{self._names.text_event}.done", **self._position, **fields)
        if part:
            data += self._event(f"{self._names.part_event}.done", **self._position, part=part)
        data += self._event("response.output_item.done", output_index=len(self._items), item=item)
        self._items.append(item)
        self._first = None
        return data

    def _part(self) -> OutputText | ReasoningTextPart | SummaryText | None:
        """Return the only part of the open item; calls have none."""
        text = "".join(self._texts)
        if isinstance(self._first, ContentDelta):
            return OutputText(text=text, logprobs=self._logprobs)
        if isinstance(self._first, Reasoning):
            return SummaryText(text) if self._summary else ReasoningTextPart(text)
        return None

    def _item(self, status: Status) -> Item:
        item_id, first = self._position["item_id"], self._first
        parts: list[Any] = [] if status == "in_progress" else [self._part()]
        if isinstance(first, CallStarted):
            return self._call_item(item_id, status, first)
        if isinstance(first, ContentDelta):
            return MessageItem(id=item_id, status=status, content=parts)
        summary, content = (parts, []) if self._summary else ([], parts)
        return ReasoningItem(id=item_id, status=status, summary=summary, content=content)

    def _call_item(self, item_id: str, status: Status, call: CallStarted) -> Item:
        tool, arguments = self._tools.client_tool(call.name), "".join(self._texts)
        if tool.kind == "local_shell":
            action = ShellAction(command=[*SHELL, only_text(arguments, COMMAND)])
            return ShellCallItem(id=item_id, status=status, call_id=call.id, action=action)
        namespace = msgspec.UNSET if tool.namespace is None else tool.namespace
        kind, text = (
            (CustomCallItem, {"input": only_text(arguments, INPUT)})
            if tool.kind == "custom"
            else (CallItem, {"arguments": arguments})
        )
        return kind(id=item_id, status=status, call_id=call.id, name=tool.name, namespace=namespace, **text)

    def _end(self, done: Done) -> bytes:
        cut = done.reason == "length"
        status: Status = "incomplete" if cut else "completed"
        data = self._close(status)
        self.response = structs.replace(
            self.response,
            status=status,
            completed_at=None if cut else int(time.time()),
            incomplete_details=IncompleteDetails("max_output_tokens") if cut else None,
            output=self._items,
            usage=ResponseUsage(
                done.prompt_tokens,
                CachedTokens(done.cached_tokens),
                done.completion_tokens,
                ReasoningTokens(done.reasoning_tokens),
                done.prompt_tokens + done.completion_tokens,
            ),
            timings=timings([[done]]),
        )
        return data + self._event(f"response.{status}", response=self.response)

    def _event(self, kind: str, /, **fields: object) -> bytes:
        return named_event(kind, sequence_number=next(self._numbers), **fields)
