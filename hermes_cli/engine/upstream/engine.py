"""An engine that somebody else runs, behind `protocol.Engine`: one model, whose memory is not ours to free.

The dialect (llama_server.py, vllm.py, sglang.py) knows its routes. What is the same for all is here: prompts to token
ids, the budget of reasoning, cancelling, counters.

The budget: where it is used up the completion is closed, the tag that ends the reasoning is appended to what was
written, and another completion goes on from there. The engine has the prompt in its cache by then.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hermes_cli.engine.output_text import ReasoningTracker
from hermes_cli.engine.protocol import (
    Done,
    Embeddings,
    EngineState,
    EngineStats,
    Event,
    ModelInfo,
    SequenceState,
    TextEvent,
)
from hermes_cli.engine.request import SHARE_OF_END, GenerationRequest, ReasoningOptions, check_tokens, encode
from hermes_cli.engine.upstream.detect import dialect_of
from hermes_cli.engine.upstream.dialect import ACTIVITY, Chunk, Dialect, Ending, TokenCompletion
from hermes_cli.engine.upstream.http import EngineAddress, UpstreamClient, UpstreamError, context_full
from hermes_cli.errors import EngineDiedError, EngineError, HermesError, NetworkError, NotReadyError, UsageError
from hermes_cli.interruption import Interruption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_cli.engine.request import EmbeddingRequest

HEARTBEAT = 30.0  # seconds without a request after which an engine on several nodes gets one
STALL_PAUSE, STALL_LOOKS = 12.0, 4  # seconds without an event between looks, and how many must be the same
COUNTS = ("requests", "failed", "cancelled", "prompt_tokens", "cached_tokens", "completion_tokens")  # of `EngineStats`
METRICS = 2.0  # seconds that an engine gets to tell its counters
PAUSE, LONGEST_PAUSE = 0.001, 0.064  # seconds between two reads of a stream: for each that runs, and at most
# Control tokens of the vocabularies that Hermes models have, beside those that their templates write.
SPECIAL_TEXTS = (
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>"),
    *("<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>", "<s>", "</s>", "<unk>", "<pad>"),
)


class _Sequence(Interruption):
    """A request at work, and what is known of it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.prompt_tokens = self.completion_tokens = 0

    @property
    def state(self) -> SequenceState:
        return SequenceState(self.number, self.prompt_tokens, self.prompt_tokens, self.completion_tokens)


@dataclass
class _Progress:
    """The text and tokens that one request has generated, over all its completions, and when."""

    sequence: _Sequence
    started: float
    first: float | None = None
    ids: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    count: int = 0
    whole: bool = True  # `ids` has all of them
    ending: Ending | None = None

    def add(self, chunk: Chunk) -> None:
        self.first = self.first or time.monotonic()
        self.text.append(chunk.text)
        self.ids += chunk.ids
        self.count += chunk.count
        self.whole = self.whole and len(self.ids) == self.count
        self.ending = chunk.ending
        self.sequence.completion_tokens = self.count


