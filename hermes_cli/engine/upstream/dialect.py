"""The contract between `UpstreamEngine` and what knows the routes and fields of one kind of engine."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from hermes_cli.engine.protocol import EngineStats, ModelInfo, TokenLogprobs
from hermes_cli.engine.request import GenerationRequest
from hermes_cli.errors import UsageError

# Routes that tell how far an engine is with all of its requests, and what the lines begin with that count. One that is
# cut off from another node answers as always, and does nothing.
ACTIVITY = {"vllm": ("/metrics", "vllm:"), "sglang": ("/metrics", "sglang:")}


@dataclass(frozen=True)
class Ending:
    """The end of a completion."""

    is_cut: bool  # the limit of tokens or the context length ended it
    stop: str | None = None  # the stop text that ended it
    cached_tokens: int = 0  # of the prompt, those that did not have to be computed


@dataclass(frozen=True)
class Chunk:
    """A part of a completion."""

    text: str = ""  # of its tokens
    count: int = 0  # the number of its tokens
    ids: tuple[int, ...] = ()  # of its tokens, as far as the engine tells them
    logprobs: tuple[TokenLogprobs, ...] = ()
    ending: Ending | None = None  # of the completion, with its last part
    texts: tuple[str, ...] = ()  # of each of its tokens; empty where only all together are known

    def first(self, count: int) -> Chunk:
        """Return its first tokens, of a chunk with `texts`."""
        texts = self.texts[:count]
        return Chunk("".join(texts), count, self.ids[:count], self.logprobs[:count], texts=texts)


@dataclass(frozen=True)
class TokenCompletion:
    """A completion to be made of token ids."""

    # sampling, stop texts, log-probabilities and grammar; its prompt and limit are not those of this part
    request: GenerationRequest
    prompt: Sequence[int]  # token ids
    max_tokens: int | None  # the most to generate; None is as many as fit


class Dialect(Protocol):
    """One kind of engine. Its methods raise UpstreamError where the engine refuses, NetworkError where none answers."""

    name: str  # of the kind
    adds_space: bool  # a space may be put before each text that is tokenized, as SentencePiece does

    async def model_info(self, tags: Sequence[str], texts: Sequence[str]) -> ModelInfo:
        """Return the facts about the model; of `tags` and `texts` those count that are one token."""

    async def tokenize(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        """Return the token ids of each text; with `special` the control tokens of `ModelInfo` may be spelled."""

    async def detokenize(self, tokens: Sequence[int]) -> bytes:
        """Return the bytes of tokens."""

    def check(self, request: GenerationRequest) -> None:
        """Raise UsageError if the request wants what this engine does not have; it names it."""

    async def stats(self) -> EngineStats:
        """Return the counters of the engine's queue and cache, as far as it tells them."""

    def complete(self, completion: TokenCompletion) -> AsyncGenerator[Chunk, None]:
        """Yield a completion; the last chunk has its ending."""


def refuse(engine: str, what: str, hint: str = "leave it out, or run the model in this program.") -> UsageError:
    """Return the error for an option that an engine does not have."""
    return UsageError(f"{what}: {engine} has nothing like it.", hint=hint)


def any_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    """Return the pattern of several texts, with a group for `split`; the longest counts where several begin."""
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None


def check_common(engine: str, request: GenerationRequest) -> None:
    """Raise UsageError for what no upstream engine has."""
    if request.shift:
        raise refuse(engine, "--context-shift")
    if request.prompt_logprobs is not None:
        raise refuse(engine, "log-probabilities of the prompt")
    if request.grammar_prefix:
        raise refuse(engine, "an answer that goes on with what was begun and is held to a schema or to tools")


def lark_of(engine: str, grammar: str) -> str:
    """Return the rules of a grammar as one text of Lark.

    Raise UsageError if it has several grammars that name each other, and an upstream engine takes one.
    """
    try:
        [rules] = [part["lark_grammar"] for part in json.loads(grammar)["grammars"]]
    except (ValueError, KeyError, TypeError):
        raise refuse(engine, "a grammar of this kind", "give a simpler schema, or run the model here.") from None
    return str(rules)
