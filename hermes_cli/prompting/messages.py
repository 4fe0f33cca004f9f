"""Messages of a conversation, and the events of a turn that is being generated.

For one call: `CallStarted`, then `CallArguments` whose texts, joined, are a JSON object, then `CallFinished`. The
events of one call stand together; indexes count from 0.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class ToolCall:
    """A function the model asks to run. Ids never reach the model: Hermes matches calls and results by position."""

    name: str
    arguments: dict[str, Any]
    id: str = field(default_factory=lambda: f"call_{os.urandom(12).hex()}", compare=False)

    def __str__(self) -> str:
        """Return the call as Python: `get_weather(city="Tokyo")`."""
        inside = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in self.arguments.items())
        return f"{self.name}({inside})"


@dataclass(frozen=True)
class ToolResult:
    """The result of a tool call."""

    text: str  # as the model reads it
    failed: bool = False  # an error, a refusal or a timeout
    cut: int = 0  # characters of the whole result that `text` leaves out
    seconds: float = 0.0  # measured duration


@dataclass(frozen=True)
class Message:
    """A message of a conversation."""

    role: Role
    content: str | None  # what was said; of a tool message what the tool returned, as text
    tool_calls: tuple[ToolCall, ...] = ()  # what an assistant message asks to run, after its content
    reasoning: str | None = None  # what the model thought before it answered, without tags
    tool_call_id: str | None = None  # of a tool message, the call that it answers
    name: str | None = None  # of a tool message, the function that was called


@dataclass(frozen=True)
class Content:
    """A piece of the answer; never empty."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """A piece of what the model thinks before it answers; never empty."""

    text: str


@dataclass(frozen=True)
class CallStarted:
    """The model calls a function; its arguments follow."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class CallArguments:
    """A piece of the arguments as JSON text, with numbers and escapes as the model wrote them; never empty."""

    index: int
    text: str


@dataclass(frozen=True)
class CallFinished:
    """The whole call.

    `complete` is false for a call that was given out early and then cut off: its arguments were closed to valid JSON
    but are not all that the model wanted to say, so it must not be run.
    """

    index: int
    call: ToolCall
    complete: bool = True


Event = Content | Reasoning | CallStarted | CallArguments | CallFinished
