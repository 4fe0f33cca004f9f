"""An engine without a model: it says what a script says. It follows the protocol in hermes_cli/engine/protocol.py."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Literal

from hermes_cli.engine.output_text import ReasoningTracker, StopTexts
from hermes_cli.engine.protocol import Done, Embeddings, EngineStats, Event, ModelInfo, SequenceState, TextEvent
from hermes_cli.engine.request import EmbeddingRequest, GenerationRequest, ReasoningOptions
from hermes_cli.errors import ContextFullError, EngineError, HermesError, UsageError

CONTROL = ("<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<think>", "</think>")
LOADED = ModelInfo(
    context=4096,
    slots=4,
    trained_context=8192,
    parameters=1000,
    weight_bytes=2000,
    vocabulary=256 + len(CONTROL),
    control=CONTROL,
    eos="<|im_end|>",
    tags={text: 256 + at for at, text in enumerate(CONTROL[2:], 2)},
    others=(256,),
)

Step = str | TextEvent | asyncio.Event | HermesError | Done
"""Of a script: a piece of text (one token), something to wait for, what goes wrong, or an end other than the usual."""

Script = Sequence[Step] | Callable[[GenerationRequest], Iterable[Step]]


@dataclass
class _Running:
    """A request at work."""

    prompt_tokens: int
    completion_tokens: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    why: HermesError | None = None

    async def wait(self, event: asyncio.Event) -> None:
        """For the event, or for the end."""
        waits = [asyncio.ensure_future(one.wait()) for one in (event, self.over)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()


@dataclass
class FakeEngine:
    """Answers each request with the next of its scripts, and all further ones with the last.

    Its tokens are bytes, and one for each control text. `max_tokens`, `stops` and the context length are kept, and
    reasoning is counted, a piece as one token; all other options are only noted in `requests`.

    Attributes:
        scripts: what to answer.
        loaded: what it says about its model.
        refuses: why the model cannot be loaded.
        requests: as they came.
        cancelled: the numbers of those that were closed before their end, from 0.
        loads: how often the model was loaded.
        closed: for good.
    """

    scripts: Sequence[Script] = ()
    loaded: ModelInfo = LOADED
    refuses: HermesError | None = None
    requests: list[GenerationRequest] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    loads: int = 0
    closed: bool = False
    _in_memory: bool = False
    _running: dict[int, _Running] = field(default_factory=dict)
    _counted: EngineStats = field(default_factory=EngineStats)

    async def load(self) -> ModelInfo:
        if self.closed:
            raise EngineError("the engine is closed.", hint="make another one.")
        if self.refuses:
            raise self.refuses
        if not self._in_memory:
            self._in_memory, self.loads = True, self.loads + 1
        return self.loaded

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        number = len(self.requests)
        self.requests.append(request)
        await self.load()
        prompt = sum(1 if isinstance(piece, int) else len(self._tokens(piece)) for piece in request.prompt)
        if prompt >= self.loaded.context:
            raise ContextFullError(
                f"the prompt has {prompt:,} tokens, the context length is {self.loaded.context:,} tokens.",
                hint="shorten the prompt.",
                prompt_tokens=prompt,
                context_length=self.loaded.context,
            )
        running = self._running[number] = _Running(prompt)
        try:
            async with aclosing(self._follow(self._script(number, request), request, running)) as events:
                async for event in events:
                    yield event
        except (GeneratorExit, asyncio.CancelledError):
            self.cancelled.append(number)
            self._count(cancelled=1)
            raise
        except HermesError:
            self._count(failed=1)
            raise
        finally:
            del self._running[number]
            self._count(requests=1, prompt_tokens=prompt, completion_tokens=running.completion_tokens)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:  # noqa: ARG002 - as the protocol has it
        raise UsageError("this model writes text, and makes no embeddings.", hint="ask a model for embeddings.")

    async def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        return self._tokens(text, special=special)

    async def detokenize(self, tokens: list[int]) -> bytes:
        if wrong := [token for token in tokens if not 0 <= token < self.loaded.vocabulary]:
            raise UsageError(f"there is no token {wrong[0]}.", hint="tokenize with this model.")
        return b"".join(bytes([token]) if token < 256 else CONTROL[token - 256].encode() for token in tokens)

    async def stats(self) -> EngineStats:
        state: Literal["closed", "ready", "unloaded"] = (
            "closed" if self.closed else "ready" if self._in_memory else "unloaded"
        )
        slots = [
            SequenceState(number, one.prompt_tokens, one.prompt_tokens, one.completion_tokens)
            for number, one in self._running.items()
        ]
        return replace(self._counted, state=state, running=tuple(slots))

    async def unload(self) -> None:
        self._in_memory = False
        self._end_all(EngineError("the model was unloaded.", hint="ask again."))

    async def close(self) -> None:
        self.closed, self._in_memory = True, False
        self._end_all(EngineError("the engine was closed.", hint="make another one."))

    def _end_all(self, error: HermesError) -> None:
        for running in self._running.values():
            running.why = error
            running.over.set()

    def _script(self, number: int, request: GenerationRequest) -> Iterable[Step]:
        script = self.scripts[min(number, len(self.scripts) - 1)]
        return script(request) if callable(script) else script

    async def _follow(
        self, script: Iterable[Step], request: GenerationRequest, running: _Running
    ) -> AsyncGenerator[Event, None]:
        stops, room = StopTexts(request.stops), self.loaded.context - running.prompt_tokens
        limit = room if request.max_tokens is None else min(room, request.max_tokens)
        done: Done | None = None
        tracker = ReasoningTracker(request.reasoning or ReasoningOptions(), {})
        for step in script:
            if stops.matched is not None or done or running.completion_tokens >= limit:
                break
            if isinstance(step, asyncio.Event):
                await running.wait(step)
            elif isinstance(step, HermesError):
                raise step
            elif isinstance(step, Done):
                done = step
            else:
                piece = TextEvent(step) if isinstance(step, str) else step
                running.completion_tokens += piece.tokens
                tracker.read(piece.text)
                yield replace(piece, text=stops.feed(piece.text))
            await asyncio.sleep(0)  # others have their turn
            if running.why:
                raise running.why
        if rest := stops.finish():
            yield TextEvent(rest, 0)
        cut = stops.matched is None and running.completion_tokens >= limit
        ended = Done("length" if cut else "stop", running.prompt_tokens, 0, 0, 0.001, 0.002)
        yield done or replace(
            ended,
            completion_tokens=running.completion_tokens,
            reasoning_tokens=tracker.tokens if request.reasoning else 0,
            stop=stops.matched,
            context_full=cut and limit == room,
        )

    def _tokens(self, text: str, *, special: bool = True) -> list[int]:
        tokens: list[int] = []
        for part in re.split(f"({'|'.join(map(re.escape, CONTROL))})", text):
            tokens += [256 + CONTROL.index(part)] if special and part in CONTROL else part.encode()
        return tokens

    def _count(self, **more: int) -> None:
        self._counted = replace(self._counted, **{name: getattr(self._counted, name) + n for name, n in more.items()})
