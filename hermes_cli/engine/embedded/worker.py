"""The child process that owns the model; `worker_session.py` is its other end.

reader thread   takes frames; ends the process at once when the pipe ends, because then nobody needs it any more
a few threads   tokenize, and compile grammars; requests take turns
main thread     imports, answers dry runs, loads, then runs the scheduler (for embeddings: the embedder): one step, one
                frame with all its events

Little is imported at the top: the parent waits for the answer to the first dry run, for which llama.cpp is enough. The
rest follows while the parent works.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from importlib import import_module
from queue import Empty, SimpleQueue
from threading import Lock, Thread, stack_size
from typing import TYPE_CHECKING, NoReturn

from hermes_cli.child_process import Frame, pack, protocol_error, read_frames, write_frame
from hermes_cli.engine.embedded.fair_pool import FairPool
from hermes_cli.engine.embedded.messages import (
    BenchRequest,
    DryRunRequest,
    LoadRequest,
    Output,
    RequestClient,
    pack_events,
)
from hermes_cli.engine.request import EmbeddingRequest, GenerationRequest
from hermes_cli.errors import EngineError, HermesError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_cli.engine.embedded.dry_run import DryRunner
    from hermes_cli.engine.embedded.embedder import Embedder, EmbeddingJob, EmbeddingRuntime
    from hermes_cli.engine.embedded.loading import ModelRuntime
    from hermes_cli.engine.embedded.scheduler import Scheduler
    from hermes_cli.engine.embedded.sequence import Job

# Imported one after the other while there is nothing else to do.
IMPORTS = ("hermes_cli.engine.embedded.dry_run", "numpy", "hermes_cli.engine.embedded.loading")
# Frames whose result is an event of the scheduler, or of the embedder, with their payload.
REQUESTS: dict[str, type[GenerationRequest | EmbeddingRequest]] = {
    "generate": GenerationRequest,
    "embed": EmbeddingRequest,
}
PREPARERS = 4  # threads
MAX_TOKENIZED = 1 << 20  # tokens in one answer to "tokenize", if the context is not longer
STATS_EVERY = 1.0  # seconds; what was counted since is lost if this process is killed
PROGRESS_EVERY = 0.01  # of the weights
SWITCH_SECONDS = 0.0005  # that other threads may make the scheduler wait; Python's usual 5 ms are a token's time
STACK = 16 << 20  # bytes for each thread: grammars that are compiled here were tried with half (prompting/sandbox.py)
PR_SET_PDEATHSIG = 1  # sys/prctl.h


class Worker:
    """One model, from the first frame to the last."""

    def __init__(self, requests: int, replies: int) -> None:
        """Start the reader thread, given the file descriptors that frames come from and go to."""
        self._requests, self._replies = requests, replies
        self._writing = Lock()
        self._inbox: SimpleQueue[Frame | Job | EmbeddingJob] = SimpleQueue()
        self._pool = FairPool(PREPARERS)
        self._preparing: set[int] = set()  # requests that are not answered, nor with the scheduler, nor cancelled
        self._events: list[tuple[int, Output | HermesError]] = []
        self._dry_runner: DryRunner | None = None
        self._runtime: ModelRuntime | EmbeddingRuntime | None = None
        self._stats_sent = 0.0
        Thread(target=self._read, daemon=True).start()

    def run(self) -> None:
        """Answer dry runs, load, and generate until it is over."""
        try:
            scheduler = self._load(self._until_load().read(LoadRequest))
        except HermesError as error:
            self._send(pack("failed", 0, error))
            return
        while self._take(scheduler):
            scheduler.step()
            self._report(scheduler, every=STATS_EVERY)
        if self._runtime and self._runtime.prefixes:
            self._send(pack("saving"))
        scheduler.close()
        self._report(scheduler)

    def _until_load(self) -> Frame:
        """Answer dry runs until a model is to be loaded; import between them."""
        imports = list(IMPORTS)
        while True:
            try:
                frame = self._inbox.get(block=not imports)
            except Empty:
                import_module(imports.pop(0))
                continue
            if not isinstance(frame, Frame) or frame.kind not in {"dry_run", "bench"}:
                return frame  # type: ignore[return-value] # there are no jobs before anything is loaded
            try:
                if frame.kind == "bench":
                    self._bench(frame.read(BenchRequest))
                    continue
                from hermes_cli.engine.embedded.dry_run import DryRunner  # noqa: PLC0415 - imported when it is needed

                self._dry_runner = self._dry_runner or DryRunner()
                self._send(pack("fit", 0, self._dry_runner.run(frame.read(DryRunRequest))))
            except HermesError as error:
                self._send(pack("failed", 0, error))

    def _bench(self, request: BenchRequest) -> None:
        """Run speed tests on a model of their own."""
        self._close_dry_runner()
        from hermes_cli.engine.embedded.bench import bench  # noqa: PLC0415 - imported when it is needed

        for speeds in bench(request, lambda part: self._send(pack("progress", 0, part))):
            self._send(pack("speeds", 0, speeds))

    def _close_dry_runner(self) -> None:
        runner, self._dry_runner = self._dry_runner, None
        if runner:
            runner.close()

    def _load(self, request: LoadRequest) -> Scheduler | Embedder:
        self._close_dry_runner()
        from hermes_cli.engine.embedded.loading import load  # noqa: PLC0415 - imported when it is needed

        sent = 0.0

        def send_progress(part: float) -> None:
            nonlocal sent
            if part - sent >= PROGRESS_EVERY or part >= 1:
                sent = part
                self._send(pack("progress", 0, part))

        runtime = self._runtime = load(request, send_progress)
        scheduler = runtime.scheduler(lambda number, event: self._events.append((number, event)))
        self._send(pack("loaded", 0, runtime.info))
        if request.options.constraints:
            self._pool.submit(_warm_up(runtime))
        return scheduler

    def _take(self, scheduler: Scheduler | Embedder) -> bool:
        """Pass on what came in; wait for it if there is nothing else to do. Returns False at the end."""
        while True:
            if not scheduler.busy:
                self._report(scheduler)
            try:
                item = self._inbox.get(block=not scheduler.busy)
            except Empty:
                return True
            if not isinstance(item, Frame):
                if self._claim(item.id):
                    scheduler.submit(item)  # type: ignore[arg-type]  # its own runtime prepared it
            elif item.kind == "cancel":
                scheduler.cancel(item.number)
            elif item.kind == "stats":
                self._send(pack("stats", item.number, scheduler.stats()))
            else:
                return False

    def _report(self, scheduler: Scheduler | Embedder, every: float = 0.0) -> None:
        """Send the events of the last step, and the counters if so many seconds have passed."""
        if self._events:
            self._send(pack_events(self._events))
            self._events.clear()
        now = time.monotonic()
        if now - self._stats_sent >= every:
            self._stats_sent = now
            self._send(pack("stats", 0, scheduler.stats()))

    # In the reader thread

    def _read(self) -> None:
        try:
            for frame in read_frames(self._requests):
                self._sort(frame)
        except BaseException:  # noqa: BLE001 - whatever it is, without this thread nothing goes on
            _exit_with_traceback()
        os._exit(0)  # the parent is gone, and what the other threads do is of no use

    def _sort(self, frame: Frame) -> None:
        if frame.kind in REQUESTS or frame.kind in {"tokenize", "detokenize"}:
            self._preparing.add(frame.number)
            client = frame.read(RequestClient).client if frame.kind in REQUESTS else ""
            self._pool.submit(self._work(frame), client)
        elif frame.kind == "ping":
            self._send(pack("pong"))
        elif frame.kind == "close" and self._runtime is None:
            os._exit(0)
        elif frame.kind in {"dry_run", "bench", "load", "cancel", "stats", "close"}:
            self._preparing.discard(frame.number)
            self._inbox.put(frame)
        else:
            raise protocol_error(f"a frame of kind {frame.kind!r}")

    # In the pool's threads

    def _work(self, frame: Frame) -> Iterator[None]:
        """Prepare a request for the scheduler, or translate; end at the next step if nobody wants it any more.

        Whatever goes wrong is the error of this request only.
        """
        try:
            for _ in self._steps(frame):
                if frame.number not in self._preparing:
                    return
                yield
        except HermesError as error:
            self._fail(frame, error)
        except Exception as error:  # noqa: BLE001 - as above
            traceback.print_exc()
            self._fail(
                frame, EngineError(f"the engine failed: {error!r}.", hint="this is a bug in hermes; please report it.")
            )

    def _steps(self, frame: Frame) -> Iterator[None]:
        if frame.number not in self._preparing:
            return
        runtime = self._runtime
        if runtime is None:
            raise protocol_error("a request before anything was loaded")
        if frame.kind in REQUESTS:
            request = frame.read(REQUESTS[frame.kind])
            self._inbox.put((yield from runtime.prepare(frame.number, request)))
            return
        vocabulary = runtime.model.vocabulary
        answer: list[int] | bytes = []
        if frame.kind == "tokenize":
            text, special = frame.read(tuple[str, bool])
            answer, most = [], max(MAX_TOKENIZED, runtime.info.context)
            for part in vocabulary.tokenize_each([text], special=special):
                answer += part
                if len(answer) > most:
                    raise UsageError(f"the text has more than {most:,} tokens.", hint="send it in parts.")
                yield
        else:
            answer = vocabulary.detokenize(frame.read(list[int]))
        if self._claim(frame.number):
            self._send(pack("answer", frame.number, answer))

    def _fail(self, frame: Frame, error: HermesError) -> None:
        if not self._claim(frame.number):
            return
        if frame.kind in REQUESTS:
            self._send(pack_events([(frame.number, error)]))
        else:
            self._send(pack("failed", frame.number, error))

    def _claim(self, number: int) -> bool:
        """Return whether a request is still wanted; it is only once."""
        try:
            self._preparing.remove(number)
        except KeyError:
            return False
        return True

    # In all threads

    def _send(self, frame: bytes) -> None:
        with self._writing:
            write_frame(self._replies, frame)


def _warm_up(runtime: ModelRuntime | EmbeddingRuntime) -> Iterator[None]:
    with suppress(HermesError):  # requests that need it get this error
        runtime.warm_up()
    yield


def _exit_with_traceback() -> NoReturn:
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)


def main() -> None:
    """Run the worker. Whatever else writes to standard output, such as a driver, is led to standard error."""
    if sys.platform == "linux":  # the kernel is to end this process with its parent, even if no thread can run then
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(sys.argv[2]):  # it ended before
            os._exit(0)
    sys.setswitchinterval(SWITCH_SECONDS)
    stack_size(STACK)
    replies = os.dup(1)
    os.dup2(2, 1)
    try:
        Worker(0, replies).run()
    except BaseException:  # noqa: BLE001 - threads must not keep the process
        _exit_with_traceback()
    sys.stderr.flush()
    os._exit(0)  # everything is sent; drivers take their time to shut down
