"""The engine's process as seen from outside: started, talked to in frames, ended, and never left behind."""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from hermes_cli.engine.embedded import wire
from hermes_cli.engine.embedded.process import ExitReport, command, environment
from hermes_cli.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    Receive = Callable[[wire.Frame], None]

COMMAND = command("hermes_cli.engine.embedded.worker")
PATIENCE = 2.0  # seconds to end by itself
LAST_WORDS = 1.0  # seconds after its end in which its pipes have to end, too; somebody else may hold them
MOST_LOGGED = 64 << 10  # bytes of its standard error that are kept
_STDIN, _STDOUT, _STDERR = range(3)


class Child(asyncio.SubprocessProtocol):
    """A process that owns a model. All methods belong to one event loop."""

    def __init__(self, receive: Receive | None, *, verbose: bool) -> None:
        """Use `start`."""
        self.receive = receive
        self._verbose = verbose
        self._splitter = wire.Splitter()
        self._log = bytearray()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._gone = asyncio.Event()
        self._deadline: asyncio.TimerHandle | None = None
        self._exited = False
        self.nonsense: EngineError | None = None  # it sent something that is no frame

    @classmethod
    async def start(cls, receive: Receive | None = None, *, verbose: bool = False) -> Child:
        """Start one.

        Args:
            receive: gets every frame that it sends. An EngineError raised there ends it. May be set later, before it
                is sent anything: it has nothing to say until then.
            verbose: show what it writes to standard error.

        Raises:
            EngineError: no process can be started.
        """
        loop = asyncio.get_running_loop()
        program = (*COMMAND, json.dumps(sys.path), str(os.getpid()))
        try:
            _, child = await loop.subprocess_exec(lambda: cls(receive, verbose=verbose), *program, env=environment())
        except OSError as error:
            raise EngineError(
                f"no process can be started for the engine: {error.strerror or error}.",
                hint="close other programs, or raise the limits of processes and open files.",
            ) from error
        return child

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._transport.get_pid()

    def send(self, frame: bytes) -> None:
        """Write a frame; nothing happens if nobody can read it any more."""
        pipe = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(_STDIN))
        if not pipe.is_closing():
            pipe.write(frame)

    def end(self) -> None:
        """Ask it to end, and kill it if it does not within `PATIENCE`."""
        self.send(wire.pack("close"))
        self.wait(PATIENCE)

    def wait(self, seconds: float) -> None:
        """Kill it if it has not ended until then; a later call counts instead."""
        if self._deadline:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self.kill)

    def kill(self) -> None:
        """End it at once."""
        if not self._exited:
            with suppress(OSError):  # it has ended: ESRCH, on Windows an access denied
                # Not the transport's `kill`: it may take the exit code away from who waits for it.
                os.kill(self.pid, getattr(signal, "SIGKILL", signal.SIGTERM))

    async def gone(self) -> ExitReport:
        """Wait until it has ended and all that it sent was received; what it died of."""
        await self._gone.wait()
        return ExitReport(cast("int", self._transport.get_returncode()), self._log.decode("utf-8", "replace"))

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It was started."""
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """It wrote something."""
        if fd == _STDERR:
            self._note(data)
        elif self.nonsense is None:
            try:
                for frame in self._splitter.feed(data):
                    self._take(frame)
            except EngineError as error:
                self._refuse(error)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """One of its pipes is closed; without standard output it is of no use."""
        if fd == _STDOUT and not self._deadline:
            end = wire.nonsense("the end of all answers, while it went on")
            self._deadline = asyncio.get_running_loop().call_later(PATIENCE, self._refuse, end)

    def process_exited(self) -> None:
        """It has ended; what it said before may still be on the way."""
        self._exited = True
        if self._deadline:
            self._deadline.cancel()
        asyncio.get_running_loop().call_later(LAST_WORDS, self._finish)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as above
        """It has ended, and so have its pipes."""
        self._finish()

    def _take(self, frame: wire.Frame) -> None:
        if self.receive is None:
            raise wire.nonsense("a frame, before it was asked for anything")
        self.receive(frame)

    def _refuse(self, error: EngineError) -> None:
        self.nonsense = error
        self.kill()

    def _finish(self) -> None:
        if not self._gone.is_set():
            self._gone.set()
            self._transport.close()

    def _note(self, data: bytes) -> None:
        self._log += data
        del self._log[:-MOST_LOGGED]
        if self._verbose:
            sys.stderr.write(self._decoder.decode(data))
