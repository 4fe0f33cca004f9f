"""Bodies of Anthropic's API: requests, where null is the same as a field that is left out, and replies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from pydantic import Field, WithJsonSchema

from hermes_cli.server.openai.requests import (
    MOST_MESSAGES,
    Duration,
    Flag,
    LenientModel,
    MinP,
    Object,
    RepeatPenalty,
    Temperature,
    Text,
    Texts,
    TopK,
    TopP,
    Whole,
)

if TYPE_CHECKING:
    from hermes_cli.engine.protocol import Done

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]
AnyObject = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})]

_TEXT = {"type": "string"}
_BLOCKS = ["text", "thinking", "redacted_thinking", "tool_use", "tool_result"]
_BLOCK = {
    "type": "object",
    "properties": {"type": {"enum": _BLOCKS}, "text": _TEXT},
    "required": ["type"],
}
AnthropicMessages = Annotated[
    list[Any],
    Field(min_length=1, max_length=MOST_MESSAGES),
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_MESSAGES,
            "items": {
                "type": "object",
                "properties": {
                    "role": {"enum": ["user", "assistant", "system"]},
                    "content": {"anyOf": [_TEXT, {"type": "array", "items": _BLOCK}]},
                },
                "required": ["role", "content"],
            },
        }
    ),
]
SystemField = Annotated[
    Any,
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]}),
]


class CountRequest(LenientModel):
    """The fields that are part of the prompt."""

    model: Text | None = Field(None, description="A served name or alias; empty is the server's first model.")
    messages: AnthropicMessages
    system: SystemField = Field(None, description="A text, or blocks of text.")
    tools: list[Any] | None = Field(None, description="Tools on offer, with an `input_schema`.")
    tool_choice: Object | None = Field(None, description="`type`: auto, any, tool or none.")
    thinking: Object | None = Field(None, description="`type`: enabled, disabled or adaptive; `budget_tokens`.")
    output_config: Object | None = Field(None, description="`format`: a JSON schema; `effort`.")
    output_format: Object | None = Field(None, description="The older place of `output_config.format`.")
    chat_template_kwargs: Object | None = Field(None, description="keep_cots, and others as in chats.")


class MessageRequest(CountRequest):
    """Anthropic's Messages, and a few of what llama.cpp's clients add."""

    max_tokens: Annotated[Whole, Field(ge=1)] = Field(
        description="The most to generate; more than there is room for is no error."
    )
    stream: Flag | None = None
    stop_sequences: Texts | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    repeat_penalty: RepeatPenalty | None = None
    seed: Whole | None = None
    keep_alive: Duration = Field(None, description="How long the model stays in memory afterwards, as in chats.")


class TextBlock(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """Text of the answer."""

    text: str
    citations: None = None


class ThinkingBlock(msgspec.Struct, frozen=True, tag_field="type", tag="thinking"):
    """Reasoning. The signature is a checksum of it, and need not come back."""

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
    """Tokens. Those from the cache are not among `input_tokens`: both together are the prompt."""

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


class TokenCount(msgspec.Struct, frozen=True):
    """Tokens of the prompt."""

    input_tokens: int


def message_usage(done: Done) -> MessageUsage:
    """Return the usage of a turn."""
    return MessageUsage(
        done.prompt_tokens - done.cached_tokens,
        done.completion_tokens,
        done.cached_tokens,
        output_tokens_details=ThinkingTokens(done.reasoning_tokens),
    )


def stop_reason(done: Done) -> StopReason:
    """Return why a turn ended."""
    if done.reason == "length":
        return "model_context_window_exceeded" if done.context_full else "max_tokens"
    if done.reason == "tool_calls":
        return "tool_use"
    return "end_turn" if done.stop is None else "stop_sequence"
