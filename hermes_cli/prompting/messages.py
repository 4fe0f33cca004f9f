"""The nouns of a conversation."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


def _new_call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


@dataclass(frozen=True)
class ToolCall:
    """A function the model asks to run. Ids never reach the model: Hermes matches calls and results by position."""

    name: str
    arguments: dict[str, Any]
    id: str = field(default_factory=_new_call_id, compare=False)

    def __str__(self) -> str:
        """As one would write it in Python: `get_weather(city="Tokyo")`."""
        inside = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in self.arguments.items())
        return f"{self.name}({inside})"


@dataclass(frozen=True)
class Message:
    """One turn. Content of a tool message is what the tool returned, as text."""

    role: Role
    content: str | None
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Content:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """A piece of what the model thinks before it answers."""

    text: str


Parsed = Content | Reasoning | ToolCall
