"""Requests as Anthropic's clients send them. Null is as good as nothing, and unknown fields are ignored."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from hermes_cli.server.openai.schemas import (
    MOST_MESSAGES,
    Duration,
    Flag,
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

_TEXT = {"type": "string"}
_BLOCKS = ["text", "thinking", "redacted_thinking", "tool_use", "tool_result"]
_BLOCK = {
    "type": "object",
    "properties": {"type": {"enum": _BLOCKS}, "text": _TEXT},
    "required": ["type"],
}
Messages = Annotated[
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
System = Annotated[
    Any,
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]}),
]


class CountRequest(BaseModel):
    """What is read by the model, and so is counted."""

    model_config = ConfigDict(extra="allow")

    model: Text | None = Field(None, description="A served name or alias; empty is the server's first model.")
    messages: Messages
    system: System = Field(None, description="A text, or blocks of text.")
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


SAME = (
    "model",
    "chat_template_kwargs",
    "max_tokens",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repeat_penalty",
    "seed",
    "keep_alive",
)
"""Fields that mean the same in a chat."""

REFUSED: dict[str, tuple[object, str]] = {
    "container": (None, "nothing is run here; offer tools instead."),
    "mcp_servers": ([], "nothing is fetched here; offer tools instead."),
}
"""Fields that would change the result: the value that asks for nothing, and what to do instead."""
