"""What OpenAI's clients get, as types: they are encoded as they stand here, and described so in the OpenAPI document.

The chunks of a stream are written by hand in stream.py, since there are many; `Chunk` and `CompletionChunk` say what
they are, and tests hold them to it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from hermes_cli import __version__
from hermes_cli.server.openai.logprobs import ChatLogprobs, CompletionLogprobs  # noqa: TC001 - msgspec reads them
from hermes_cli.server.openai.usage import Timings, Usage  # noqa: TC001 - as above

FINGERPRINT = f"hermes-{__version__}"

FinishReason = Literal["stop", "length", "tool_calls"]
Written = Literal["stop", "length"]


class Function(msgspec.Struct, frozen=True):
    """The function to run. The arguments are JSON, but for a call that was cut off (finish_reason `length`)."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True):
    """A call that the client is asked to make."""

    id: str
    function: Function
    type: Literal["function"] = "function"


class ReplyMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The model's turn. Reasoning stands in two fields, since clients look for it in either."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    reasoning: str | msgspec.UnsetType = msgspec.UNSET
    tool_calls: list[ToolCall] | msgspec.UnsetType = msgspec.UNSET


class Choice(msgspec.Struct, frozen=True):
    """One of `n` turns."""

    index: int
    message: ReplyMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a chat. `created` in seconds since 1970."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[Choice]
    usage: Usage
    timings: Timings


class DeltaFunction(msgspec.Struct, frozen=True, omit_defaults=True):
    """The name comes first, then pieces of the arguments."""

    arguments: str
    name: str | msgspec.UnsetType = msgspec.UNSET


class DeltaToolCall(msgspec.Struct, frozen=True):
    """A piece of a call; only the first has an id and a name."""

    index: int
    function: DeltaFunction
    id: str | msgspec.UnsetType = msgspec.UNSET
    type: Literal["function"] | msgspec.UnsetType = msgspec.UNSET


class Delta(msgspec.Struct, frozen=True):
    """What is new."""

    role: Literal["assistant"] | msgspec.UnsetType = msgspec.UNSET
    content: str | msgspec.UnsetType = msgspec.UNSET
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    reasoning: str | msgspec.UnsetType = msgspec.UNSET
    tool_calls: list[DeltaToolCall] | msgspec.UnsetType = msgspec.UNSET


class ChunkChoice(msgspec.Struct, frozen=True):
    """What is new of one of `n` turns."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class Chunk(msgspec.Struct, frozen=True):
    """An event of a stream. The last has no choices but the usage, if `stream_options.include_usage` asks for it."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET
    timings: Timings | msgspec.UnsetType = msgspec.UNSET


class CompletionChoice(msgspec.Struct, frozen=True):
    """One text; with several prompts, those of the first come first."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Written | None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a prompt. `created` in seconds since 1970."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[CompletionChoice]
    usage: Usage | msgspec.UnsetType | None = msgspec.UNSET
    timings: Timings | msgspec.UnsetType = msgspec.UNSET


def answers(whole: type[msgspec.Struct], chunk: type[msgspec.Struct] | None = None) -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI document says of a route's answer, whole or in chunks. FastAPI knows nothing of it."""
    content: dict[str, Any] = {"application/json": {"schema": _schema(whole)}}
    if chunk:
        one = {"anyOf": [_schema(chunk), {"$ref": "#/components/schemas/ErrorBody"}]}
        said = "`[DONE]` comes last, if nothing went wrong."
        data = {"anyOf": [{"const": "[DONE]"}, json_text(one)], "description": said}
        content["text/event-stream"] = {"itemSchema": stream_event(data)}
    return {200: {"description": "The answer.", "content": content}}


def stream_event(data: dict[str, Any], **more: dict[str, Any]) -> dict[str, Any]:
    """The schema of an event with such data, and with more fields that it always has."""
    return {"type": "object", "properties": {"data": data, **more}, "required": ["data", *more]}


def json_text(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a text that is JSON of a schema."""
    return {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}


def _schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON schema of a type, in one piece: OpenAPI documents have no place for definitions inside."""
    schema = msgspec.json.schema(kind)
    defined = schema.pop("$defs", {})

    def whole(part: Any) -> Any:  # noqa: ANN401 - any part of a schema
        if isinstance(part, dict):
            if "$ref" in part:
                return whole(defined[part["$ref"].rpartition("/")[2]])
            return {key: whole(value) for key, value in part.items()}
        return [whole(one) for one in part] if isinstance(part, list) else part

    described: dict[str, Any] = whole(schema)
    return described
