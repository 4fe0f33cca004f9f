"""The contract of all engines: what they take, what they yield, what they tell of themselves."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from hermes_cli.engine.request import EmbeddingRequest, GenerationRequest

FinishReason = Literal["stop", "length", "tool_calls"]
EngineState = Literal["unloaded", "loading", "ready", "dead", "closed"]


@dataclass(frozen=True)
class Logprob:
    """A token and the logarithm (base e) of its probability at temperature 1, before any sampler."""

    token: int
    bytes: bytes
    logprob: float


@dataclass(frozen=True)
class TokenLogprobs:
    """The log-probability of a generated token, and of the likeliest ones in its place."""

    chosen: Logprob
    top: tuple[Logprob, ...] = ()


@dataclass(frozen=True)
class TextEvent:
    """A piece of generated text, tags included, cut between characters.

    `tokens` is the number of tokens since the piece before; the text of the last of them may be yet to come. `prompt`
    are tokens of the prompt that were read meanwhile, if a request asks for them, the first one with 0. `reasoning_cut`
    if reasoning was ended by its budget in this piece or before: the model may yet write the tag that ends it.
    """

    text: str
    tokens: int = 1
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt: tuple[TokenLogprobs, ...] = ()
    reasoning_cut: bool = False


@dataclass(frozen=True)
class Done:
    """The end of a generation. Counts are tokens, times are seconds as measured."""

    # "stop" where the model ended its turn or a stop text came, "length" where `max_tokens` or the context length ended
    # it; "tool_calls", for who reads the text, where it ended its turn with calls
    reason: FinishReason
    prompt_tokens: int  # of the whole prompt
    cached_tokens: int  # of those, how many did not have to be computed
    completion_tokens: int  # generated, whatever became of them
    prompt_seconds: float  # from the first work on the prompt to the first token
    completion_seconds: float  # from there to the end
    queued_seconds: float = 0.0  # before the first work
    reasoning_tokens: int = 0  # of the completion's, those inside reasoning, with its closing tag
    # drafted_tokens, accepted_tokens: of speculative decoding
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    stop: str | None = None  # the stop text that ended it
    context_full: bool = False  # the context length ended it, not `max_tokens`


Event = TextEvent | Done


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of several texts, in their order: 32-bit floats, little-endian, of length 1.

    `tokens` has the number of tokens of each text, before the `truncated` ones were cut.
    """

    vectors: tuple[bytes, ...]
    tokens: tuple[int, ...]
    truncated: tuple[int, ...] = ()  # positions of texts that were cut to the context length


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a loaded model."""

    context: int  # tokens of one request, prompt and completion together
    slots: int  # requests at once
    trained_context: int  # tokens it was trained for
    parameters: int  # number of weights
    weight_bytes: int  # size of its tensors
    vocabulary: int  # number of tokens
    # sources of its chat templates by name; `default` is the unnamed one
    templates: dict[str, str] = field(default_factory=dict)
    sampling: dict[str, str] = field(default_factory=dict)  # `general.sampling.*` of the file, as text
    # bos, eos: how the tokens are spelled that begin and end a text; empty if there is none
    bos: str = ""
    eos: str = ""
    adds_bos: bool = False  # whether the engine begins every prompt with `bos`
    control: tuple[str, ...] = ()  # texts of control tokens; `added`: those of user-defined ones
    added: tuple[str, ...] = ()
    # tags of prompting that are one token, with its number; `others`: all other special tokens. Tokens that end a
    # generation are in neither
    tags: dict[str, int] = field(default_factory=dict)
    others: tuple[int, ...] = ()
    # the tokens before the prefix, the suffix and the middle of a text to be filled in; empty if there are none
    fim: tuple[int, ...] = ()
    pooling: str = ""  # how a model for embeddings makes one vector of a text; empty where the model writes text
    embedding_length: int = 0  # numbers in such a vector
    grammars: bool = True  # whether it can hold what it generates to a grammar
    draft: str = ""  # the file name of the draft model, or empty
    load_seconds: float = 0.0  # from the start of the child, or the first question to an upstream engine, to here


@dataclass(frozen=True)
class SequenceState:
    """The state of an active request. Counts are tokens."""

    request: int
    prompt_tokens: int
    prefilled_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class EngineStats:
    """Counters since the engine was made, across restarts, and its present state."""

    state: EngineState = "unloaded"
    running: tuple[SequenceState, ...] = ()
    queued: int = 0
    cache_cells: int = 0
    cache_used: int = 0
    cache_reusable: int = 0
    requests: int = 0
    failed: int = 0
    cancelled: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    preempted: int = 0
    steps: int = 0
    decode_seconds: float = 0.0
    step_seconds: float = 0.0
    restarts: int = 0
    rss_bytes: int = 0

    def plus(self, others: EngineStats, counters: Iterable[str]) -> EngineStats:
        """Return these with the given counters of both."""
        return replace(self, **{name: getattr(self, name) + getattr(others, name) for name in counters})


class Engine(Protocol):
    """Continues prompts, or makes embeddings, as its model is made for. Its methods belong to one event loop.

    Any number of generations and embeddings may run at once.
    """

    async def load(self) -> ModelInfo:
        """Load the model if it is not loaded; return the facts about it.

        Raise HermesError if it cannot be loaded.
        """

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Yield text as it comes, then `Done`. `aclose` of the iterator cancels the request within one step.

        Raises:
            UsageError: a value of the request makes no sense to this model.
            ContextFullError: the prompt alone fills the context length.
            QueueFullError: too many requests are waiting already.
            EngineDiedError: the child ended while it worked on this; the next request starts another one.
            EngineError: llama.cpp failed, or the grammar cannot be met.
        """

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Return the embeddings of texts. Cancelling it cancels the request.

        Raises:
            UsageError: the model makes no embeddings, or not in this length; or a number is not a token.
            ContextFullError: a text is longer than the context length, and is not to be cut.
            QueueFullError, EngineDiedError, EngineError: as `generate` does.
        """

    async def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Return the token ids of a text; `special` lets it spell control tokens. Nothing is added at either end."""

    async def detokenize(self, tokens: list[int]) -> bytes:
        """Return the bytes of tokens, control tokens included; raise UsageError if a number is not a token."""

    async def stats(self) -> EngineStats:
        """Return the counters and the present state; a model that is not loaded stays so."""

    async def unload(self) -> None:
        """End running requests with an error and free the memory; the next request loads again."""

    async def close(self) -> None:
        """Free everything, for good."""
