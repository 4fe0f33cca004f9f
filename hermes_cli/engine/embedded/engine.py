"""The embedded engine: a child process owns the model, and a new one takes the place of one that died.

    unloaded ──request──► loading ──► ready ──keep-alive or unload──► unloaded
                             ▲          │
                             └─request──┴─ dead   its requests end with an error that gives the cause

Nothing here imports llama.cpp. All state belongs to one event loop and changes only between awaits.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hermes_cli.engine.embedded.child import Child
from hermes_cli.engine.embedded.crash_record import CrashRecord
from hermes_cli.engine.embedded.messages import EngineOptions, LoadRequest
from hermes_cli.engine.embedded.worker_session import WorkerSession
from hermes_cli.engine.protocol import Done, Embeddings, EngineState, EngineStats, Event, ModelInfo, TextEvent
from hermes_cli.engine.restart_backoff import RESTART_DELAYS, RestartBackoff
from hermes_cli.errors import HermesError, NotReadyError
from hermes_cli.planning.load_plan import LoadPlan

if TYPE_CHECKING:
    from hermes_cli.engine.request import EmbeddingRequest, GenerationRequest

STATS_SECONDS = 1.0  # seconds; during a long step the child cannot answer, and its last counters have to do

# Counted by each child; all others are counted here, because no child sees them all.
_COUNTED_BY_CHILD = (
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
    """Implements `protocol.Engine`; to be closed."""

    def __init__(
        self,
        path: Path,  # the model's file, or its first shard
        plan: LoadPlan,  # how to load it; fit_check.py finds one that there is memory for
        options: EngineOptions | None = None,  # how to work
        *,
        # is called with the part of the weights (0 to 1) that has been read
        progress: Callable[[float], None] | None = None,
        # seconds before a child is started again, by how many have died in a row
        restart_delays: Sequence[float] = RESTART_DELAYS,
        # a child that was started before the plan was known; it is the first one, and belongs to the engine
        child: Child | None = None,
    ) -> None:
        """Start nothing yet."""
        self._child = child
        self._options = options or EngineOptions()
        self._request, self._progress = LoadRequest(path, plan, self._options), progress
        self._session: WorkerSession | None = None
        self._closed = False
        self._users = 0  # who waits for something
        self._timer: asyncio.TimerHandle | None = None  # to the end of `keep_alive`
        self._crashes = CrashRecord()
        self._backoff = RestartBackoff(restart_delays)  # for deaths whose cause is unknown, or may come again
        self._dead = False  # none was started since the last death
        self._counts: Counter[str] = Counter()
        self._past = EngineStats()  # of children that are gone

    async def load(self) -> ModelInfo:
        """Load the model if it is not loaded; return the facts about it."""
        with self._use():
            _, loaded = await self._ready()
            return loaded

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Yield text as it comes, then `Done`. `aclose` cancels the request within one step."""
        with self._counted():
            async with self._crashes.running(hash((request.prompt, request.grammar))):
                with self._use(last=True):
                    session, _ = await self._ready()
                    number, events = session.send("generate", request)
                    try:
                        while isinstance(event := await events.next(), TextEvent):
                            yield event
                    finally:
                        session.cancel(number)
        yield cast("Done", event)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Return the embeddings of texts. Cancelling it cancels the request."""
        with self._counted():
            async with self._crashes.running(hash(request.inputs)):
                with self._use(last=True):
                    session, _ = await self._ready()
                    number, events = session.send("embed", request)
                    try:
                        result = await events.next()
                    finally:
                        session.cancel(number)
        return cast("Embeddings", result)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a request and its outcome."""
        self._counts["requests"] += 1
        outcome = "cancelled"
        try:
            yield
            outcome = "answered"
        except HermesError:
            outcome = "failed"
            raise
        finally:
            self._counts[outcome] += 1

    async def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Return the token ids of a text; `special` lets it spell control tokens. Nothing is added at either end."""
        async with self._crashes.running(hash(text)):
            with self._use():
                session, _ = await self._ready()
                return (await session.call("tokenize", (text, special))).read(list[int])

    async def detokenize(self, tokens: list[int]) -> bytes:
        """Return the bytes of tokens, control tokens included."""
        with self._use():
            session, _ = await self._ready()
            return (await session.call("detokenize", tokens)).read(bytes)

    async def stats(self) -> EngineStats:
        """Return the counters and the present state; a model that is not loaded stays so."""
        import psutil  # noqa: PLC0415 - only for who asks

        if (session := self._session) and session.ready:
            with suppress(TimeoutError, HermesError):
                session.stats = (await asyncio.wait_for(session.call("stats"), STATS_SECONDS)).read(EngineStats)
        rss = 0
        with suppress(psutil.Error, OSError):  # on Windows some calls for an ended process raise the bare OSError
            if self._session and self._session.child:
                rss = int(psutil.Process(self._session.child.pid).memory_info().rss)
        now = (self._session.stats if self._session else EngineStats()).plus(self._past, _COUNTED_BY_CHILD)
        return replace(
            now,
            state=self._state,
            requests=self._counts["requests"],
            failed=self._counts["failed"],
            cancelled=self._counts["cancelled"],
            restarts=self._counts["restarts"],
            rss_bytes=rss,
        )

    async def unload(self) -> None:
        """End running requests with an error and free the memory; the next request loads again."""
        await self._stop(_unloaded())

    async def close(self) -> None:
        """Free everything, for good."""
        self._closed = True
        self._stop_timer()
        await self._stop(_closed())

    async def _ready(self) -> tuple[WorkerSession, ModelInfo]:
        """Return a session that takes requests, and the facts about its model."""
        while not self._closed:
            session = self._session or self._start_session()
            if not session.stop_error:
                loaded = await asyncio.shield(session.loaded)
                if isinstance(loaded, HermesError):
                    raise copy(loaded)
                if session.ready:
                    return session, loaded
            await session.gone()
        raise _closed()

    def _start_session(self) -> WorkerSession:
        """Start a child, with a delay if others have died."""
        self._counts["restarts"] += self._dead
        self._dead = False
        self._session = WorkerSession(self._request, self._progress, self._backoff.delay(), self._on_end, self._child)
        self._child = None
        return self._session

    def _on_end(self, session: WorkerSession) -> None:
        """Record the end of a session."""
        self._session = None
        self._past = self._past.plus(session.stats, _COUNTED_BY_CHILD)
        if session.died:
            self._dead = True
            if not (session.crashed and self._crashes.crashed()):
                self._backoff.count_death(session.age if session.loaded.done() else 0)

    @property
    def _state(self) -> EngineState:
        if self._closed:
            return "closed"
        if not self._session or self._session.stop_error:
            return "dead" if self._dead else "unloaded"
        return "ready" if self._session.ready else "loading"

    @contextmanager
    def _use(self, *, last: bool = False) -> Iterator[None]:
        """Stop the keep-alive timer within the context; `last` if the model is probably not needed afterwards."""
        self._stop_timer()
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            seconds = self._options.keep_alive
            if not self._users and not self._closed and seconds is not None and (seconds > 0 or last):
                self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _expire(self) -> None:
        if self._session:
            self._session.stop(_unloaded())

    async def _stop(self, error: HermesError) -> None:
        if session := self._session:
            session.stop(error)
            await session.gone()


def _unloaded() -> NotReadyError:
    return NotReadyError("the model was unloaded meanwhile.", hint="ask again; that loads it again.")


def _closed() -> NotReadyError:
    return NotReadyError("the engine is closed.", hint="start hermes again.")
