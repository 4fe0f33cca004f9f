"""The engine's child process as the parent sees it: started, talked to in frames, ended, and never left behind."""

from __future__ import annotations

import asyncio
import codecs
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

from hermes_cli.child_process import ExitReport, Frame, FrameSplitter, command, environment, pack, protocol_error
from hermes_cli.console import CONTROL
from hermes_cli.errors import EngineDiedError, EngineError, IntegrityError
from hermes_cli.platforms import REINSTALL_HINT

COMMAND = command("hermes_cli.engine.embedded.worker")
END_SECONDS = 2.0  # for the process to end by itself
PIPE_SECONDS = 1.0  # for its pipes to end after it has; another process may hold them
MAX_LOG_BYTES = 64 << 10  # of its standard error are kept
# How often a thread looks before it sleeps. OpenMP's own 300,000 make a model 30 times slower and more as soon as a
# second one works on the same cores; this costs 1 to 2 % when none does (docs/engine.md).
SPIN_COUNT = "2000"
_SPIN_VARIABLES = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}
_STDIN, _STDOUT, _STDERR = range(3)


CPUINFO = Path("/proc/cpuinfo")
_ASSERTION = re.compile(r"GGML_ASSERT\(.*\) failed")
_RETRY_HINT = "the next request starts it again; `-v` shows llama.cpp's log."

# Signals that end a process from outside, without a word of its own. SIGBUS comes where a mapped file has no such page.
_SIGNALS = {
    "SIGKILL": (
        "was killed, most likely because memory ran out",
        "close other programs, or take a shorter --context or a smaller quantization.",
    ),
    "SIGBUS": (
        "could not read the model any more, because the file was cut short or its disk failed",
        "fetch the file again; never write to a file that is in use.",
    ),
    "SIGILL": (
        "met an instruction that this processor does not have: llama.cpp was built on another machine",
        REINSTALL_HINT,
    ),
}
# README.md, Install, tells of the compiler's fault; tools/lean-llama.cmake of its cause.
AMX_HINT = (
    "if every model ends so, a GCC before 14 built llama.cpp wrongly for this processor, which has AMX: build it "
    "again, as README.md says under Install. Otherwise " + _RETRY_HINT
)


