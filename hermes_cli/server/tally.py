"""What one request cost, noted where it happens: the engine's part here, the rest by the journal."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hermes_cli.engine.protocol import Done
from hermes_cli.errors import NotReadyError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from hermes_cli.engine.protocol import Engine, Event, Loaded, Stats
    from hermes_cli.engine.request import Request
    from hermes_cli.server.metrics import Metrics


@dataclass
class Tally:
    """One request. Counts are tokens, times seconds; `started` and `deadline` are on the monotonic clock."""

    deadline: float
    started: float = field(default_factory=time.monotonic)
    model: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    first_token: float | None = None


CURRENT: ContextVar[Tally | None] = ContextVar("tally", default=None)


class CountedEngine:
    """An engine whose work is counted for the request at hand, and which stops at its deadline."""

    def __init__(self, engine: Engine, model: str, metrics: Metrics) -> None:
        self._engine, self._model, self._metrics = engine, model, metrics

    async def load(self) -> Loaded:
        """As the engine does."""
        return await self._engine.load()

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """As the engine does.

        Raises:
            NotReadyError: the request took longer than the server allows.
        """
        tally = CURRENT.get()
        if tally is None:
            tally = Tally(float("inf"))
        tally.model = self._model
        began = time.monotonic()
        first = True
        async with aclosing(self._engine.generate(request)) as events:  # type: ignore[type-var]  # it can be closed
            while True:
                with _until(tally.deadline):
                    event = await anext(events, None)
                if event is None:
                    return
                if first:
                    first = False
                    self._note_first(tally, began)
                if isinstance(event, Done):
                    self._note_end(tally, event)
                yield event

    async def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """As the engine does."""
        return await self._engine.tokenize(text, special=special)

    async def detokenize(self, tokens: list[int]) -> bytes:
        """As the engine does."""
        return await self._engine.detokenize(tokens)

    async def stats(self) -> Stats:
        """As the engine does."""
        return await self._engine.stats()

    async def unload(self) -> None:
        """As the engine does."""
        await self._engine.unload()

    async def close(self) -> None:
        """As the engine does."""
        await self._engine.close()

    def _note_first(self, tally: Tally, began: float) -> None:
        now = time.monotonic()
        tally.first_token = tally.first_token or now - tally.started
        self._metrics.first_token(self._model, now - began)

    def _note_end(self, tally: Tally, done: Done) -> None:
        tally.prompt_tokens += done.prompt_tokens
        tally.cached_tokens += done.cached_tokens
        tally.completion_tokens += done.completion_tokens
        self._metrics.generated(self._model, done)


@contextmanager
def _until(deadline: float) -> Iterator[None]:
    """Cancel what is awaited inside when the time is over.

    Raises:
        NotReadyError: it was.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    left, over = deadline - time.monotonic(), False
    if task is None or left == float("inf"):
        yield
        return

    def end() -> None:
        nonlocal over
        over = True
        task.cancel()

    timer = loop.call_later(max(left, 0), end)
    try:
        yield
    except asyncio.CancelledError:
        if over and not _cancelled_by_others(task):
            raise NotReadyError(
                "the request took longer than the server allows (--timeout).",
                hint="ask for less at once, or start the server with a longer --timeout.",
            ) from None
        raise
    finally:
        timer.cancel()


def _cancelled_by_others(task: asyncio.Task[object]) -> bool:
    """Whether somebody else wants the task to end, too; Python 3.10 cannot tell."""
    uncancel = getattr(task, "uncancel", None)
    return uncancel is not None and uncancel() > 0