class UpstreamEngine:
    """Implements `protocol.Engine`; to be closed."""

    def __init__(
        self,
        address: EngineAddress,  # where the engine listens
        *,
        tags: Sequence[str] = (),  # texts whose tokens are wanted in `ModelInfo.tags`
        texts: Sequence[str] = (),  # others that are told in `control` or `added` if they are one token
        # files of its model's tokenizer (tokenizer_files.py), for engines that do not tell it
        tokenizer: Path | None = None,
        # ask for one token after each `HEARTBEAT` without a request: an engine on several nodes notices only at work
        # that one of them is gone
        heartbeat: bool = False,
        watched: bool = False,  # somebody else looks whether it hangs
    ) -> None:
        """Connect to nothing yet."""
        self.address, self._tags, self._texts = address, tuple(tags), (*texts, *SPECIAL_TEXTS)
        self._tokenizer, self._heartbeat, self._watched = tokenizer, heartbeat, watched
        self._client: UpstreamClient | None = None
        self._loading: asyncio.Task[tuple[Dialect, ModelInfo]] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._running: dict[int, _Sequence] = {}
        self._looking: asyncio.Task[None] | None = None  # while requests run
        self._numbers = itertools.count()
        self._counts: Counter[str] = Counter()
        self._closed = False

    async def load(self) -> ModelInfo:
        """Wait until the engine has loaded its model; return the facts about it."""
        return (await self._ready())[1]

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Yield text as it comes, then `Done`. `aclose` closes the connection, which cancels the request."""
        sequence = _Sequence(next(self._numbers))
        self._counts["requests"] += 1
        self._running[sequence.number] = sequence
        if self._looking is None and not self._watched:
            self._looking = asyncio.ensure_future(self._look())
        outcome = "cancelled"
        try:
            async with aclosing(self._events(request, sequence)) as events:
                while event := await sequence.next(events):
                    if isinstance(event, Done):
                        outcome = "answered"
                    yield event
        except NetworkError as error:
            outcome = "failed"
            self._loading = None  # another one may be there the next time, with another context
            raise EngineDiedError(error.message, hint=error.hint) from None
        except UpstreamError as error:
            outcome = "failed"
            raise error.as_hermes_error(self.address) from None
        except HermesError:
            outcome = "failed"
            raise
        except Exception as error:
            outcome = "failed"
            raise EngineError(f"{self.address}: {error!r}.", hint="this is a bug; report it.") from error
        finally:
            del self._running[sequence.number]
            self._counts[outcome] += 1
            self._counts["prompt_tokens"] += sequence.prompt_tokens
            self._counts["completion_tokens"] += sequence.completion_tokens
            if self._looking and not self._running:
                self._looking.cancel()
                self._looking = None

    @property
    def waiting(self) -> int:
        """Return how many requests wait for the engine; others wait for who reads their answers."""
        return sum(sequence.is_waiting for sequence in self._running.values())

    async def _look(self) -> None:
        """End all waiting requests once nothing comes of any and the engine tells that it does nothing any more."""
        seen, quiet = "", 0
        while True:
            before = self._counts.total(), sum(one.completion_tokens for one in self._running.values())
            await asyncio.sleep(STALL_PAUSE)
            loaded = self._loaded
            came = before != (self._counts.total(), sum(one.completion_tokens for one in self._running.values()))
            route = ACTIVITY.get(loaded[0].name) if loaded else None
            if came or not (route and self._client and self.waiting):
                quiet = 0
                continue
            activity = await self._client.activity(*route, METRICS)
            quiet = quiet + 1 if activity == seen else 1
            seen = activity
            if quiet >= STALL_LOOKS:
                seconds = STALL_PAUSE * STALL_LOOKS
                error = EngineDiedError(
                    f"the engine at {self.address} hangs: nothing came of any request for {seconds:.0f} seconds.",
                    hint="its log, or that of another node, may tell why; ask again once it is started anew.",
                )
                self._interrupt(error)
                quiet = 0

    def _interrupt(self, error: HermesError) -> None:
        for sequence in tuple(self._running.values()):
            sequence.interrupt(copy(error))

    @property
    def _loaded(self) -> tuple[Dialect, ModelInfo] | None:
        task = self._loading
        return task.result() if task and task.done() and not task.cancelled() and not task.exception() else None

    @property
    def _state(self) -> EngineState:
        if self._closed:
            return "closed"
        if self._loading is None:
            return "unloaded"
        if not self._loading.done():
            return "loading"
        return "ready" if self._loaded else "dead"

    async def embed(self, request: EmbeddingRequest) -> Embeddings:  # noqa: ARG002 - as the protocol has it
        """Raise UsageError: upstream engines write text here."""
        raise UsageError("this model writes text, and makes no embeddings.", hint="ask a model for embeddings.")

    async def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Return the token ids of a text; `special` lets it spell control tokens. Nothing is added at either end."""
        dialect, _ = await self._ready()
        with self._errors():
            return (await dialect.tokenize([text], special=special))[0]

    async def detokenize(self, tokens: list[int]) -> bytes:
        """Return the bytes of tokens, control tokens included."""
        dialect, info = await self._ready()
        check_tokens(tokens, info.vocabulary)
        with self._errors():
            return await dialect.detokenize(tokens)

    async def stats(self) -> EngineStats:
        """Return the counters of what went through here, and of the engine's own those of its queue and its cache."""
        state, loaded = self._state, self._loaded
        running = tuple(sequence.state for sequence in self._running.values())
        theirs = EngineStats()
        if state == "ready" and loaded:
            with suppress(TimeoutError):
                theirs = await asyncio.wait_for(loaded[0].stats(), METRICS)
        counts: dict[str, Any] = {name: self._counts[name] for name in COUNTS}
        return replace(theirs, state=state, running=running, **counts)

    async def unload(self) -> None:
        """End running requests with an error; the memory belongs to whoever runs the engine."""
        await self._stop(NotReadyError("the model was unloaded meanwhile.", hint="ask again."))

    async def close(self) -> None:
        """Close all connections, for good."""
        self._closed = True
        await self._stop(NotReadyError("the engine is closed.", hint="start hermes again."))

    async def _stop(self, error: HermesError) -> None:
        self._interrupt(error)
        tasks = [task for task in (self._loading, self._beating) if task]
        client, self._loading, self._beating, self._client = self._client, None, None, None
        for begun in tasks:
            begun.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if client:
            await client.close()

    async def _beat(self) -> None:
        """Ask for one token whenever the engine had nothing to do; what comes of it shows as with any request."""
        # What interrupts its request may come in place of the cancellation.
        while self._beating is asyncio.current_task():
            before = self._counts.total()
            await asyncio.sleep(HEARTBEAT)
            if not self._running and self._counts.total() == before:
                request = GenerationRequest((0,), max_tokens=1)
                with suppress(HermesError):
                    async with aclosing(self.generate(request)) as events:
                        async for _ in events:
                            pass

    async def _ready(self) -> tuple[Dialect, ModelInfo]:
        if self._closed:
            raise NotReadyError("the engine is closed.", hint="start hermes again.")
        if self._loading is None or (self._loading.done() and not self._loaded):
            self._loading = asyncio.ensure_future(self._open())
        return await asyncio.shield(self._loading)

    async def _open(self) -> tuple[Dialect, ModelInfo]:
        started = time.monotonic()
        self._client = self._client or UpstreamClient(self.address)
        self._client.pacer.pause = lambda: min(len(self._running) * PAUSE, LONGEST_PAUSE)
        with self._errors():
            dialect = await dialect_of(self._client, self._tokenizer)
            try:
                info = await dialect.model_info(self._tags, self._texts)
            except (AttributeError, KeyError, TypeError, ValueError) as error:  # JSON of another shape
                raise EngineError(
                    f"the engine at {self.address} does not describe its model as {dialect.name} does: {error!r}.",
                    hint="check what runs there, and its version.",
                ) from None
        if self._heartbeat and not self._beating:
            self._beating = asyncio.ensure_future(self._beat())
        return dialect, replace(info, load_seconds=time.monotonic() - started)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except UpstreamError as error:
            raise error.as_hermes_error(self.address) from None

    async def _events(self, request: GenerationRequest, sequence: _Sequence) -> AsyncGenerator[Event, None]:
        queued = time.monotonic()
        dialect, info = await self._ready()
        dialect.check(request)
        prompt = await _prompt_tokens(dialect, request.prompt, info)
        sequence.prompt_tokens = len(prompt)
        if len(prompt) >= info.context:
            raise context_full(len(prompt), info.context)
        closing = await _closing_tokens(dialect, request.reasoning)
        tracker = ReasoningTracker(request.reasoning or ReasoningOptions(), closing)
        progress = _Progress(sequence, time.monotonic())
        limit = info.context - len(prompt) if request.max_tokens is None else request.max_tokens
        forced = tracker.due()
        while True:
            if forced:
                yield await _forced(dialect, forced, tracker, progress)
                request = replace(request, grammar=request.reasoning.grammar if request.reasoning else None)
            if progress.count >= limit:
                break
            most = None if request.max_tokens is None else limit - progress.count
            completion = TokenCompletion(request, [*prompt, *progress.ids], most)
            async with aclosing(_completed(dialect, completion, tracker, progress)) as events:
                async for event in events:
                    yield event
            forced = () if progress.ending else tracker.due()
            if not forced:
                break
        ending, now = progress.ending or Ending(is_cut=True), time.monotonic()
        cached = min(ending.cached_tokens, len(prompt))  # a later completion has its own text in the cache
        self._counts["cached_tokens"] += cached
        first = progress.first or now
        yield Done(
            "length" if ending.is_cut else "stop",
            len(prompt),
            cached,
            progress.count,
            first - progress.started,
            now - first,
            progress.started - queued,
            tracker.tokens if request.reasoning else 0,
            stop=ending.stop,
            context_full=ending.is_cut and (request.max_tokens is None or progress.count < request.max_tokens),
        )


