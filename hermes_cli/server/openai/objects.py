"""Replies to OpenAI's clients as types: encoded as they stand here, and described so in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from hermes_cli import __version__
from hermes_cli.engine.protocol import Done, Logprob, TokenLogprobs

FINGERPRINT = f"hermes-{__version__}"
LEAST = -9999.0  # as OpenAI writes an impossible token's log-probability: JSON has no infinity

FinishReason = Literal["stop", "length", "tool_calls", "function_call"]
TextFinishReason = Literal["stop", "length"]


class PromptTokensDetails(msgspec.Struct, frozen=True):
    """Of the prompt's tokens, those from the cache."""

    cached_tokens: int


class CompletionTokensDetails(msgspec.Struct, frozen=True):
    """Of the generated tokens, those of reasoning. Predictions of clients are not used; drafts are in `timings`."""

    reasoning_tokens: int
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class CompletionUsage(msgspec.Struct, frozen=True):
    """Tokens. A prompt that several choices share counts once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class Timings(msgspec.Struct, frozen=True):
    """Tokens (`_n`), milliseconds and tokens per second, as measured; 0 where nothing was, as in llama.cpp's server."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float
    draft_n: int
    draft_n_accepted: int


class TopLogprob(msgspec.Struct, frozen=True):
    """A token that was possible. `bytes` are its UTF-8, which may be part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(msgspec.Struct, frozen=True):
    """A token that was chosen, and the likeliest in its place."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct, frozen=True):
    """Tokens of the content; without those of reasoning and of tool calls."""

    content: list[ChatLogprob]
    refusal: None = None


class CompletionLogprobs(msgspec.Struct, frozen=True):
    """One entry in each list for each token, null for a prompt's first; offsets are characters of the whole text."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class PromptLogprob(msgspec.Struct, frozen=True):
    """A token that could stand in a place of the prompt, as vLLM has it; null for a rank that is not known."""

    logprob: float
    rank: int | None
    decoded_token: str


class FunctionCall(msgspec.Struct, frozen=True):
    """The function to run. The arguments are JSON, but for a call that was cut off (finish_reason `length`)."""

    name: str
    arguments: str


class ChatToolCall(msgspec.Struct, frozen=True):
    """A call that the client is asked to make."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class ServerToolCall(msgspec.Struct, frozen=True):
    """A call that the server ran."""

    name: str
    arguments: dict[str, Any]
    result: str  # as the model read it
    failed: bool
    seconds: float  # measured


class ReplyMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The model's turn. Reasoning stands in two fields, since clients look for it in either."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    reasoning: str | msgspec.UnsetType = msgspec.UNSET
    tool_calls: list[ChatToolCall] | msgspec.UnsetType = msgspec.UNSET
    server_tool_calls: list[ServerToolCall] | msgspec.UnsetType = msgspec.UNSET
    function_call: FunctionCall | msgspec.UnsetType = msgspec.UNSET  # the older form, for `functions`


class ChatChoice(msgspec.Struct, frozen=True):
    """One of `n` turns."""

    index: int
    message: ReplyMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a chat. `created` in seconds since 1970; `warnings` tell what was relaxed or left out."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[ChatChoice]
    usage: CompletionUsage
    timings: Timings
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


class DeltaFunction(msgspec.Struct, frozen=True, kw_only=True):
    """The name comes first, then pieces of the arguments."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    arguments: str


class DeltaToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a call; only the first has an id and a name."""

    index: int
    id: str | msgspec.UnsetType = msgspec.UNSET
    type: Literal["function"] | msgspec.UnsetType = msgspec.UNSET
    function: DeltaFunction


class ChunkDelta(msgspec.Struct, frozen=True):
    """New parts of a turn."""

    role: Literal["assistant"] | msgspec.UnsetType = msgspec.UNSET
    content: str | msgspec.UnsetType = msgspec.UNSET
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    reasoning: str | msgspec.UnsetType = msgspec.UNSET
    tool_calls: list[DeltaToolCall] | msgspec.UnsetType = msgspec.UNSET
    server_tool_calls: list[ServerToolCall] | msgspec.UnsetType = msgspec.UNSET
    function_call: DeltaFunction | msgspec.UnsetType = msgspec.UNSET  # the older form, for `functions`


class ChunkChoice(msgspec.Struct, frozen=True):
    """New parts of one of `n` turns."""

    index: int
    delta: ChunkDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None


