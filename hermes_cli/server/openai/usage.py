"""What an answer cost: OpenAI's `usage`, and `timings` as llama.cpp's server gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_cli.engine.protocol import Done


class PromptTokensDetails(msgspec.Struct, frozen=True):
    """Of the prompt's tokens, those that did not have to be computed."""

    cached_tokens: int


class CompletionTokensDetails(msgspec.Struct, frozen=True):
    """Of the generated tokens, those of reasoning, and those that were drafted, accepted or not."""

    reasoning_tokens: int
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class Usage(msgspec.Struct, frozen=True):
    """Tokens. A prompt that several choices share counts once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class Timings(msgspec.Struct, frozen=True):
    """Tokens (`_n`), milliseconds and tokens per second, as measured; null where nothing was."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float | None
    prompt_per_second: float | None
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float | None
    predicted_per_second: float | None
    draft_n: int
    draft_n_accepted: int


def usage(prompts: Sequence[Sequence[Done]]) -> Usage:
    """Of several prompts, each with one or more choices."""
    every = [done for choices in prompts for done in choices]
    prompt = sum(choices[0].prompt_tokens for choices in prompts)
    completion = sum(done.completion_tokens for done in every)
    drafted, accepted = (sum(getattr(done, f"{name}_tokens") for done in every) for name in ("drafted", "accepted"))
    return Usage(
        prompt,
        completion,
        prompt + completion,
        PromptTokensDetails(sum(map(_cached, prompts))),
        CompletionTokensDetails(sum(done.reasoning_tokens for done in every), accepted, drafted - accepted),
    )


def timings(prompts: Sequence[Sequence[Done]]) -> Timings:
    """Of several prompts, each with one or more choices. What happened at once is not added up."""
    every = [done for choices in prompts for done in choices]
    cached = sum(map(_cached, prompts))
    read = sum(choices[0].prompt_tokens for choices in prompts) - cached
    wrote = sum(done.completion_tokens for done in every)
    reading, writing = (max(getattr(done, f"{what}_seconds") for done in every) for what in ("prompt", "completion"))
    return Timings(
        cached,
        read,
        _milliseconds(reading),
        _each(reading, read),
        _rate(read, reading),
        wrote,
        _milliseconds(writing),
        _each(writing, wrote),
        _rate(wrote, writing),
        sum(done.drafted_tokens for done in every),
        sum(done.accepted_tokens for done in every),
    )


def _cached(choices: Sequence[Done]) -> int:
    """Of one prompt: one choice reads it, and all others find it read."""
    return min(done.cached_tokens for done in choices)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _each(seconds: float, tokens: int) -> float | None:
    return _milliseconds(seconds / tokens) if tokens else None


def _rate(tokens: int, seconds: float) -> float | None:
    return round(tokens / seconds, 3) if tokens and seconds > 0 else None
