"""Replies of the Responses API as types: encoded as they stand here, and described so in the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from hermes_cli.server.openai.objects import ChatLogprob, Timings  # noqa: TC001 - msgspec reads them

if TYPE_CHECKING:
    from hermes_cli.engine.protocol import Done

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