async def _completed(
    dialect: Dialect, completion: TokenCompletion, tracker: ReasoningTracker, progress: _Progress
) -> AsyncGenerator[TextEvent, None]:
    """Yield the text of one completion, up to its end or the budget of reasoning."""
    async with aclosing(dialect.complete(completion)) as chunks:
        async for whole in chunks:
            chunk = _within_budget(whole, tracker)
            progress.add(chunk)
            if chunk.text or chunk.count:
                yield TextEvent(chunk.text, chunk.count, chunk.logprobs, reasoning_cut=tracker.cut)
            if chunk.ending or tracker.due():
                return


def _within_budget(chunk: Chunk, tracker: ReasoningTracker) -> Chunk:
    """Have the tracker read each token of a chunk; return those up to the end of the budget."""
    texts = chunk.texts or (*("" for _ in range(chunk.count - 1)), chunk.text)
    for number, text in enumerate(texts, 1):
        tracker.read(text)
        if number < len(chunk.texts) and tracker.due():
            return chunk.first(number)
    return chunk


async def _prompt_tokens(dialect: Dialect, prompt: Sequence[str | int], info: ModelInfo) -> list[int]:
    """Return the tokens of a prompt, which begin with BOS if the model wants that."""
    if prompt and isinstance(prompt[0], int):
        tokens = list(cast("Sequence[int]", prompt))
        check_tokens(tokens, info.vocabulary)
    else:
        pieces = cast("Sequence[str]", prompt)
        behind = pieces[1:] if dialect.adds_space else ()
        texts = list(dict.fromkeys((*pieces, *("\n" + piece for piece in behind), *("\n" for _ in behind))))
        known = dict(zip(texts, await dialect.tokenize(texts, special=True), strict=True))
        if dialect.adds_space:
            tokens = encode(pieces, known.__getitem__)  # asks for these texts only
        else:
            tokens = [token for piece in pieces for token in known[piece]]
    if info.adds_bos and info.bos:
        [bos] = await dialect.tokenize([info.bos], special=True)
        tokens = tokens if tokens[: len(bos)] == bos else [*bos, *tokens]
    if not tokens:
        raise UsageError("the prompt is empty.", hint="type a prompt after the model's name, or pipe one in.")
    return tokens


