"""What one request cost, noted where it happens: the engine's part here, the rest by the journal."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hermes_cli.engine.protocol import Done
from hermes_cli.errors import NotReadyError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from hermes_cli.engine.protocol import Engine, EngineStats, Event, ModelInfo
    from hermes_cli.engine.request import GenerationRequest
    from hermes_cli.server.metrics import Metrics


@dataclass
class RequestStats:
    """One request. Counts are tokens, times seconds; `started` and `deadline` are on the monotonic clock."""

    deadline: float
    started: float = field(default_factory=time.monotonic)
    model: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    first_token: float | None = None


CURRENT: ContextVar[RequestStats | None] = ContextVar("tally", default=None)


class CountedEngine:
    """An engine whose work is counted for the request at hand, and which stops at its deadline."""

    def __init__(self, engine: Engine, model: str, metrics: Metrics) -> None:
        self._engine, self._model, self._metrics = engine, model, metrics

    async def load(self) -> ModelInfo:
        """As the engine does."""
        return await self._engine.load()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """As the engine does.

        Raises:
            NotReadyError: the request took longer than the server allows.
        """
        tally = CURRENT.get()
        if tally is None:
            tally = RequestStats(float("inf"))
        tally.model = self._model
        began = time.monotonic()
        first = True
        limit = _Limit(tally.deadline)
        try:
            async with aclosing(self._engine.generate(request)) as events:  # type: ignore[type-var]  # it can be closed
                while event := await limit.next(events):
                    if first:
                        first = False
                        self._note_first(tally, began)
                    if isinstance(event, Done):
                        self._note_end(tally, event)
                    yield event
        finally:
            limit.stop()

    async def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """As the engine does."""
        return await self._engine.tokenize(text, special=special)

    async def detokenize(self, tokens: list[int]) -> bytes:
        """As the engine does."""
        return await self._engine.detokenize(tokens)

    async def stats(self) -> EngineStats:
        """As the engine does."""
        return await self._engine.stats()

    async def unload(self) -> None:
        """As the engine does."""
        await self._engine.unload()

    async def close(self) -> None:
        """As the engine does."""
        await self._engine.close()

    def _note_first(self, tally: RequestStats, began: float) -> None:
        now = time.monotonic()
        tally.first_token = tally.first_token or now - tally.started
        self._metrics.first_token(self._model, now - began)

    def _note_end(self, tally: RequestStats, done: Done) -> None:
        tally.prompt_tokens += done.prompt_tokens
        tally.cached_tokens += done.cached_tokens
        tally.completion_tokens += done.completion_tokens
        self._metrics.generated(self._model, done)


class _Limit:
    """The time of one generation: one timer for all its tokens, of which there are hundreds in a second."""

    def __init__(self, deadline: float) -> None:
        self._waiting: asyncio.Task[object] | None = None
        self._over = False
        left = deadline - time.monotonic()
        self._timer = None if left == float("inf") else asyncio.get_running_loop().call_later(max(left, 0), self._end)

    async def next(self, events: AsyncIterator[Event]) -> Event | None:
        """The next event, None at the end.

        Raises:
            NotReadyError: the time is over.
        """
        self._check()
        self._waiting = task = asyncio.current_task()
        try:
            return await anext(events, None)
        except asyncio.CancelledError:
            if not (task and task.uncancel()):  # nobody else wants the task to end
                self._check()
            raise
        finally:
            self._waiting = None

    def stop(self) -> None:
        """It came to its end."""
        if self._timer:
            self._timer.cancel()

    def _end(self) -> None:
        self._over = True
        if self._waiting:
            self._waiting.cancel()

    def _check(self) -> None:
        if self._over:
            raise NotReadyError(
                "the request took longer than the server allows (--timeout).",
                hint="ask for less at once, or start the server with a longer --timeout.",
            ) from None
