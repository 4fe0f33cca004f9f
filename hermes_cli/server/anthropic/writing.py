"""A message as it is written: its blocks, and the events that tell of them.

Whole answers are written the same way, and their events thrown away: so both are the same answer.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
from msgspec import structs
from pydantic_core import from_json

from hermes_cli.generation import CallArguments, CallStarted, Content, Reasoning
from hermes_cli.prompting.normalize import repaired
from hermes_cli.server.anthropic.objects import (
    MessageUsage,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
    stop_reason,
    usage,
)
from hermes_cli.server.errors import problem
from hermes_cli.server.named_events import event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_cli.errors import HermesError
    from hermes_cli.generation import Done
    from hermes_cli.server.anthropic.objects import Block, MessageObject
    from hermes_cli.server.openai.turns import Sent


class Writing:
    """One message."""

    def __init__(self, message: MessageObject) -> None:
        """Nothing is written yet; `message` is what is known of it before."""
        self.message = message
        self._blocks: list[Block] = []
        self._first: Sent | None = None  # of the block that is open
        self._texts: list[str] = []
        self.begun = False

    def begin(self, prompt_tokens: int) -> bytes:
        """The first event; what of the prompt was read from the cache is told at the end."""
        self.begun = True
        return event(
            "message_start", {"message": structs.replace(self.message, usage=MessageUsage(prompt_tokens, 0, 0))}
        )

    def take(self, parts: Sequence[Sent], done: Done | None) -> bytes:
        """More of it, and its end; the events that tell of that."""
        data = b"".join(map(self._part, parts))
        return data + self._end(done) if done else data

    def _part(self, part: Sent) -> bytes:
        """It goes into the block that is open, or begins another one."""
        data = b""
        if not _same_block(self._first, part):
            data = self._close()
            self._first = part
            data += self._tell("content_block_start", content_block=_block(part, ""))
        if isinstance(part, CallStarted):
            return data
        self._texts.append(part.text)
        return data + self._tell("content_block_delta", delta=_delta(part))

    def _close(self) -> bytes:
        """The end of the block that is open."""
        if self._first is None:
            return b""
        block, data = _block(self._first, repaired("".join(self._texts))), b""
        if isinstance(block, ThinkingBlock):
            signed = {"type": "signature_delta", "signature": block.signature}
            data = self._tell("content_block_delta", delta=signed)
        data += self._tell("content_block_stop")
        self._blocks.append(block)
        self._first, self._texts = None, []
        return data

    def _end(self, done: Done) -> bytes:
        data = self._close()
        stop = done.stop if stop_reason(done) == "stop_sequence" else None
        self.message = structs.replace(
            self.message,
            content=self._blocks,
            stop_reason=stop_reason(done),
            stop_sequence=stop,
            usage=usage(done),
        )
        delta = {"stop_reason": self.message.stop_reason, "stop_sequence": stop}
        return data + event("message_delta", {"delta": delta, "usage": usage(done)}) + event("message_stop", {})

    def _tell(self, kind: str, **fields: object) -> bytes:
        """An event of the block that is open."""
        return event(kind, {"index": len(self._blocks), **fields})


def error_event(error: HermesError) -> bytes:
    """What clients understand of an error in a stream that has begun."""
    return b"event: error\ndata: " + problem(error).body("anthropic") + b"\n\n"


def _same_block(first: Sent | None, part: Sent) -> bool:
    """Whether a piece goes on with a block that began with another."""
    if isinstance(part, CallArguments):
        return isinstance(first, CallStarted)
    return not isinstance(part, CallStarted) and type(first) is type(part)


def _block(first: Sent, text: str) -> Block:
    """A block that began with a piece, and the text that it has."""
    if isinstance(first, Content):
        return TextBlock(text)
    if isinstance(first, Reasoning):
        return ThinkingBlock(text, hashlib.sha256(text.encode()).hexdigest() if text else "")
    if isinstance(first, CallArguments):
        raise TypeError("arguments without a call")
    return ToolUseBlock(first.id, repaired(first.name), _object(text))


def _object(arguments: str) -> msgspec.Raw:
    """Arguments as an object, as the model wrote it. Of what was cut off, what is whole: so the SDK reads streams."""
    try:
        msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError:
        return msgspec.Raw(msgspec.json.encode(from_json(arguments, allow_partial=True)))
    return msgspec.Raw((arguments or "{}").encode())


def _delta(part: Content | Reasoning | CallArguments) -> dict[str, str]:
    if isinstance(part, Content):
        return {"type": "text_delta", "text": repaired(part.text)}
    if isinstance(part, Reasoning):
        return {"type": "thinking_delta", "thinking": repaired(part.text)}
    return {"type": "input_json_delta", "partial_json": repaired(part.text)}
