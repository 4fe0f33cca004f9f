"""Counters of one request: the engine's part is counted here, the rest by the access log."""

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


CURRENT: ContextVar[RequestStats | None] = ContextVar("request_stats", default=None)


class CountedEngine:
    """An engine that counts its work for the request at hand, and stops at its deadline."""

    def __init__(self, engine: Engine, model: str, metrics: Metrics) -> None:
        self._engine, self._model, self._metrics = engine, model, metrics

    async def load(self) -> ModelInfo:
        """Load the model."""
        return await self._engine.load()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Generate, and count.

        Raises:
            NotReadyError: the request took longer than the server allows.
        """
        stats = CURRENT.get()
        if stats is None:
            stats = RequestStats(float("inf"))
        stats.model = self._model
        began = time.monotonic()
        first = True
        deadline = _Deadline(stats.deadline)
        try:
            async with aclosing(self._engine.generate(request)) as events:  # type: ignore[type-var]  # it can be closed
                while event := await deadline.next(events):
                    if first:
                        first = False
                        self._count_first(stats, began)
                    if isinstance(event, Done):
                        self._count_end(stats, event)
                    yield event
        finally:
            deadline.stop()

    async def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Tokenize."""
        return await self._engine.tokenize(text, special=special)

    async def detokenize(self, tokens: list[int]) -> bytes:
        """Detokenize."""
        return await self._engine.detokenize(tokens)

    async def stats(self) -> EngineStats:
        """Return the engine's counters."""
        return await self._engine.stats()

    async def unload(self) -> None:
        """Unload the model."""
        await self._engine.unload()

    async def close(self) -> None:
        """Close the engine."""
        await self._engine.close()

    def _count_first(self, stats: RequestStats, began: float) -> None:
        now = time.monotonic()
        stats.first_token = stats.first_token or now - stats.started
        self._metrics.first_token(self._model, now - began)

    def _count_end(self, stats: RequestStats, done: Done) -> None:
        stats.prompt_tokens += done.prompt_tokens
        stats.cached_tokens += done.cached_tokens
        stats.completion_tokens += done.completion_tokens
        self._metrics.generated(self._model, done)


class _Deadline:
    """The deadline of one generation: one timer for all its tokens, of which there are hundreds in a second."""

    def __init__(self, deadline: float) -> None:
        self._waiting: asyncio.Task[object] | None = None
        self._over = False
        left = deadline - time.monotonic()
        self._timer = None if left == float("inf") else asyncio.get_running_loop().call_later(max(left, 0), self._end)

    async def next(self, events: AsyncIterator[Event]) -> Event | None:
        """Return the next event, None at the end.

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
        """Stop the timer."""
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
