"""The engine that chat and server use: a child process owns the model, and a new one takes the place of one that died.

    unloaded ──request──► loading ──► ready ──keep-alive or unload──► unloaded
                             ▲          │
                             └─request──┴─ dead   whatever it worked on ends with an error that says why

Nothing here imports llama.cpp. All state belongs to one event loop and changes only between awaits.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from hermes_cli.engine.embedded.options import EngineOptions
from hermes_cli.engine.embedded.worker_session import LoadTask, WorkerSession, again
from hermes_cli.engine.protocol import Done, EngineStats, ModelInfo
from hermes_cli.errors import EngineError, HermesError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
    from pathlib import Path

    from hermes_cli.engine.embedded.child import Child
    from hermes_cli.engine.protocol import Event
    from hermes_cli.engine.request import GenerationRequest
    from hermes_cli.planning.load_plan import LoadPlan

# Seconds from a child's death to the start of the next one, by how many have died in a row.
RESTART_DELAYS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
GOOD_WORK = 60.0  # seconds of a loaded child that make up for earlier deaths
STATS_PATIENCE = 1.0  # seconds; during a long step the child cannot answer, and what it said last has to do

EngineState = Literal["unloaded", "loading", "ready", "dead", "closed"]

# Counted by each child; all others are counted here, because no child sees them all.
_COUNTED_THERE = (
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "drafted_tokens",
    "accepted_tokens",
    "preempted",
    "steps",
    "decode_seconds",
    "step_seconds",
)


class EmbeddedEngine:
    """Implements `protocol.Engine`; close it."""

    def __init__(
        self,
        path: Path,
        plan: LoadPlan,
        options: EngineOptions | None = None,
        *,
        progress: Callable[[float], None] | None = None,
        restart_delays: Sequence[float] = RESTART_DELAYS,
        spare: Child | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            path: the model's file, or its first shard.
            plan: how to load it; engine/fit_check.py finds one that there is memory for.
            options: how to work.
            progress: is told which part of the weights (0 to 1) has been read.
            restart_delays: seconds before a child is started again, by how many have died in a row.
            spare: a child that was started before the plan was known; it is the first one, and belongs to the engine.
        """
        self._spare = spare
        self._options = options or EngineOptions()
        self._task = LoadTask(path, plan, self._options, progress)
        self._delays = restart_delays
        self._life: WorkerSession | None = None
        self._closed = False
        self._users = 0  # who waits for something
        self._timer: asyncio.TimerHandle | None = None  # to the end of `keep_alive`
        self._deaths = 0  # in a row
        self._died = 0.0  # when the last one did, on the monotonic clock
        self._dead = False  # since then none was started
        self._counts: Counter[str] = Counter()
        self._past = EngineStats()  # of children that are gone

    async def load(self) -> ModelInfo:
        """Have the model in memory; what it says about itself. Returns at once if it is there already.

        Raises:
            HermesError: it cannot be loaded.
        """
        with self._use():
            _, loaded = await self._ready()
            return loaded

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Text as it comes, then `Done`. Closing the iterator (`aclose`) cancels the request within one step.

        Raises:
            HermesError: as `protocol.Engine.generate` says.
        """
        self._counts["requests"] += 1
        outcome = "cancelled"
        try:
            with self._use(last=True):
                life, _ = await self._ready()
                number, answer = life.begin(request)
                try:
                    while not isinstance(event := await answer.next(), Done):
                        yield event
                finally:
                    life.cancel(number)
            outcome = "answered"
            yield event
        except HermesError:
            outcome = "failed"
            raise
        finally:
            self._counts[outcome] += 1

    async def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text; `special` lets it spell control tokens. Nothing is added at either end.

        Raises:
            HermesError: the model cannot be loaded, or its process ended.
        """
        with self._use():
            life, _ = await self._ready()
            return (await life.ask("tokenize", (text, special))).read(list[int])

    async def detokenize(self, tokens: list[int]) -> bytes:
        """The bytes that tokens stand for, control tokens included.

        Raises:
            UsageError: a number is no token.
            HermesError: the model cannot be loaded, or its process ended.
        """
        with self._use():
            life, _ = await self._ready()
            return (await life.ask("detokenize", tokens)).read(bytes)

    async def stats(self) -> EngineStats:
        """Counters, and what there is now; a model that is not loaded stays so."""
        if (life := self._life) and life.ready:
            with suppress(TimeoutError, HermesError):
                life.stats = (await asyncio.wait_for(life.ask("stats"), STATS_PATIENCE)).read(EngineStats)
        now = _sum(self._life.stats if self._life else EngineStats(), self._past)
        return replace(
            now,
            state=self._state,
            requests=self._counts["requests"],
            failed=self._counts["failed"],
            cancelled=self._counts["cancelled"],
            restarts=self._counts["restarts"],
            rss_bytes=_rss(self._life),
        )

    async def unload(self) -> None:
        """End running requests with an error and give the memory back; the next request loads again."""
        await self._leave(_unloaded())

    async def close(self) -> None:
        """Give everything back, for good."""
        self._closed = True
        self._stop_timer()
        await self._leave(_closed())

    async def _ready(self) -> tuple[WorkerSession, ModelInfo]:
        """A child that takes requests, and what its model said of itself."""
        while not self._closed:
            life = self._life or self._begin()
            if not life.leaving:
                loaded = await asyncio.shield(life.loaded)
                if isinstance(loaded, HermesError):
                    raise again(loaded)
                if life.ready:
                    return life, loaded
            await life.gone()
        raise _closed()

    def _begin(self) -> WorkerSession:
        """Start a child, later if others have died."""
        delay = 0.0
        if self._deaths:
            usual = self._delays[min(self._deaths, len(self._delays)) - 1]
            delay = max(self._died + usual - time.monotonic(), 0)
        self._counts["restarts"] += self._dead
        self._dead = False
        self._life = WorkerSession(self._task, delay, self._ended, self._spare)
        self._spare = None
        return self._life

    def _ended(self, life: WorkerSession) -> None:
        """A child is gone."""
        self._life = None
        self._past = _sum(self._past, life.stats)
        if life.died:
            made_up = life.loaded.done() and life.age >= GOOD_WORK
            self._deaths = 1 if made_up else self._deaths + 1
            self._died, self._dead = time.monotonic(), True

    async def _leave(self, error: HermesError) -> None:
        if life := self._life:
            life.leave(error)
            await life.gone()

    @property
    def _state(self) -> EngineState:
        if self._closed:
            return "closed"
        if not self._life or self._life.leaving:
            return "dead" if self._dead else "unloaded"
        return "ready" if self._life.ready else "loading"

    @contextmanager
    def _use(self, *, last: bool = False) -> Iterator[None]:
        """Somebody needs the model; `last` if probably nobody does when that is over."""
        self._stop_timer()
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users and not self._closed:
                self._start_timer(last=last)

    def _start_timer(self, *, last: bool) -> None:
        seconds = self._options.keep_alive
        if seconds is not None and (seconds > 0 or last):
            self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _expire(self) -> None:
        if self._life:
            self._life.leave(_unloaded())


def _sum(stats: EngineStats, others: EngineStats) -> EngineStats:
    """The first, with the counts of both."""
    return replace(stats, **{name: getattr(stats, name) + getattr(others, name) for name in _COUNTED_THERE})


def _rss(life: WorkerSession | None) -> int:
    """Bytes of RAM that a child holds."""
    import psutil  # noqa: PLC0415 - only for who asks

    with suppress(psutil.Error, OSError):  # on Windows some calls for an ended process raise the bare OSError
        return int(psutil.Process(life.pid).memory_info().rss) if life and life.pid else 0
    return 0


def _unloaded() -> EngineError:
    return EngineError("the model was unloaded meanwhile.", hint="ask again; that loads it again.")


def _closed() -> EngineError:
    return EngineError("the engine is closed.", hint="start hermes again.")
