"""Bodies of Anthropic's API: requests, where null is the same as a field that is left out, replies and their events."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import structs
from pydantic import Field, WithJsonSchema
from pydantic_core import from_json

from hermes_cli.generation import CallArguments, CallStarted, Done, Reasoning
from hermes_cli.server.choice_stream import ContentDelta, Delta, continues
from hermes_cli.server.openai.requests import (
    GenerationFields,
    LenientModel,
    MessageList,
    Object,
    Text,
    Texts,
    ToolList,
    Whole,
    messages_schema,
)
from hermes_cli.server.streaming_reply import named_event

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]
AnyObject = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})]

_ROLES = ["user", "assistant", "system"]
_PARTS = ["text", "thinking", "redacted_thinking", "tool_use", "tool_result"]
_SYSTEM = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]}


class CountRequest(LenientModel):
    """The fields that are part of the prompt."""

    model: Text | None = Field(None, description="A served name or alias; empty is the server's first model.")
    messages: Annotated[MessageList, messages_schema(_ROLES, _PARTS, "content")]
    system: Annotated[Any, WithJsonSchema(_SYSTEM)] = Field(None, description="A text, or blocks of text.")
    tools: ToolList | None = Field(None, description="Tools on offer, with an `input_schema`.")
    tool_choice: Object | None = Field(None, description="`type`: auto, any, tool or none.")
    thinking: Object | None = Field(None, description="`type`: enabled, disabled or adaptive; `budget_tokens`.")
    output_config: Object | None = Field(None, description="`format`: a JSON schema; `effort`.")
    output_format: Object | None = Field(None, description="The older place of `output_config.format`.")
    chat_template_kwargs: Object | None = Field(None, description="keep_cots, and others as in chats.")


class MessageRequest(CountRequest, GenerationFields):
    """Anthropic's Messages, and a few of what llama.cpp's clients add."""

    max_tokens: Annotated[Whole, Field(ge=1)] = Field(
        description="The most to generate; more than there is room for is no error."
    )
    stop_sequences: Texts | None = None


class TextBlock(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """Text of the answer."""

    text: str


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
    """The model's turn; `warnings` tell what was relaxed or left out, in streams at once (`message_start`)."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[Block] = []
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: MessageUsage
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


class TokenCount(msgspec.Struct, frozen=True):
    """Tokens of the prompt."""

    input_tokens: int


_DELTAS = {
    ContentDelta: ("text_delta", "text"),
    Reasoning: ("thinking_delta", "thinking"),
    CallArguments: ("input_json_delta", "partial_json"),
}


class MessageStream:
    """The blocks and events of one message."""

    def __init__(self, message: MessageObject) -> None:
        """Begin with what is known of a message before its first block."""
        self.message = message
        self._blocks: list[Block] = []
        self._first: Delta | None = None  # of the block that is open
        self._texts: list[str] = []

    def begin(self, prompt_tokens: int) -> bytes:
        """Return the first event; the tokens from the cache follow at the end."""
        message = structs.replace(self.message, usage=MessageUsage(prompt_tokens, 0, 0))
        return named_event("message_start", message=message)

    def take(self, delta: Delta | Done) -> bytes:
        """Add a delta or the end; return the events that tell of it."""
        if isinstance(delta, Done):
            return self._end(delta)
        data = b""
        if not continues(self._first, delta):
            data = self._close()
            self._first = delta
            data += self._event("content_block_start", content_block=_block(delta, ""))
        if isinstance(delta, CallStarted):
            return data
        self._texts.append(delta.text)
        kind, field = _DELTAS[type(delta)]
        return data + self._event("content_block_delta", delta={"type": kind, field: delta.text})

    def _close(self) -> bytes:
        if self._first is None:
            return b""
        block, data = _block(self._first, "".join(self._texts)), b""
        if isinstance(block, ThinkingBlock):
            signature = {"type": "signature_delta", "signature": block.signature}
            data = self._event("content_block_delta", delta=signature)
        data += self._event("content_block_stop")
        self._blocks.append(block)
        self._first, self._texts = None, []
        return data

    def _end(self, done: Done) -> bytes:
        data = self._close()
        reason: StopReason = "end_turn"
        if done.reason == "length":
            reason = "model_context_window_exceeded" if done.context_full else "max_tokens"
        elif done.reason == "tool_calls":
            reason = "tool_use"
        elif done.stop is not None:
            reason = "stop_sequence"
        stop = done.stop if reason == "stop_sequence" else None
        usage = MessageUsage(
            done.prompt_tokens - done.cached_tokens,
            done.completion_tokens,
            done.cached_tokens,
            output_tokens_details=ThinkingTokens(done.reasoning_tokens),
        )
        self.message = structs.replace(
            self.message, content=self._blocks, stop_reason=reason, stop_sequence=stop, usage=usage
        )
        delta = {"stop_reason": reason, "stop_sequence": stop}
        return data + named_event("message_delta", delta=delta, usage=usage) + named_event("message_stop")

    def _event(self, kind: str, **fields: object) -> bytes:
        """Encode an event of the block that is open."""
        return named_event(kind, index=len(self._blocks), **fields)


def _block(first: Delta, text: str) -> Block:
    """Return the block that began with a delta, with its text."""
    if isinstance(first, ContentDelta):
        return TextBlock(text)
    if isinstance(first, Reasoning):
        return ThinkingBlock(text, hashlib.sha256(text.encode()).hexdigest() if text else "")
    if isinstance(first, CallArguments):
        raise TypeError("arguments without a call")
    try:
        msgspec.json.decode(text or "{}")
        arguments = (text or "{}").encode()
    except msgspec.DecodeError:  # cut off: the part that is whole, as the SDK does
        arguments = msgspec.json.encode(from_json(text, allow_partial=True))
    return ToolUseBlock(first.id, first.name, msgspec.Raw(arguments))