class ChatChunk(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a stream. The last has no choices but the usage, if `stream_options.include_usage` asks for it.

    `warnings` stand where `timings` do.
    """

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[ChunkChoice]
    usage: CompletionUsage | msgspec.UnsetType = msgspec.UNSET
    timings: Timings | msgspec.UnsetType = msgspec.UNSET
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


class InputTokens(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a prompt."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


class CompletionChoice(msgspec.Struct, frozen=True):
    """One text; with several prompts, those of the first come first."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: TextFinishReason | None
    prompt_logprobs: list[dict[str, PromptLogprob] | None] | msgspec.UnsetType = msgspec.UNSET


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a prompt. `created` in seconds since 1970."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[CompletionChoice]
    usage: CompletionUsage | msgspec.UnsetType = msgspec.UNSET
    timings: Timings | msgspec.UnsetType = msgspec.UNSET
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET


def usage(prompts: Sequence[Sequence[Done]]) -> CompletionUsage:
    """Return the usage of several prompts, each with one or more choices."""
    every = [done for choices in prompts for done in choices]
    prompt = sum(choices[0].prompt_tokens for choices in prompts)
    completion = sum(done.completion_tokens for done in every)
    return CompletionUsage(
        prompt,
        completion,
        prompt + completion,
        PromptTokensDetails(sum(map(_cached, prompts))),
        CompletionTokensDetails(sum(done.reasoning_tokens for done in every)),
    )


def timings(prompts: Sequence[Sequence[Done]]) -> Timings:
    """Return the timings of several prompts, each with one or more choices. Times that overlap are not added up."""
    every = [done for choices in prompts for done in choices]
    cached = sum(map(_cached, prompts))
    prompt = sum(choices[0].prompt_tokens for choices in prompts) - cached
    completion = sum(done.completion_tokens for done in every)
    return Timings(
        cached,
        *_timing(prompt, prompt, max(done.prompt_seconds for done in every)),
        # The time of answers begins with their first token.
        *_timing(completion, completion - len(every), max(done.completion_seconds for done in every)),
        sum(done.drafted_tokens for done in every),
        sum(done.accepted_tokens for done in every),
    )


def _cached(choices: Sequence[Done]) -> int:
    """Return the cached tokens of one prompt: one choice decodes it, and all others find it in the cache."""
    return min(done.cached_tokens for done in choices)


def _timing(tokens: int, timed: int, seconds: float) -> tuple[int, float, float, float]:
    """Return tokens, milliseconds, and per token that was timed milliseconds and tokens per second."""
    each = round(seconds / timed * 1000, 3) if timed > 0 else 0.0
    return tokens, round(seconds * 1000, 3), each, round(timed / seconds, 3) if timed > 0 and seconds > 0 else 0.0


def chat_logprobs(tokens: Iterable[TokenLogprobs]) -> ChatLogprobs:
    """Return log-probabilities in the shape of Chat Completions."""
    return ChatLogprobs(
        [ChatLogprob(*_fields(token.chosen), [TopLogprob(*_fields(other)) for other in token.top]) for token in tokens]
    )


def completion_logprobs(
    tokens: Sequence[TokenLogprobs], offset: int, *, top: int, is_prompt: bool = False
) -> CompletionLogprobs:
    """Return log-probabilities in the shape of Completions, for a text with `offset` characters before it."""
    offsets: list[int] = []
    alternatives: list[dict[str, float] | None] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.chosen.bytes.decode("utf-8", "ignore"))
        likeliest: dict[str, float] = {}
        for other in token.top[:top]:
            likeliest.setdefault(_name(other), finite(other.logprob))
        alternatives.append(likeliest)
    logprobs: list[float | None] = [finite(token.chosen.logprob) for token in tokens]
    if is_prompt and tokens:  # nothing stands before the first one
        logprobs[0] = alternatives[0] = None
    return CompletionLogprobs(
        [_name(token.chosen) for token in tokens], logprobs, alternatives if top else None, offsets
    )


def join_logprobs(one: CompletionLogprobs, other: CompletionLogprobs) -> CompletionLogprobs:
    """Return the log-probabilities of two texts that follow each other."""
    return CompletionLogprobs(
        one.tokens + other.tokens,
        one.token_logprobs + other.token_logprobs,
        None if one.top_logprobs is None or other.top_logprobs is None else one.top_logprobs + other.top_logprobs,
        one.text_offset + other.text_offset,
    )


def prompt_logprobs(tokens: Sequence[TokenLogprobs], *, top: int) -> list[dict[str, PromptLogprob] | None]:
    """Return log-probabilities of a prompt by token ids, as vLLM has them; null for the first token."""
    found: list[dict[str, PromptLogprob] | None] = []
    for token in tokens:
        ranks = {other.token: rank for rank, other in enumerate(token.top, 1)}
        found.append(
            {
                str(other.token): PromptLogprob(
                    finite(other.logprob), ranks.get(other.token), other.bytes.decode("utf-8", "replace")
                )
                for other in (token.chosen, *token.top[:top])
            }
        )
    return [None, *found[1:]] if found else []


def _fields(token: Logprob) -> tuple[str, float, list[int]]:
    return token.bytes.decode("utf-8", "replace"), finite(token.logprob), list(token.bytes)


def _name(token: Logprob) -> str:
    r"""Return the text of a token, or `bytes:\xe2\x80` where it is part of a character."""
    try:
        return token.bytes.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.bytes)


def finite(logprob: float) -> float:
    """Return a log-probability that JSON can say."""
    return max(logprob, LEAST) if logprob == logprob else LEAST  # noqa: PLR0124 - not a number
