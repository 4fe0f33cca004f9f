"""One life of the engine's process, from its start to its end, and what it was asked to do meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hermes_cli.child_process import Frame, pack, protocol_error
from hermes_cli.engine.embedded.child import Child
from hermes_cli.engine.embedded.messages import LoadRequest, read_events
from hermes_cli.engine.protocol import EngineStats, ModelInfo, TextEvent
from hermes_cli.errors import EngineDiedError, EngineError, HermesError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hermes_cli.engine.embedded.options import EngineOptions
    from hermes_cli.engine.request import GenerationRequest
    from hermes_cli.planning.load_plan import LoadPlan

    Identity = tuple[int, int, int] | None
    from hermes_cli.engine.protocol import Done, Event, TokenLogprobs

SAVING_SECONDS = 20.0  # seconds in which a child may write caches of prompts before it ends


@dataclass(frozen=True)
class LoadTask:
    """What every child of an engine is told to load."""

    path: Path
    plan: LoadPlan
    options: EngineOptions
    progress: Callable[[float], None] | None


class WorkerSession:
    """Begins at once; all methods belong to one event loop.

    Attributes:
        loaded: what the model says of itself, or why it could not be loaded.
        stats: what the child said last.
        died: it ended without being asked to.
    """

    def __init__(
        self,
        task: LoadTask,
        delay: float,
        ended: Callable[[WorkerSession], None],
        spare: Child | None = None,
    ) -> None:
        """Start a child.

        Args:
            task: what it is told.
            delay: seconds to wait before.
            ended: is told of the end, before anybody else is.
            spare: one that was started before there was anything to tell it.
        """
        self._task, self._delay, self._ended, self._spare = task, delay, ended, spare
        self.loaded: asyncio.Future[ModelInfo | HermesError] = asyncio.get_running_loop().create_future()
        self.stats = EngineStats()
        self.died = False
        self._child: Child | None = None
        self._leaving: HermesError | None = None  # what those get that it still works for when it ends
        self._answers: dict[int, EventQueue] = {}
        self._calls: dict[int, asyncio.Future[Frame | HermesError]] = {}
        self._numbers = itertools.count(1)
        self._since = time.monotonic()
        self._running = asyncio.ensure_future(self._run())
        self._running.add_done_callback(self._end)

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return self.loaded.done() and not self._leaving and not self._running.done()

    @property
    def leaving(self) -> bool:
        """Whether it is to end."""
        return self._leaving is not None

    @property
    def pid(self) -> int | None:
        """Its process id; None while it has none."""
        return self._child.pid if self._child else None

    @property
    def age(self) -> float:
        """Seconds since it was started or, if it is loaded, since then."""
        return time.monotonic() - self._since

    def leave(self, error: HermesError) -> None:
        """Have it end soon; whoever waits for it gets this error."""
        if self._leaving:
            return
        self._leaving = error
        if self._child:
            self._child.end()
        else:
            self._running.cancel()

    async def gone(self) -> None:
        """Wait for its end."""
        await asyncio.wait({self._running})

    def begin(self, request: GenerationRequest) -> tuple[int, EventQueue]:
        """Have a request answered; its number, for `cancel`.

        Raises:
            UsageError: it cannot be sent.
        """
        number = next(self._numbers)
        self._send("generate", number, request)
        answer = self._answers[number] = EventQueue()
        return number, answer

    def cancel(self, number: int) -> None:
        """Nobody waits for an answer any more."""
        answer = self._answers.pop(number, None)
        if answer and not answer.whole:
            self._send("cancel", number)

    async def ask(self, kind: str, payload: object = None) -> Frame:
        """Ask for something that is answered by one frame.

        Raises:
            HermesError: what went wrong.
        """
        number = next(self._numbers)
        future: asyncio.Future[Frame | HermesError] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        try:
            self._send(kind, number, payload)
            said = await future
        finally:
            del self._calls[number]
        if isinstance(said, HermesError):
            raise said
        return said

    def _send(self, kind: str, number: int, payload: object = None) -> None:
        frame = pack(kind, number, payload)
        if self._child:
            self._child.send(frame)

    async def _run(self) -> HermesError:
        await asyncio.sleep(self._delay)
        try:
            return await self._with_child()
        except HermesError as error:
            return error

    async def _with_child(self) -> HermesError:
        """From start to end of the process; why it ended."""
        self._since = time.monotonic()
        task, identity = self._task, _identity(self._task.path)
        child = self._child = self._spare or await Child.start(verbose=task.options.verbose)
        child.receive = self._receive
        try:
            child.send(pack("load", 0, LoadRequest(task.path, task.plan, task.options)))
            death = await child.gone()
        finally:
            child.kill()
            await child.gone()
        if self._leaving:
            return self._leaving
        self.died = True
        if child.protocol_error:
            return EngineDiedError(child.protocol_error.message, hint=child.protocol_error.hint)
        refused = None if self.loaded.done() else death.while_reading(task.path)
        return refused or death.while_running(task.path, changed=identity != _identity(task.path))

    def _end(self, running: asyncio.Task[HermesError]) -> None:
        """Let everybody know why it ended."""
        self._child = None
        error = self._leaving or _outcome(running)
        self._ended(self)
        if not self.loaded.done():
            self.loaded.set_result(error)
        for answer in self._answers.values():
            answer.put(again(error))
        for future in self._calls.values():
            if not future.done():
                future.set_result(again(error))

    def _receive(self, frame: Frame) -> None:
        """What the child said.

        Raises:
            EngineError: it makes no sense.
        """
        if frame.kind == "events":
            for number, event in read_events(frame):
                if answer := self._answers.get(number):
                    answer.put(event)
        elif frame.number:
            future = self._calls.get(frame.number)
            if future and not future.done():
                future.set_result(frame.error() if frame.kind == "failed" else frame)
        else:
            self._receive_own(frame)

    def _receive_own(self, frame: Frame) -> None:
        """What it said about itself."""
        if frame.kind == "progress":
            if self._task.progress:
                self._task.progress(frame.read(float))
        elif frame.kind == "loaded" and not self.loaded.done():
            self.loaded.set_result(replace(frame.read(ModelInfo), load_seconds=self.age))
            self._since = time.monotonic()
        elif frame.kind == "failed":
            self.leave(frame.error())
        elif frame.kind == "saving" and self._child:
            self._child.kill_after(SAVING_SECONDS)
        elif frame.kind == "stats":
            self.stats = frame.read(EngineStats)
        else:
            raise protocol_error(f"a frame of kind {frame.kind!r}")


def again(error: HermesError) -> HermesError:
    """Return a copy of an error: raising one in several tasks would mix their tracebacks."""
    return copy(error)


def _outcome(running: asyncio.Task[HermesError]) -> HermesError:
    if running.cancelled():
        return EngineError("the engine was interrupted.", hint="ask again.")
    if problem := running.exception():
        return EngineError(f"the engine failed: {problem!r}.", hint="this is a bug in hermes; please report it.")
    return running.result()


def _identity(path: Path) -> Identity:
    """What changes if a file is written to or replaced; None if it is gone."""
    with suppress(OSError):
        status = path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns
    return None


MOST_PIECES = 256  # texts that wait as they came; more are joined


class EventQueue:
    """Texts wait merged into one, so that whoever reads slowly or never costs hardly more than the text itself."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._tokens = 0
        self._logprobs: list[TokenLogprobs] = []
        self._end: Done | HermesError | None = None
        self._news = asyncio.Event()

    @property
    def whole(self) -> bool:
        """Whether nothing will come any more."""
        return self._end is not None

    def put(self, event: Event | HermesError) -> None:
        """One more event, an error as the last."""
        if isinstance(event, TextEvent):
            self._texts.append(event.text)
            self._tokens += event.tokens
            self._logprobs += event.logprobs
            if len(self._texts) > MOST_PIECES:
                self._texts = ["".join(self._texts)]
        elif self._end is None:
            self._end = event
        self._news.set()

    async def next(self) -> Event:
        """Wait for the next event.

        Raises:
            HermesError: the one that was put.
        """
        while not self._texts:
            if isinstance(self._end, HermesError):
                raise self._end
            if self._end:
                return self._end
            self._news.clear()
            await self._news.wait()
        text = TextEvent("".join(self._texts), self._tokens, tuple(self._logprobs))
        self._texts, self._tokens, self._logprobs = [], 0, []
        return text
