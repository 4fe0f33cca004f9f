"""One child process of the engine from start to end, with the requests that it works on."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import cast

from hermes_cli.child_process import Frame, pack, protocol_error
from hermes_cli.engine.embedded.child import Child
from hermes_cli.engine.embedded.messages import LoadRequest, Output, read_events
from hermes_cli.engine.protocol import EngineStats, ModelInfo, TextEvent, TokenLogprobs
from hermes_cli.errors import EngineDiedError, EngineError, HermesError

# A child that is stopped, or whose memory is swapped out, keeps silent: each time that it is looked at after a ping. So
# many looks, not seconds: this process may have been stopped as well.
PING_SECONDS, MAX_SILENT = 5.0, 12
SAVING_SECONDS = 20.0  # seconds in which a child may write caches of prompts before it ends


class WorkerSession:
    """A child process from its start, which is at once, to its end. All methods belong to one event loop."""

    def __init__(
        self,
        request: LoadRequest,
        progress: Callable[[float], None] | None,
        delay: float,
        on_end: Callable[[WorkerSession], None],
        child: Child | None = None,
    ) -> None:
        """Start a child after `delay` seconds, or take one that was started earlier; call `on_end` first at its end."""
        self._request, self._progress = request, progress
        self._delay, self._on_end, self._given_child = delay, on_end, child
        # facts about the model, or the error of loading
        self.loaded: asyncio.Future[ModelInfo | HermesError] = asyncio.get_running_loop().create_future()
        self.stats = EngineStats()  # the last that the child sent
        self.died = False  # it ended without being asked to
        self.crashed = False  # it did so while it worked on requests, by a fault of its own
        self._heard = self._silent = False
        self.child: Child | None = None  # None while there is none
        self.stop_error: HermesError | None = None  # for requests that run at the end; not None once it is to end
        self._streams: dict[int, EventQueue] = {}
        self._numbers = itertools.count(1)
        self._since = time.monotonic()
        self._task = asyncio.ensure_future(self._run())
        self._task.add_done_callback(self._end)

    @property
    def ready(self) -> bool:
        """True if it takes requests."""
        return self.loaded.done() and not self.stop_error and not self._task.done()

    @property
    def age(self) -> float:
        """Seconds since loading or, before that, since the start."""
        return time.monotonic() - self._since

    def stop(self, error: HermesError) -> None:
        """End the child soon; running requests get this error."""
        if self.stop_error:
            return
        self.stop_error = error
        if self.child:
            self.child.end()
        else:
            self._task.cancel()

    async def gone(self) -> None:
        """Wait for the end."""
        await asyncio.wait({self._task})

    def send(self, kind: str, payload: object = None) -> tuple[int, EventQueue]:
        """Send a request; return its number, for `cancel`, and its events."""
        number = next(self._numbers)
        self._send(pack(kind, number, payload))
        events = self._streams[number] = EventQueue()
        return number, events

    def cancel(self, number: int) -> None:
        """Cancel a request if it has not ended."""
        if not self._streams.pop(number).end:
            self._send(pack("cancel", number))

    async def call(self, kind: str, payload: object = None) -> Frame:
        """Send a request that is answered by one frame; return that."""
        number, events = self.send(kind, payload)
        try:
            return cast("Frame", await events.next())
        finally:
            self.cancel(number)

    def _send(self, frame: bytes) -> None:
        if self.child:
            self.child.send(frame)

    async def _run(self) -> HermesError:
        await asyncio.sleep(self._delay)
        try:
            return await self._with_child()
        except HermesError as error:
            return error

    async def _with_child(self) -> HermesError:
        """Run the child from start to end; return the error for its requests."""
        self._since = time.monotonic()
        request, identity = self._request, _identity(self._request.path)
        child = self.child = self._given_child or await Child.start(verbose=request.options.verbose)
        child.receive = self._receive
        watch = asyncio.ensure_future(self._watch(child))
        try:
            child.send(pack("load", 0, request))
            death = await child.gone()
        finally:
            watch.cancel()
            child.kill()
            await child.gone()
        if self.stop_error:
            return self.stop_error
        self.died = True
        if self._silent:
            message = (
                f"the engine's process for {request.path} did not answer for {PING_SECONDS * MAX_SILENT:.0f} seconds."
            )
            return EngineDiedError(message, hint="the next request starts it again; was it stopped, or is memory full?")
        self.crashed = death.crashed and self.loaded.done()
        if child.protocol_error:
            return EngineDiedError(child.protocol_error.message, hint=child.protocol_error.hint)
        refused = None if self.loaded.done() else death.while_reading(request.path)
        return refused or death.while_running(request.path, changed=identity != _identity(request.path))

    async def _watch(self, child: Child) -> None:
        """Kill a child that does not answer any more while somebody waits for it."""
        silent = 0
        while silent < MAX_SILENT:
            self._heard = False
            child.send(pack("ping"))
            await asyncio.sleep(PING_SECONDS)
            waited_for = self._streams or not self.loaded.done()
            silent = 0 if self._heard or not waited_for else silent + 1
        self._silent = True
        child.kill()

    def _end(self, task: asyncio.Task[HermesError]) -> None:
        """Give the error to all requests."""
        self.child = None
        error = self.stop_error
        if not error and task.cancelled():
            error = EngineError("the engine was interrupted.", hint="ask again.")
        elif not error and (problem := task.exception()):
            error = EngineError(f"the engine failed: {problem!r}.", hint="this is a bug in hermes; please report it.")
        error = error or task.result()
        self._on_end(self)
        if not self.loaded.done():
            self.loaded.set_result(error)
        for events in self._streams.values():
            events.put(copy(error))

    def _receive(self, frame: Frame) -> None:
        """Take a frame of the child; one that makes no sense is an EngineError."""
        self._heard = True
        if frame.kind == "events":
            for number, event in read_events(frame):
                if events := self._streams.get(number):
                    events.put(event)
        elif frame.number:
            if events := self._streams.get(frame.number):
                events.put(frame.error() if frame.kind == "failed" else frame)
        else:
            self._receive_own(frame)

    def _receive_own(self, frame: Frame) -> None:
        """Take a frame about the child itself."""
        if frame.kind == "progress":
            if self._progress:
                self._progress(frame.read(float))
        elif frame.kind == "loaded" and not self.loaded.done():
            self.loaded.set_result(replace(frame.read(ModelInfo), load_seconds=self.age))
            self._since = time.monotonic()
        elif frame.kind == "failed":
            self.stop(frame.error())
        elif frame.kind == "saving" and self.child:
            self.child.kill_after(SAVING_SECONDS)
        elif frame.kind == "stats":
            self.stats = frame.read(EngineStats)
        elif frame.kind != "pong":
            raise protocol_error(f"a frame of kind {frame.kind!r}")


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Return what changes if a file is written to or replaced; None if it is gone."""
    with suppress(OSError):
        status = path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns
    return None


