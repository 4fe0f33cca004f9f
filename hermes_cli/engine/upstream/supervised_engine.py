"""An engine that hermes starts itself, behind `protocol.Engine`: started when it is needed, watched, started again.

unloaded ──load──► starting ──► ready ──unload──► unloaded
                      ▲           │ it ended, says that it is dead, or hangs
                      └──back-off─┘ its requests end with an error that gives the cause

All state belongs to one event loop. Where that stands still between requests, as in a chat, the end of an engine is
noticed by the next request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hermes_cli.engine.protocol import Embeddings, EngineState, EngineStats, Event, ModelInfo
from hermes_cli.engine.restart_backoff import RESTART_DELAYS, RestartBackoff
from hermes_cli.engine.upstream.engine import COUNTS, UpstreamEngine
from hermes_cli.engine.upstream.engine_process import EngineCommand, EngineProcess, Limits
from hermes_cli.engine.upstream.run_folder import RunFolder
from hermes_cli.errors import EngineDiedError, EngineError, HermesError, NotReadyError
from hermes_cli.process_guard import ProcessGuard

if TYPE_CHECKING:
    from hermes_cli.engine.request import EmbeddingRequest, GenerationRequest

LAST_WORDS = 3.0  # seconds that an engine whose connection broke gets to show that it has ended


@dataclass
class _Session:
    """An engine that is ready, what talks with it, and what watches it."""

    process: EngineProcess
    upstream: UpstreamEngine
    info: ModelInfo
    since: float
    watching: asyncio.Task[None] | None = None
    unloaded: bool = False  # its end was wanted

    @property
    def works(self) -> bool:
        return not self.process.has_ended() and not self.process.fault


class SupervisedEngine:
    """Implements `protocol.Engine`; to be closed."""

    def __init__(
        self,
        command: EngineCommand,  # the program to start
        *,
        tags: Sequence[str] = (),  # as `UpstreamEngine` takes them
        texts: Sequence[str] = (),  # likewise
        report: Callable[[str], None] = lambda _: None,  # is called with lines of the engine's log while it starts
        # is told what a start waits for that only a person can bring about
        note: Callable[[str], None] = lambda _: None,
        # seconds before it is started again, by how many starts or engines have failed in a row
        delays: Sequence[float] = RESTART_DELAYS,
        limits: Limits | None = None,  # when it counts as hung
    ) -> None:
        """Start nothing yet."""
        self.command, self._tags, self._texts = command, tuple(tags), tuple(texts)
        self._report, self._note = report, note
        self._backoff, self.limits = RestartBackoff(delays), limits or Limits()
        self._guard: ProcessGuard | None = None
        self._folder: RunFolder | None = None
        self._starting: asyncio.Task[_Session] | None = None
        self._ending: asyncio.Future[None] | None = None  # of the last engine; the next one needs its memory and socket
        self._past = EngineStats()  # of engines that have ended
        self._restarts = 0
        self._closed = False

    async def load(self) -> ModelInfo:
        """Start the engine if it does not run, and wait until it has loaded its model; return the facts about it."""
        return (await self._ready()).info

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Yield text as it comes, then `Done`. `aclose` closes the connection, which cancels the request."""
        session = await self._ready()
        try:
            async with aclosing(session.upstream.generate(request)) as events:
                async for event in events:
                    yield event
        except (EngineError, NotReadyError) as error:
            raise await _reason(session, error) from None

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Raise UsageError: upstream engines write text here."""
        return await (await self._ready()).upstream.embed(request)

    async def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Return the token ids of a text; `special` lets it spell control tokens. Nothing is added at either end."""
        return await (await self._ready()).upstream.tokenize(text, special=special)

    async def detokenize(self, tokens: list[int]) -> bytes:
        """Return the bytes of tokens, control tokens included."""
        return await (await self._ready()).upstream.detokenize(tokens)

    async def stats(self) -> EngineStats:
        """Return the counters of what went through here, the state, and the memory of all its processes."""
        session = self._session
        stats = await session.upstream.stats() if session else EngineStats()
        rss = (await asyncio.to_thread(session.process.usage))[1] if session else 0
        return replace(stats.plus(self._past, COUNTS), state=self._state, restarts=self._restarts, rss_bytes=rss)

    async def unload(self) -> None:
        """End running requests with an error, and the engine with them; the next request starts it again."""
        await self._stop()

    async def close(self) -> None:
        """End everything, for good."""
        self._closed = True
        await self._stop()
        folder, guard, self._folder, self._guard = self._folder, self._guard, None, None
        if folder:
            folder.close()
        if guard:
            await asyncio.to_thread(guard.close)

    @property
    def _session(self) -> _Session | None:
        task = self._starting
        return task.result() if task and task.done() and not task.cancelled() and not task.exception() else None

    @property
    def _state(self) -> EngineState:
        if self._closed:
            return "closed"
        if self._starting is None:
            return "dead" if self._backoff.deaths else "unloaded"
        if not self._starting.done():
            return "loading"
        return "ready" if (session := self._session) and session.works else "dead"

    async def _ready(self) -> _Session:
        """Return an engine that takes requests; start one if there is none."""
        while not self._closed:
            if self._starting is None:
                self._starting = self._start()
            task = self._starting
            try:
                session = await asyncio.shield(task)
            except asyncio.CancelledError:
                if not task.cancelled():
                    raise  # who waits was cancelled, not the start
                continue
            except HermesError as error:
                if self._starting is task:
                    self._starting = None  # the next request tries again
                raise copy(error) from None
            if session.works:
                return session
            await self._finish(task, session)
        raise NotReadyError("the engine is closed.", hint="start hermes again.")

    def _start(self) -> asyncio.Task[_Session]:
        self._restarts += bool(self._backoff.deaths)
        task = asyncio.ensure_future(self._open(self._backoff.delay()))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody need wait for it
        return task

    async def _open(self, delay: float) -> _Session:
        if self._ending:
            await asyncio.wait({self._ending})
        await asyncio.sleep(delay)
        if self._folder is None:
            self._folder = await asyncio.to_thread(RunFolder, self.command.engine)
        self._guard = self._guard or ProcessGuard()
        process = EngineProcess(self.command, self._folder, self._guard)
        heartbeat = self.command.heartbeat
        # EngineProcess.watch is what notices a hang: it sees the processes, too.
        upstream = UpstreamEngine(
            process.address, tags=self._tags, texts=self._texts, heartbeat=heartbeat, watched=True
        )
        try:
            await process.wait_until_ready(self._report, self.limits, self._note)
            info = await upstream.load()
        except BaseException as error:
            await asyncio.shield(_end(process, upstream, 0))
            if isinstance(error, HermesError):
                self._backoff.count_death(0)
                if isinstance(error, EngineDiedError) or process.fault:
                    raise process.start_error() from None
            raise
        session = _Session(process, upstream, info, time.monotonic())
        session.watching = asyncio.ensure_future(self._watch(session))
        return session

    async def _watch(self, session: _Session) -> None:
        """Wait for the end of the engine, tell its requests, and start it again."""
        await session.process.watch(lambda: _work(session.upstream), self.limits)
        task = self._starting
        if task and self._session is session:
            await self._finish(task, session)
            if not self._closed and self._starting is None:
                self._starting = self._start()

    async def _finish(self, task: asyncio.Task[_Session], session: _Session) -> None:
        """Clean up after an engine that does not work any more, once."""
        if self._starting is not task:
            return
        self._starting = None
        self._backoff.count_death(time.monotonic() - session.since)
        if session.watching and session.watching is not asyncio.current_task():
            session.watching.cancel()
        session.process.keep_log()
        self._ending = asyncio.ensure_future(self._end(session, 0))  # nothing is to be expected of what hangs
        await asyncio.shield(self._ending)

    async def _stop(self) -> None:
        task, self._starting = self._starting, None
        if task:
            self._ending = asyncio.ensure_future(self._end_started(task))
            await asyncio.shield(self._ending)

    async def _end_started(self, task: asyncio.Task[_Session]) -> None:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if task.cancelled() or task.exception():
            return
        session = task.result()
        if session.watching:
            session.watching.cancel()
        self._backoff.deaths, session.unloaded = 0, True
        await session.upstream.unload()
        await self._end(session)

    async def _end(self, session: _Session, grace: float | None = None) -> None:
        """Add up what the engine did, and end it."""
        self._past = (await session.upstream.stats()).plus(self._past, COUNTS)
        await _end(session.process, session.upstream, grace)


async def _end(process: EngineProcess, upstream: UpstreamEngine, grace: float | None = None) -> None:
    """End the processes first: then no request waits for a connection that hangs."""
    await process.end(grace)
    await upstream.close()


async def _reason(session: _Session, error: HermesError) -> HermesError:
    """Return the error for a request that failed in the engine: what became of the engine, if it is that."""
    end = time.monotonic() + (LAST_WORDS if isinstance(error, EngineDiedError) else LAST_WORDS / 10)
    while session.works and not session.unloaded and time.monotonic() < end:
        await session.process.ask_health()
        await asyncio.sleep(0.05)
    return error if session.works or session.unloaded else _died(session)


def _died(session: _Session) -> EngineDiedError:
    process = session.process
    return EngineDiedError(
        f"{process.command.engine} {process.fault or 'was ended'} while it worked on this.",
        hint=f"ask again: it is started anew; its log is {process.keep_log()}",
    )


async def _work(upstream: UpstreamEngine) -> tuple[int, int]:
    """Return how many requests wait for the engine, and how many tokens came of all that there were."""
    stats = await upstream.stats()
    return upstream.waiting, stats.completion_tokens + sum(state.completion_tokens for state in stats.running)