class Child(asyncio.SubprocessProtocol):
    """A process that owns a model. All methods belong to one event loop."""

    def __init__(self, *, verbose: bool) -> None:
        """Use `start`."""
        # is called with every frame that the child sends, and set before that is asked for something; an EngineError
        # raised there ends the child
        self.receive: Callable[[Frame], None] = _refuse_unasked
        self.verbose = verbose
        self._splitter = FrameSplitter()
        self._log = bytearray()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._gone = asyncio.Event()
        self._deadline: asyncio.TimerHandle | None = None
        self._exited = self._killed = False
        self.protocol_error: EngineError | None = None  # it sent no frame, or one that makes no sense

    @classmethod
    async def start(cls, *, verbose: bool = False) -> Child:
        """Start a process; `verbose` copies its standard error to this process's."""
        loop = asyncio.get_running_loop()
        # Where llama.cpp gives up it must not start a debugger. NumPy needs no threads: it multiplies no matrices here.
        variables = environment(GGML_NO_BACKTRACE="1", OPENBLAS_NUM_THREADS="1")
        if not os.environ.keys() & _SPIN_VARIABLES:  # the user did not decide when threads that wait sleep
            variables["GOMP_SPINCOUNT"] = SPIN_COUNT
        program = (*COMMAND, json.dumps(sys.path), str(os.getpid()))
        try:
            _, child = await loop.subprocess_exec(lambda: cls(verbose=verbose), *program, env=variables)
        except OSError as error:
            raise EngineError(
                f"no process can be started for the engine: {error.strerror or error}.",
                hint="close other programs, or raise the limits of processes and open files.",
            ) from error
        return child

    @property
    def pid(self) -> int:
        """The process id."""
        return self._transport.get_pid()

    @property
    def usable(self) -> bool:
        """True until the process has ended or is to end."""
        return not (self._exited or self._killed or self._deadline)

    def send(self, frame: bytes) -> None:
        """Send a frame; do nothing if the pipe is closed."""
        pipe = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(_STDIN))
        if not pipe.is_closing():
            pipe.write(frame)

    def end(self) -> None:
        """Ask the process to end, and kill it if it does not within `END_SECONDS`."""
        self.send(pack("close"))
        self.kill_after(END_SECONDS)

    def kill_after(self, seconds: float) -> None:
        """Kill the process if it has not ended by then; a later call replaces an earlier one."""
        if self._deadline:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self.kill)

    def kill(self) -> None:
        """End the process at once."""
        self._killed = True
        if not self._exited:
            with suppress(OSError):  # it has ended: ESRCH, on Windows an access denied
                # Not the transport's `kill`: it may take the exit code away from who waits for it.
                os.kill(self.pid, getattr(signal, "SIGKILL", signal.SIGTERM))

    async def gone(self) -> LlamaExit:
        """Wait until the process has ended and all that it sent was received; return how it ended."""
        await self._gone.wait()
        return LlamaExit(cast("int", self._transport.get_returncode()), self._log.decode("utf-8", "replace"))

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note that the process was started."""
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Take what the process wrote."""
        if fd == _STDERR:
            self._log += data
            del self._log[:-MAX_LOG_BYTES]
            if self.verbose:
                sys.stderr.write(self._decoder.decode(data).translate(CONTROL))  # the log quotes the file
        elif self.protocol_error is None:
            try:
                for frame in self._splitter.feed(data):
                    self.receive(frame)
            except EngineError as error:
                self._refuse(error)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """End a process that closed its standard output."""
        if fd == _STDOUT and not self._deadline:
            end = protocol_error("the end of all answers, while it went on")
            self._deadline = asyncio.get_running_loop().call_later(END_SECONDS, self._refuse, end)

    def process_exited(self) -> None:
        """Note that the process has ended; what it sent before may still be on the way."""
        self._exited = True
        if self._deadline:
            self._deadline.cancel()
        asyncio.get_running_loop().call_later(PIPE_SECONDS, self._finish)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as above
        """Note that its pipes have ended, too."""
        self._finish()

    def _refuse(self, error: EngineError) -> None:
        self.protocol_error = error
        self.kill()

    def _finish(self) -> None:
        if not self._gone.is_set():
            self._gone.set()
            self._transport.close()


def _refuse_unasked(_: Frame) -> None:
    raise protocol_error("a frame, before it was asked for anything")


class LlamaExit(ExitReport):
    """End of the child, and the errors that it means."""

    @property
    def assertion(self) -> str | None:
        """The check that failed before llama.cpp gave up; None if it did not."""
        match = _ASSERTION.search(self.log)
        return match[0] if match else None

    def while_reading(self, path: Path) -> IntegrityError | None:
        """Return the error if llama.cpp gave up while it read a file, else None."""
        if not self.assertion:
            return None
        return IntegrityError(
            f"llama.cpp gives up over {path}: {self.assertion}.",
            hint="the file may be damaged, or of a kind that this llama.cpp cannot load; fetch it again.",
        )

    def while_running(self, path: Path, *, changed: bool, cpuinfo: Path = CPUINFO) -> EngineDiedError:
        """Return the error for its requests; `changed` if the model's file is not the same any more as when loaded."""
        name = next((number.name for number in signal.Signals if number == -self.code), "")
        predicate, hint = _SIGNALS.get(name) or (f"{self.how}: {self.assertion or self.last_line}", _RETRY_HINT)
        with suppress(OSError):  # not Linux, or without /proc
            if name == "SIGSEGV" and "amx_tile" in cpuinfo.read_text(encoding="utf-8").split():
                hint = AMX_HINT
        since = "; the file has changed since it was loaded" if changed else ""
        return EngineDiedError(f"the engine's process for {path} {predicate}{since}.", hint=hint)
