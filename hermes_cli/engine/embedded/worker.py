"""The process that owns the model. `worker_session.py` starts it and speaks to it in frames (wire.py).

reader thread   takes frames; ends the process at once when the pipe ends, because then nobody needs it any more
a few threads   tokenize, and compile grammars
main thread     loads, then runs the scheduler: one step, one frame with all that it brought
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import Empty, SimpleQueue
from threading import Lock, Thread, stack_size
from typing import TYPE_CHECKING, TypeVar

from hermes_cli.engine.embedded import wire
from hermes_cli.engine.embedded.loading import load
from hermes_cli.engine.embedded.saved_prefixes import SavedPrefixes, key
from hermes_cli.engine.embedded.scheduler import Scheduler
from hermes_cli.engine.embedded.sequence import Job
from hermes_cli.engine.tokens import closing_tokens, prompt_tokens
from hermes_cli.errors import EngineError, HermesError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import NoReturn

    from hermes_cli.engine.embedded.loading import Ready
    from hermes_cli.engine.embedded.options import EngineOptions
    from hermes_cli.engine.embedded.vocabulary import Vocabulary
    from hermes_cli.engine.protocol import Event
    from hermes_cli.planning.load_plan import LoadPlan

T = TypeVar("T")

PREPARERS = 4  # threads
STATS_EVERY = 1.0  # seconds; what was counted since is lost if this process is killed
PROGRESS_EVERY = 0.01  # of the weights
SWITCH_SECONDS = 0.0005  # that other threads may make the scheduler wait; Python's usual 5 ms are a token's time
READ_BYTES = 1 << 16
STACK = 16 << 20  # bytes for each thread: grammars that are compiled here were tried with half (prompting/sandbox.py)
PR_SET_PDEATHSIG = 1  # sys/prctl.h


class Worker:
    """One model, from the first frame to the last."""

    def __init__(self, requests: int, answers: int) -> None:
        """Begin to listen.

        Args:
            requests: descriptor that frames come from.
            answers: descriptor that frames go to.
        """
        self._requests, self._answers = requests, answers
        self._writing = Lock()
        self._inbox: SimpleQueue[wire.Frame | Job] = SimpleQueue()
        self._pool = ThreadPoolExecutor(PREPARERS)
        self._preparing: set[int] = set()  # requests on their way to the scheduler that nobody cancelled
        self._events: list[tuple[int, Event | HermesError]] = []
        self._ready: Ready | None = None
        self._saves = False  # prompts' caches, at the end
        self._told = 0.0  # when the counters were sent
        Thread(target=self._listen, daemon=True).start()

    def run(self) -> None:
        """Load, and answer until it is over."""
        first = self._inbox.get()
        try:
            scheduler = self._load(*first.load())  # type: ignore[union-attr] # nothing else comes before it
        except HermesError as error:
            self._send(wire.pack("failed", 0, error))
            return
        while self._take(scheduler):
            scheduler.step()
            self._tell(scheduler, every=STATS_EVERY)
        if self._saves:
            self._send(wire.pack("saving"))
        scheduler.close()
        self._tell(scheduler)

    def _load(self, path: Path, plan: LoadPlan, options: EngineOptions) -> Scheduler:
        self._saves = options.prefixes is not None
        ready = self._ready = load(path, plan, options, self._progress())
        scheduler = Scheduler(
            ready.model,
            ready.context,
            lambda number, event: self._events.append((number, event)),
            slots=plan.settings.slots,
            lookup=options.lookup,
            max_queue=options.max_queue,
            draft=ready.draft,
            saved=_saved(path, plan, options, ready),
        )
        self._send(wire.pack("loaded", 0, ready.loaded))
        if options.constraints:
            self._pool.submit(ready.grammars.get)
        return scheduler

    def _take(self, scheduler: Scheduler) -> bool:
        """Hand on what came in; wait for it if there is nothing else to do. False if this is the end."""
        while True:
            if not scheduler.busy:
                self._tell(scheduler)
            try:
                item = self._inbox.get(block=not scheduler.busy)
            except Empty:
                return True
            if isinstance(item, Job):
                if self._claim(item.id):
                    scheduler.submit(item)
            elif item.kind == "cancel":
                scheduler.cancel(item.number)
            elif item.kind == "stats":
                self._send(wire.pack("stats", item.number, scheduler.stats()))
            else:
                return False

    def _tell(self, scheduler: Scheduler, every: float = 0.0) -> None:
        """Send what the last step brought, and the counters if so many seconds have passed."""
        if self._events:
            self._send(wire.pack_events(self._events))
            self._events.clear()
        now = time.monotonic()
        if now - self._told >= every:
            self._told = now
            self._send(wire.pack("stats", 0, scheduler.stats()))

    # In the reader's thread

    def _listen(self) -> None:
        splitter = wire.Splitter()
        try:
            while data := os.read(self._requests, READ_BYTES):
                for frame in splitter.feed(data):
                    self._sort(frame)
        except BaseException:  # noqa: BLE001 - whatever it is, without this thread nothing goes on
            _give_up()
        os._exit(0)  # nobody is there any more, and what the others do here is of no use

    def _sort(self, frame: wire.Frame) -> None:
        if frame.kind == "generate":
            self._preparing.add(frame.number)
            self._pool.submit(self._prepare, frame)
        elif frame.kind in {"tokenize", "detokenize"}:
            self._pool.submit(self._answer, frame)
        elif frame.kind == "close" and self._ready is None:
            os._exit(0)
        elif frame.kind in {"load", "cancel", "stats", "close"}:
            self._preparing.discard(frame.number)
            self._inbox.put(frame)
        else:
            raise wire.nonsense(f"a frame of kind {frame.kind!r}")

    # In the preparing threads

    def _prepare(self, frame: wire.Frame) -> None:
        """Make a request ready, unless it was cancelled meanwhile."""
        if frame.number not in self._preparing:
            return
        try:
            self._inbox.put(_attempt(lambda: self._job(frame)))
        except HermesError as error:
            if self._claim(frame.number):
                self._send(wire.pack_events([(frame.number, error)]))

    def _job(self, frame: wire.Frame) -> Job:
        request, vocabulary = frame.request(), self._vocabulary
        matcher = None
        if request.grammar is not None:
            matcher = self._model_ready.grammars.get().start(request.grammar)
        return Job(
            frame.number,
            request,
            prompt_tokens(vocabulary, request.prompt),
            matcher,
            closing_tokens(vocabulary, request.reasoning),
        )

    def _claim(self, number: int) -> bool:
        """Whether a request is still wanted; it is only once."""
        try:
            self._preparing.remove(number)
        except KeyError:
            return False
        return True

    def _answer(self, frame: wire.Frame) -> None:
        try:
            self._send(_attempt(lambda: wire.pack("answer", frame.number, self._translated(frame))))
        except HermesError as error:
            self._send(wire.pack("failed", frame.number, error))

    def _translated(self, frame: wire.Frame) -> list[int] | bytes:
        vocabulary = self._vocabulary
        if frame.kind == "tokenize":
            text, special = frame.read(tuple[str, bool])
            return vocabulary.tokenize(text, special=special)
        tokens = frame.read(list[int])
        for token in tokens:
            if not 0 <= token < vocabulary.size:
                raise UsageError(
                    f"{token} is no token; this model's go from 0 to {vocabulary.size - 1:,}.",
                    hint="take tokens of this model.",
                )
        return b"".join(map(vocabulary.piece, tokens))

    @property
    def _model_ready(self) -> Ready:
        if self._ready is None:
            raise wire.nonsense("a request before anything was loaded")
        return self._ready

    @property
    def _vocabulary(self) -> Vocabulary:
        return self._model_ready.model.vocabulary

    # In all of them

    def _send(self, frame: bytes) -> None:
        rest = memoryview(frame)
        with self._writing:
            while rest:
                rest = rest[os.write(self._answers, rest) :]

    def _progress(self) -> Callable[[float], None]:
        told = 0.0

        def tell(part: float) -> None:
            nonlocal told
            if part - told >= PROGRESS_EVERY or part >= 1:
                told = part
                self._send(wire.pack("progress", 0, part))

        return tell


def _attempt(work: Callable[[], T]) -> T:
    """What comes of it; whatever goes wrong is the error of this request only."""
    try:
        return work()
    except HermesError:
        raise
    except Exception as error:
        traceback.print_exc()
        raise EngineError(
            f"the engine failed: {error!r}.", hint="this is a bug in hermes; please report it."
        ) from error


def _saved(path: Path, plan: LoadPlan, options: EngineOptions, ready: Ready) -> SavedPrefixes | None:
    """Caches of earlier, if they are wanted: those of the same file, loaded in the same way."""
    if options.prefixes is None:
        return None
    files = (path, *(adapter.path for adapter in options.adapters))
    facts = [(file.resolve(), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    scales = [adapter.scale for adapter in options.adapters]
    settings = replace(plan.settings, context=0, slots=0, micro_batch=0)  # what is in a cache does not depend on those
    return SavedPrefixes(options.prefixes / key(facts, scales, settings), ready.context)


def _die_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, even if no thread of it can run then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before
            os._exit(0)


def _give_up() -> NoReturn:
    """End with what went wrong as the last words."""
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)


def main() -> None:
    """Be that process. Whatever else writes to standard output, such as a driver, is led to standard error."""
    _die_with(int(sys.argv[2]))
    sys.setswitchinterval(SWITCH_SECONDS)
    stack_size(STACK)
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        Worker(0, answers).run()
    except BaseException:  # noqa: BLE001 - threads must not keep the process
        _give_up()
    sys.stderr.flush()
    os._exit(0)  # everything is said; drivers take their time to shut down