MAX_TEXTS = 256  # texts that wait as they came; more are joined


class EventQueue:
    """The events of one request. Waiting texts are merged, so that slow readers cost hardly more than the text."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._tokens = 0
        self._logprobs: list[TokenLogprobs] = []
        self._prompt: list[TokenLogprobs] = []
        self._reasoning_cut = False
        self.end: Output | Frame | HermesError | None = None  # the last event
        self._changed = asyncio.Event()

    def put(self, event: Output | Frame | HermesError) -> None:
        """Append an event; whatever is not text is the last."""
        if isinstance(event, TextEvent):
            self._texts.append(event.text)
            self._tokens += event.tokens
            self._logprobs += event.logprobs
            self._prompt += event.prompt
            self._reasoning_cut = event.reasoning_cut
            if len(self._texts) > MAX_TEXTS:
                self._texts = ["".join(self._texts)]
        elif self.end is None:
            self.end = event
        self._changed.set()

    async def next(self) -> Output | Frame:
        """Wait for the next event; raise it if it is an error."""
        while not self._texts:
            if isinstance(self.end, HermesError):
                raise self.end
            if self.end:
                return self.end
            self._changed.clear()
            await self._changed.wait()
        logprobs, prompt = tuple(self._logprobs), tuple(self._prompt)
        text = TextEvent("".join(self._texts), self._tokens, logprobs, prompt, reasoning_cut=self._reasoning_cut)
        self._texts, self._tokens, self._logprobs, self._prompt = [], 0, [], []
        return text
