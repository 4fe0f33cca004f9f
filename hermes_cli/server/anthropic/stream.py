"""A message as it is generated: its blocks, and the events that tell of them.

Whole replies are generated the same way, and their events thrown away: so both are the same.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
from msgspec import structs
from pydantic_core import from_json

from hermes_cli.generation import CallArguments, CallStarted, Done, Reasoning
from hermes_cli.server.anthropic.schemas import (
    MessageUsage,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
    message_usage,
    stop_reason,
)
from hermes_cli.server.choice_stream import ContentDelta
from hermes_cli.server.streaming_reply import named_event

if TYPE_CHECKING:
    from hermes_cli.server.anthropic.schemas import Block, MessageObject
    from hermes_cli.server.choice_stream import Delta


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
        if not _same_block(self._first, delta):
            data = self._close()
            self._first = delta
            data += self._event("content_block_start", content_block=_block(delta, ""))
        if isinstance(delta, CallStarted):
            return data
        self._texts.append(delta.text)
        return data + self._event("content_block_delta", delta=_delta_object(delta))

    def _close(self) -> bytes:
        """End the block that is open."""
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
        data, reason, usage = self._close(), stop_reason(done), message_usage(done)
        stop = done.stop if reason == "stop_sequence" else None
        self.message = structs.replace(
            self.message, content=self._blocks, stop_reason=reason, stop_sequence=stop, usage=usage
        )
        delta = {"stop_reason": reason, "stop_sequence": stop}
        return data + named_event("message_delta", delta=delta, usage=usage) + named_event("message_stop")

    def _event(self, kind: str, **fields: object) -> bytes:
        """Encode an event of the block that is open."""
        return named_event(kind, index=len(self._blocks), **fields)


def _same_block(first: Delta | None, delta: Delta) -> bool:
    """Return whether a delta belongs to the block that began with another."""
    if isinstance(delta, CallArguments):
        return isinstance(first, CallStarted)
    return not isinstance(delta, CallStarted) and type(first) is type(delta)


def _block(first: Delta, text: str) -> Block:
    """Return the block that began with a delta, with its text."""
    if isinstance(first, ContentDelta):
        return TextBlock(text)
    if isinstance(first, Reasoning):
        return ThinkingBlock(text, hashlib.sha256(text.encode()).hexdigest() if text else "")
    if isinstance(first, CallArguments):
        raise TypeError("arguments without a call")
    return ToolUseBlock(first.id, first.name, _input_object(text))


def _input_object(arguments: str) -> msgspec.Raw:
    """Return arguments as the model wrote them; where they were cut off, the part that is whole, as the SDK does."""
    try:
        msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError:
        return msgspec.Raw(msgspec.json.encode(from_json(arguments, allow_partial=True)))
    return msgspec.Raw((arguments or "{}").encode())


def _delta_object(delta: ContentDelta | Reasoning | CallArguments) -> dict[str, str]:
    if isinstance(delta, ContentDelta):
        return {"type": "text_delta", "text": delta.text}
    if isinstance(delta, Reasoning):
        return {"type": "thinking_delta", "thinking": delta.text}
    return {"type": "input_json_delta", "partial_json": delta.text}
