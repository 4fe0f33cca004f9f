"""Replies of the Responses API as types, and the stream that makes their items and events from deltas.

Whole replies are generated the same way, and their events thrown away: so both are the same.
"""

from __future__ import annotations

import itertools
import secrets
import time
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec
from msgspec import structs

from hermes_cli.generation import CallArguments, CallStarted, Done, Reasoning
from hermes_cli.server.choice_stream import ContentDelta
from hermes_cli.server.openai.objects import ChatLogprob, Timings, chat_logprobs, timings
from hermes_cli.server.streaming_reply import named_event

if TYPE_CHECKING:
    from hermes_cli.server.choice_stream import Delta
    from hermes_cli.server.errors import Problem

    class MakeEvent(Protocol):
        """Encodes an event with its number."""

        def __call__(self, kind: str, /, **fields: object) -> bytes:
            """Return an event."""


class ResponseStream:
    """The items and events of one response."""

    def __init__(self, response: ResponseObject, *, summary: bool) -> None:
        """Begin with what is known of a response before; `summary` sends reasoning as its summary."""
        self.response, self._summary = response, summary
        self._items: list[Item] = []
        self._open: _OpenItem | None = None
        self._numbers = itertools.count()
        self._begun = False

    def take(self, delta: Delta | Done) -> bytes:
        """Add a delta or the end; return the events that tell of it."""
        data = self._begin()
        if isinstance(delta, Done):
            return data + self._end(delta)
        if self._open is None or not self._open.takes(delta):
            data += self._close("completed")
            self._open = self._new_item(delta)
            data += self._open.begin()
        return data if isinstance(delta, CallStarted) else data + self._open.add(delta)

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

    def _new_item(self, delta: Delta) -> _OpenItem:
        index = len(self._items)
        if isinstance(delta, ContentDelta):
            return _OpenMessage(self._event, index)
        if isinstance(delta, Reasoning):
            return _OpenReasoning(self._event, index, summary=self._summary)
        if isinstance(delta, CallArguments):
            raise TypeError("arguments without a call")
        return _OpenCall(self._event, index, delta)

    def _close(self, status: Status) -> bytes:
        if self._open is None:
            return b""
        item, data = self._open.end(status)
        self._items.append(item)
        self._open = None
        return data

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
            usage=response_usage(done),
            timings=timings([[done]]),
        )
        return data + self._event(f"response.{status}", response=self.response)

    def _event(self, kind: str, /, **fields: object) -> bytes:
        return named_event(kind, sequence_number=next(self._numbers), **fields)


class _OpenItem:
    """An item that goes on with each delta."""

    delta_type: type[Any]
    text_event: str
    part_event = ""  # of its only part, if it has parts

    def __init__(self, event: MakeEvent, index: int, prefix: str, **part_index: int) -> None:
        self._event, self._index = event, index
        self._id = f"{prefix}_{secrets.token_hex(24)}"
        self._position = {"item_id": self._id, "output_index": index, **part_index}
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def takes(self, delta: Delta) -> bool:
        return isinstance(delta, self.delta_type)

    def begin(self) -> bytes:
        data = self._event("response.output_item.added", output_index=self._index, item=self.item("in_progress"))
        if self.part_event:
            data += self._event(f"{self.part_event}.added", **self._position, part=self.part())
        return data

    def add(self, delta: ContentDelta | Reasoning | CallArguments) -> bytes:
        self._texts.append(delta.text)
        return self._event(f"{self.text_event}.delta", **self._position, delta=delta.text, **self.delta_fields(delta))

    def end(self, status: Status) -> tuple[Item, bytes]:
        item = self.item(status)
        data = self._event(f"{self.text_event}.done", **self._position, **self.done_fields())
        if self.part_event:
            data += self._event(f"{self.part_event}.done", **self._position, part=self.part())
        return item, data + self._event("response.output_item.done", output_index=self._index, item=item)

    def item(self, status: Status) -> Item:
        raise NotImplementedError

    def part(self) -> OutputText | ReasoningTextPart | SummaryText | None:
        return None

    def delta_fields(self, delta: Any) -> dict[str, Any]:  # noqa: ANN401, ARG002 - of `delta_type`
        return {}

    def done_fields(self) -> dict[str, Any]:
        return {"text": self.text}


class _OpenMessage(_OpenItem):
    """Text of the answer."""

    delta_type, text_event, part_event = ContentDelta, "response.output_text", "response.content_part"

    def __init__(self, event: MakeEvent, index: int) -> None:
        super().__init__(event, index, "msg", content_index=0)
        self._logprobs: list[ChatLogprob] = []

    def item(self, status: Status) -> MessageItem:
        return MessageItem(id=self._id, status=status, content=[] if status == "in_progress" else [self.part()])

    def part(self) -> OutputText:
        return OutputText(text=self.text, logprobs=self._logprobs)

    def delta_fields(self, delta: ContentDelta) -> dict[str, Any]:
        logprobs = chat_logprobs(delta.logprobs or ()).content
        self._logprobs += logprobs
        return {"logprobs": logprobs}

    def done_fields(self) -> dict[str, Any]:
        return {"text": self.text, "logprobs": self._logprobs}


class _OpenReasoning(_OpenItem):
    """Reasoning, as such or as its summary."""

    delta_type = Reasoning

    def __init__(self, event: MakeEvent, index: int, *, summary: bool) -> None:
        super().__init__(event, index, "rs", **{"summary_index" if summary else "content_index": 0})
        self._summary = summary
        self.text_event = "response.reasoning_summary_text" if summary else "response.reasoning_text"
        self.part_event = "response.reasoning_summary_part" if summary else "response.content_part"

    def item(self, status: Status) -> ReasoningItem:
        part = None if status == "in_progress" else self.part()
        return ReasoningItem(
            id=self._id,
            status=status,
            summary=[part] if isinstance(part, SummaryText) else [],
            content=[part] if isinstance(part, ReasoningTextPart) else [],
        )

    def part(self) -> SummaryText | ReasoningTextPart:
        return SummaryText(self.text) if self._summary else ReasoningTextPart(self.text)


class _OpenCall(_OpenItem):
    """A call of a function."""

    delta_type, text_event = CallArguments, "response.function_call_arguments"

    def __init__(self, event: MakeEvent, index: int, started: CallStarted) -> None:
        super().__init__(event, index, "fc")
        self._started = started

    def item(self, status: Status) -> CallItem:
        return CallItem(
            id=self._id, status=status, call_id=self._started.id, name=self._started.name, arguments=self.text
        )

    def done_fields(self) -> dict[str, Any]:
        return {"name": self._started.name, "arguments": self.text}


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
    arguments: str


Item = MessageItem | ReasoningItem | CallItem


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
    instructions: str | None
    previous_response_id: str | None
    store: bool
    max_output_tokens: int | None
    temperature: float
    top_p: float
    top_logprobs: int
    text: dict[str, Any]
    reasoning: dict[str, Any]
    tools: list[dict[str, Any]]
    tool_choice: Any
    parallel_tool_calls: bool
    metadata: dict[str, str]
    background: Literal[False] = False
    truncation: Literal["disabled"] = "disabled"
    service_tier: Literal["default"] = "default"


class DeletedResponse(msgspec.Struct, frozen=True):
    """A response that was deleted."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


def response_usage(done: Done) -> ResponseUsage:
    """Return the usage of a turn."""
    return ResponseUsage(
        done.prompt_tokens,
        CachedTokens(done.cached_tokens),
        done.completion_tokens,
        ReasoningTokens(done.reasoning_tokens),
        done.prompt_tokens + done.completion_tokens,
    )
