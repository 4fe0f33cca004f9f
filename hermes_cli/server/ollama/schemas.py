"""Bodies of Ollama's API: requests, where null is the same as a field that is left out, and replies.

They follow Ollama 0.32 (its api/types.go and docs/api.md). Durations are nanoseconds.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import Field

from hermes_cli.server.openai.objects import ChatLogprob
from hermes_cli.server.openai.requests import (
    MOST_MESSAGES,
    MOST_TOP_LOGPROBS,
    Duration,
    Flag,
    FlagOrText,
    LenientModel,
    Number,
    ObjectOrText,
    Text,
    Texts,
    ToolList,
    Whole,
)

API_VERSION = "0.32.0"  # of Ollama: clients ask for features by it
NANOSECONDS = 1_000_000_000
ANY_OBJECT = {"application/json": {"schema": {"type": "object"}}}  # a reply that Ollama's own pages describe


class OllamaOptions(LenientModel):
    """Options of one request that mean something here."""

    num_predict: Whole | None = None
    num_ctx: Whole | None = None
    seed: Whole | None = None
    temperature: Number | None = None
    top_k: Whole | None = None
    top_p: Number | None = None
    min_p: Number | None = None
    typical_p: Number | None = None
    repeat_last_n: Whole | None = None
    repeat_penalty: Number | None = None
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    mirostat: Whole | None = None
    mirostat_tau: Number | None = None
    mirostat_eta: Number | None = None
    stop: Texts | None = None


class NamedModel(LenientModel):
    """A request that names a model; `name` is what older clients call it."""

    model: Text | None = None
    name: Text | None = None

    @property
    def named(self) -> str:
        """The name, or nothing."""
        return self.model or self.name or ""


class OllamaRequest(NamedModel):
    """The fields that chats and prompts share. Replies stream unless `stream` is false."""

    stream: Flag | None = None
    format: ObjectOrText = None
    options: OllamaOptions | None = None
    think: FlagOrText = None
    keep_alive: Duration = None
    truncate: Flag | None = None
    shift: Flag | None = None
    logprobs: Flag | None = None
    top_logprobs: Annotated[Whole, Field(ge=0, le=MOST_TOP_LOGPROBS)] | None = None


class OllamaChatRequest(OllamaRequest):
    """POST /api/chat."""

    messages: Annotated[list[Any], Field(max_length=MOST_MESSAGES)] | None = None
    tools: ToolList | None = None


class OllamaPromptRequest(OllamaRequest):
    """POST /api/generate."""

    prompt: Text | None = None
    suffix: Text | None = None
    system: Text | None = None
    template: Text | None = None
    context: list[Any] | None = None
    raw: Flag | None = None
    images: list[Any] | None = None


class OllamaEmbedRequest(NamedModel):
    """POST /api/embed, and with `prompt` POST /api/embeddings."""

    input: Any = None
    prompt: Text | None = None
    truncate: Flag | None = None
    dimensions: Whole | None = None
    options: dict[str, Any] | None = None
    keep_alive: Duration = None


class OllamaCall(msgspec.Struct, frozen=True):
    """The function to run, with its arguments as an object."""

    index: int
    name: str
    arguments: msgspec.Raw


class OllamaToolCall(msgspec.Struct, frozen=True):
    """A call that the client is asked to make."""

    id: str
    function: OllamaCall


class OllamaMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The model's turn, or a piece of it."""

    role: Literal["assistant"] = "assistant"
    content: str = ""
    thinking: str | UnsetType = UNSET
    tool_calls: list[OllamaToolCall] | UnsetType = UNSET


class OllamaReply(msgspec.Struct, frozen=True, kw_only=True):
    """A reply, or a piece of one; `message` is that of chats, `response` and `thinking` of prompts."""

    model: str
    created_at: str
    message: OllamaMessage | UnsetType = UNSET
    response: str | UnsetType = UNSET
    thinking: str | UnsetType = UNSET
    done: bool = False
    done_reason: Literal["stop", "length", "load", "unload"] | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET
    logprobs: list[ChatLogprob] | UnsetType = UNSET
    warnings: list[str] | UnsetType = UNSET  # what was relaxed or left out; Ollama has no such field


class OllamaEmbeddings(msgspec.Struct, frozen=True, kw_only=True):
    """The embeddings of texts, in their order."""

    model: str
    embeddings: list[msgspec.Raw]  # lists of numbers
    total_duration: int
    load_duration: int
    prompt_eval_count: int
    warnings: list[str] | UnsetType = UNSET


def timestamp(seconds: float | None = None) -> str:
    """Return a time, in seconds since 1970, as Ollama writes it; None is now."""
    time = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return time.isoformat().replace("+00:00", "Z")
