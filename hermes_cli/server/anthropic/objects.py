"""What Anthropic's clients get, as types: encoded as they stand here, and described so in the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

if TYPE_CHECKING:
    from hermes_cli.engine.protocol import Done

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]
AnyObject = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})]


class TextBlock(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """Text of the answer."""

    text: str
    citations: None = None


class ThinkingBlock(msgspec.Struct, frozen=True, tag_field="type", tag="thinking"):
    """What the model thought. The signature is a checksum of it, and need not come back."""

    thinking: str
    signature: str


class ToolUseBlock(msgspec.Struct, frozen=True, tag_field="type", tag="tool_use"):
    """A call that the client is asked to make."""

    id: str
    name: str
    input: AnyObject


Block = TextBlock | ThinkingBlock | ToolUseBlock


class ThinkingTokens(msgspec.Struct, frozen=True):
    """Of the generated tokens, those of reasoning."""

    thinking_tokens: int


class MessageUsage(msgspec.Struct, frozen=True):
    """Tokens. Those read from the cache are not among `input_tokens`: both together are the prompt."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int = 0
    output_tokens_details: ThinkingTokens = ThinkingTokens(0)


class MessageObject(msgspec.Struct, frozen=True, kw_only=True):
    """The model's turn."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[Block] = []
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: MessageUsage


class Counted(msgspec.Struct, frozen=True):
    """Tokens of the prompt."""

    input_tokens: int


def usage(done: Done) -> MessageUsage:
    """What a turn cost."""
    return MessageUsage(
        done.prompt_tokens - done.cached_tokens,
        done.completion_tokens,
        done.cached_tokens,
        output_tokens_details=ThinkingTokens(done.reasoning_tokens),
    )


def stop_reason(done: Done) -> StopReason:
    """Why a turn ended."""
    if done.reason == "length":
        return "model_context_window_exceeded" if done.context_full else "max_tokens"
    if done.reason == "tool_calls":
        return "tool_use"
    return "end_turn" if done.stop is None else "stop_sequence"
