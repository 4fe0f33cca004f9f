"""How the model is to go on in a conversation: what flags say at its start and commands change on the way."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - msgspec reads it
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ChatOptions:
    """What a conversation asks of whoever answers.

    Attributes:
        system: the system prompt.
        think: whether to reason before answering; None is as the model does by itself.
        think_budget: the most tokens of reasoning; None for any.
        schema: JSON schema of the answer, or True for any JSON object; None for text.
        sampling: fields of `engine.request.SamplingOptions` that the user sets; the others are as the model recommends.
        max_tokens: the most to generate in one turn; None is as many as there is room for.
        stops: texts that end an answer.
        shift: where the context length ends, go on without the older half of the conversation.
    """

    system: str | None = None
    think: bool | None = None
    think_budget: int | None = None
    schema: Mapping[str, Any] | bool | None = None
    sampling: Mapping[str, float | int] = field(default_factory=dict)
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    shift: bool = False
