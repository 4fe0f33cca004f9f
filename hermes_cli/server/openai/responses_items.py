"""Items of a response while they are written. Each tells of its begin, its pieces and its end in events of its own."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Protocol

from hermes_cli.generation import CallArguments, Content, Reasoning
from hermes_cli.prompting.normalize import repaired
from hermes_cli.server.openai.logprobs import for_chat
from hermes_cli.server.openai.responses_objects import (
    CallItem,
    MessageItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    SummaryText,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_cli.engine.protocol import TokenLogprobs
    from hermes_cli.generation import CallStarted
    from hermes_cli.server.openai.logprobs import ChatLogprob
    from hermes_cli.server.openai.responses_objects import Item, Status
    from hermes_cli.server.openai.turns import Sent

    class Tell(Protocol):
        """Makes an event."""

        def __call__(self, kind: str, /, **fields: object) -> bytes:
            """One event."""


class OpenItem(Protocol):
    """An item that may go on."""

    def takes(self, part: Sent) -> bool:
        """Whether a piece belongs to it."""

    def begin(self) -> bytes:
        """The events of its begin."""

    def add(self, text: str, tokens: Sequence[TokenLogprobs] | None) -> bytes:
        """The events of one more piece."""

    def end(self, status: Status) -> tuple[Item, bytes]:
        """The whole item, and the events of its end."""


class OpenMessage:
    """Text of the answer."""

    def __init__(self, tell: Tell, index: int) -> None:
        self._tell, self._index = tell, index
        self._name = _new_name("msg")
        self._place = {"item_id": self._name, "output_index": index, "content_index": 0}
        self._texts: list[str] = []
        self._logprobs: list[ChatLogprob] = []

    def takes(self, part: Sent) -> bool:
        """Text goes on."""
        return isinstance(part, Content)

    def begin(self) -> bytes:
        """The message, and its only part."""
        item = MessageItem(id=self._name, status="in_progress", content=[])
        return self._tell("response.output_item.added", output_index=self._index, item=item) + self._tell(
            "response.content_part.added", **self._place, part=OutputText(text="")
        )

    def add(self, text: str, tokens: Sequence[TokenLogprobs] | None) -> bytes:
        """More of it."""
        delta, told = repaired(text), for_chat(tokens or ()).content
        self._texts.append(text)
        self._logprobs += told
        return self._tell("response.output_text.delta", **self._place, delta=delta, logprobs=told)

    def end(self, status: Status) -> tuple[MessageItem, bytes]:
        """All of it."""
        part = OutputText(text=repaired("".join(self._texts)), logprobs=self._logprobs)
        item = MessageItem(id=self._name, status=status, content=[part])
        text = {"text": part.text, "logprobs": part.logprobs}
        return item, (
            self._tell("response.output_text.done", **self._place, **text)
            + self._tell("response.content_part.done", **self._place, part=part)
            + self._tell("response.output_item.done", output_index=self._index, item=item)
        )


class OpenReasoning:
    """A thought, told as such or as its summary."""

    def __init__(self, tell: Tell, index: int, *, summary: bool) -> None:
        self._tell, self._index, self._summary = tell, index, summary
        self._name = _new_name("rs")
        at = "summary_index" if summary else "content_index"
        self._place = {"item_id": self._name, "output_index": index, at: 0}
        self._text_event = "response.reasoning_summary_text" if summary else "response.reasoning_text"
        self._part_event = "response.reasoning_summary_part" if summary else "response.content_part"
        self._texts: list[str] = []

    def takes(self, part: Sent) -> bool:
        """The thought goes on."""
        return isinstance(part, Reasoning)

    def begin(self) -> bytes:
        """The item, and its only part."""
        item = ReasoningItem(id=self._name, status="in_progress", summary=[], content=[])
        return self._tell("response.output_item.added", output_index=self._index, item=item) + self._tell(
            f"{self._part_event}.added", **self._place, part=self._part("")
        )

    def add(self, text: str, _: Sequence[TokenLogprobs] | None) -> bytes:
        """More of it."""
        self._texts.append(text)
        return self._tell(f"{self._text_event}.delta", **self._place, delta=repaired(text))

    def end(self, status: Status) -> tuple[ReasoningItem, bytes]:
        """All of it."""
        part = self._part(repaired("".join(self._texts)))
        item = ReasoningItem(
            id=self._name,
            status=status,
            summary=[part] if isinstance(part, SummaryText) else [],
            content=[part] if isinstance(part, ReasoningText) else [],
        )
        return item, (
            self._tell(f"{self._text_event}.done", **self._place, text=part.text)
            + self._tell(f"{self._part_event}.done", **self._place, part=part)
            + self._tell("response.output_item.done", output_index=self._index, item=item)
        )

    def _part(self, text: str) -> SummaryText | ReasoningText:
        return SummaryText(text) if self._summary else ReasoningText(text)


class OpenCall:
    """A call of a function."""

    def __init__(self, tell: Tell, index: int, started: CallStarted) -> None:
        self._tell, self._index = tell, index
        self._name = _new_name("fc")
        self._place = {"item_id": self._name, "output_index": index}
        self._started = started
        self._arguments: list[str] = []

    def takes(self, part: Sent) -> bool:
        """Its arguments go on."""
        return isinstance(part, CallArguments)

    def begin(self) -> bytes:
        """Which function is called."""
        return self._tell("response.output_item.added", output_index=self._index, item=self._item("in_progress"))

    def add(self, text: str, _: Sequence[TokenLogprobs] | None) -> bytes:
        """More of the arguments."""
        self._arguments.append(text)
        return self._tell("response.function_call_arguments.delta", **self._place, delta=repaired(text))

    def end(self, status: Status) -> tuple[CallItem, bytes]:
        """All of it."""
        item = self._item(status)
        told = {"name": item.name, "arguments": item.arguments}
        return item, (
            self._tell("response.function_call_arguments.done", **self._place, **told)
            + self._tell("response.output_item.done", output_index=self._index, item=item)
        )

    def _item(self, status: Status) -> CallItem:
        return CallItem(
            id=self._name,
            status=status,
            call_id=self._started.id,
            name=repaired(self._started.name),
            arguments=repaired("".join(self._arguments)),
        )


def _new_name(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(24)}"
