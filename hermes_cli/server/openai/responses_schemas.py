"""Requests to the Responses API. As with chats, null is as good as nothing, and unknown fields are ignored."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from hermes_cli.server.openai.schemas import (
    MOST_MESSAGES,
    MOST_TOP_LOGPROBS,
    Duration,
    Flag,
    FrequencyPenalty,
    MinP,
    Object,
    PresencePenalty,
    RepeatPenalty,
    Temperature,
    Text,
    Texts,
    TopK,
    TopP,
    Whole,
)

MOST_METADATA = 16  # pairs, as OpenAI has it; so are the next two
_Key = Annotated[str, StringConstraints(strict=True, max_length=64)]
_Value = Annotated[str, StringConstraints(strict=True, max_length=512)]

Input = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "object"}, "minItems": 1, "maxItems": MOST_MESSAGES},
            ]
        }
    ),
]


class ResponseRequest(BaseModel):
    """OpenAI's Responses, and a few of what llama.cpp's clients add."""

    model_config = ConfigDict(extra="allow")

    input: Input = Field(description="A text, or messages, calls of functions, their outputs, and reasoning.")
    model: Text | None = Field(None, description="A served name or alias; empty is the server's first model.")
    instructions: Text | None = Field(None, description="A system prompt; those of earlier responses are not kept.")
    previous_response_id: Text | None = Field(None, description="Of a stored response that this one goes on from.")
    store: Flag | None = Field(None, description="Whether the response is kept in memory for a while; true by default.")
    stream: Flag | None = None
    tools: list[Any] | None = Field(None, description="Functions on offer.")
    tool_choice: Any = Field(None, description="`auto`, `none`, `required`, a function, or `allowed_tools`.")
    parallel_tool_calls: Flag | None = None
    text: Object | None = Field(None, description="`format`: text, json_object or json_schema.")
    reasoning: Object | None = Field(None, description="`effort`, as in chats; with `summary`, it is told as one.")
    max_output_tokens: Annotated[Whole, Field(ge=1)] | None = Field(
        None, description="The most to generate, reasoning included; more than there is room for is no error."
    )
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_logprobs: Annotated[Whole, Field(ge=0, le=MOST_TOP_LOGPROBS)] | None = None
    include: list[Any] | None = Field(
        None, description="`message.output_text.logprobs`; nothing else changes anything."
    )
    metadata: Annotated[dict[_Key, _Value], Field(max_length=MOST_METADATA)] | None = Field(
        None, description="Given back as it is."
    )
    seed: Whole | None = None
    stop: Texts | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    repeat_penalty: RepeatPenalty | None = None
    presence_penalty: PresencePenalty | None = None
    frequency_penalty: FrequencyPenalty | None = None
    chat_template_kwargs: Object | None = Field(None, description="thinking, enable_thinking, keep_cots.")
    keep_alive: Duration = Field(None, description="How long the model stays in memory afterwards, as in chats.")


SAME = (
    "model",
    "stream",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "temperature",
    "top_p",
    "seed",
    "stop",
    "top_k",
    "min_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "chat_template_kwargs",
    "keep_alive",
)
"""Fields that mean the same in a chat."""

REFUSED: dict[str, tuple[object, str]] = {
    "background": (False, "wait for the response, or stream it."),
    "background_options": (None, "wait for the response, or stream it."),
    "context_management": ([], "nothing is cut or summed up here; send fewer items."),
    "conversation": (None, "give previous_response_id, or the items themselves."),
    "moderation": (None, "leave it out: nothing here would do what it says."),
    "prompt": (None, "give instructions and input."),
    "truncation": ("disabled", "nothing is cut here; send fewer items."),
}
"""Fields that would change the result: the value that asks for nothing, and what to do instead."""
