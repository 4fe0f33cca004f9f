"""A process with limits on time, memory and stack, for work on input from strangers: templates and grammars.

A template or a grammar of a few hundred bytes can take minutes and gigabytes, or all of a thread's stack, which ends a
process; neither Jinja nor the grammar engine (llguidance 1.9) has limits of its own that hold. So that work is done
here first. The process is started with the first call (0.15 s), kept for the next ones, and ends with its parent.
"""

from __future__ import annotations

import atexit
import importlib
import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from threading import Event, Lock, Thread, stack_size
from typing import Any

from hermes_cli.child_process import command, environment, pack, read_frames, write_frame
from hermes_cli.errors import EngineError

STACK = 8 << 20  # bytes; the engine's threads have twice as much (engine/embedded/worker.py)
PATIENCE = 15.0  # seconds by the clock beyond the processor time that is allowed, for a machine that is busy
USUAL_BYTES = 32 << 20  # of memory before, where the system does not tell; 11 MB measured

# Only Linux lets a process limit the memory that it uses, and Windows not even its time. There the parent looks.
LOOK_EVERY = 0.02  # seconds
RESIDENT_BYTES = 64 << 20  # of the process before it works; 28 MB measured at most, with the largest honest grammars

_OUT_OF_TIME = getattr(signal, "SIGPROF", 0)

COMMAND = command("hermes_cli.prompting.sandbox")


class Sandbox:
    """Calls functions of one module in a process of its own; threads take turns."""

    def __init__(self, module: str, platform: str = sys.platform) -> None:
        """Start nothing yet; `module` is the name of the module whose functions are called."""
        self._module, self._platform = module, platform
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._out_of_time = False  # the last process was ended for that
        atexit.register(self.close)

    def call(self, function: str, *arguments: object, seconds: float, new_bytes: int) -> Any:  # noqa: ANN401 - JSON
        """Return the result of a function (JSON in, JSON out), None if it takes too much.

        `seconds` are of processor time, `new_bytes` of memory beside what the process has. Raise EngineError if it
        cannot be started.
        """
        # JSON within the frame: templates see lone surrogates and large numbers as they came
        frame = pack("call", 0, json.dumps([function, arguments, seconds, new_bytes]))
        with self._lock:
            self._out_of_time = False
            answer = self._answer(frame, seconds, new_bytes) if self._process else None
            if answer is None and not self._out_of_time:  # earlier calls may have left it less memory
                self._process = self._start()
                answer = self._answer(frame, seconds, new_bytes)
            return None if answer is None else answer[0]

    def close(self) -> None:
        """End the process; the next call starts another one."""
        with self._lock:
            self._end()

    def _answer(self, frame: bytes, seconds: float, new_bytes: int) -> list[Any] | None:
        """Return the result in a list, None if the process did not survive."""
        assert self._process  # noqa: S101 - for mypy
        assert self._process.stdin  # noqa: S101 - as above
        assert self._process.stdout  # noqa: S101 - as above
        over = Event()
        watcher = Thread(target=self._watch, args=(self._process, over, seconds, new_bytes), daemon=True)
        watcher.start()
        answer = None
        try:
            with suppress(OSError):  # it ended
                write_frame(self._process.stdin.fileno(), frame)
                answer = next(read_frames(self._process.stdout.fileno()), None)
        finally:
            over.set()
            watcher.join()
            if answer is None:  # it ended, or nobody reads its answer any more
                self._end()
        return json.loads(answer.read(str)) if answer else None

    def _watch(self, process: subprocess.Popen[bytes], over: Event, seconds: float, new_bytes: int) -> None:
        """Kill the process when it takes too long, or more than its system can keep it from taking."""
        deadline = time.monotonic() + PATIENCE + seconds
        if self._platform != "linux":
            import psutil  # noqa: PLC0415 - not on Linux

            with suppress(psutil.Error, OSError):  # it has ended; on Windows that can be the bare OSError
                child = psutil.Process(process.pid)
                before = sum(child.cpu_times()[:2])
                while not over.wait(LOOK_EVERY) and time.monotonic() < deadline:
                    # Twice the time: the start of the process is among it.
                    self._out_of_time = sum(child.cpu_times()[:2]) - before > 2 * seconds
                    if self._out_of_time or child.memory_info().rss > RESIDENT_BYTES + new_bytes:
                        process.kill()
                        return
        if not over.wait(max(deadline - time.monotonic(), 0)):
            self._out_of_time = True
            process.kill()

    def _end(self) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._out_of_time |= self._process.returncode == -_OUT_OF_TIME
            self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        arguments = json.dumps(sys.path), self._module, self._platform
        try:
            return subprocess.Popen(  # noqa: S603 - this Python
                (*COMMAND, *arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment(),
            )
        except OSError as error:
            raise EngineError(
                f"no process can be started to check what a model file or a request says: {error.strerror or error}.",
                hint="close other programs, or raise the limits of processes and open files.",
            ) from error


# In the process


def main() -> None:
    """Answer one call after the other, until there are no more."""
    _, _, module, platform = sys.argv
    functions = importlib.import_module(module)  # before memory is limited
    if hasattr(functions, "prepare_sandbox"):
        functions.prepare_sandbox()
    stack_size(STACK)
    for frame in read_frames(0):
        name, arguments, seconds, new_bytes = json.loads(frame.read(str))
        _limit(platform, seconds, new_bytes)
        results: list[Any] = []
        worker = Thread(target=lambda: results.append(getattr(functions, name)(*arguments)))  # noqa: B023 - joined here
        worker.start()
        worker.join()
        _limit(platform)  # the next call is read without
        if not results:  # out of memory, or deeper than Python goes
            return
        write_frame(1, pack("answer", 0, json.dumps(results)))


def _limit(platform: str, seconds: float = 0, new_bytes: int | None = None) -> None:
    """Have the system end this process after so much work, and refuse it memory; without numbers end both limits.

    Only Linux can limit the memory: to what is used now, a stack, and so much more. Windows can limit nothing.
    """
    if sys.platform == "win32" or platform == "win32":  # the first is for mypy
        return
    if platform == "linux":
        import resource  # noqa: PLC0415 - not everywhere

        most = resource.RLIM_INFINITY if new_bytes is None else data_bytes() + STACK + new_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_PROF, seconds)


def data_bytes(status: str = "/proc/self/status") -> int:
    """Return the memory that counts for RLIMIT_DATA and is used already; an estimate where there is no `/proc`."""
    try:
        with open(status, encoding="ascii") as lines:  # noqa: PTH123 - nothing else is needed of pathlib
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData:"))
    except (OSError, StopIteration):
        return USUAL_BYTES