async def _closing_tokens(dialect: Dialect, reasoning: ReasoningOptions | None) -> dict[str, list[int]]:
    """Return, by closing tag, the tokens that end reasoning at its budget; under "" those of the sentence before."""
    if reasoning is None or reasoning.budget is None:
        return {}
    tags = [tag for _, tag in reasoning.tags]
    texts = [f"\n{tag}\n" for tag in tags]
    closing = dict(zip(tags, await dialect.tokenize(texts, special=True), strict=True))
    if reasoning.end:
        [end] = await dialect.tokenize([f"\n{reasoning.end}"], special=False)
        if len(end) * SHARE_OF_END <= reasoning.budget:
            closing[""] = end
    return closing


async def _forced(dialect: Dialect, tokens: Sequence[int], tracker: ReasoningTracker, progress: _Progress) -> TextEvent:
    """Take tokens for generated; return the event of their text."""
    if not progress.whole:
        progress.ids, progress.whole = await _written(dialect, progress), True
        progress.count = len(progress.ids)
    for token in tokens:
        text = (await dialect.detokenize([token])).decode("utf-8", "replace")
        tracker.read(text)
        progress.add(Chunk(text, 1, (token,)))
    return TextEvent("".join(progress.text[len(progress.text) - len(tokens) :]), len(tokens), reasoning_cut=True)


async def _written(dialect: Dialect, progress: _Progress) -> list[int]:
    """Return the tokens of all that was generated, where the engine did not tell each."""
    [tokens] = await dialect.tokenize(["".join(progress.text)], special=True)
    return tokens
