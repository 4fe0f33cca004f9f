"""Grammars are compiled in a process of their own first, where one that is too much can do no harm.

A grammar of a few hundred bytes can take the grammar engine (llguidance 1.9) minutes and gigabytes, or all of a
thread's stack, which ends the process: its own limits do not hold while it compiles. So each grammar is tried here,
without a vocabulary, in so many seconds of processor time, so much memory and so much stack. Only one that passes goes
on to the process that serves everybody.

The process is started with the first grammar (0.15 s), is kept for the next ones, and ends with its parent.
"""

from __future__ import annotations

import atexit
import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from threading import Event, Lock, Thread, stack_size
from typing import TYPE_CHECKING

from hermes_cli.errors import EngineError
from hermes_cli.platforms import child_python, ending_signals
from hermes_cli.prompting import gbnf
from hermes_cli.prompting.schema_words import MOST_SYMBOLS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llguidance import LLTokenizer

TOO_MUCH = "it is too complex: it takes too much time or memory to compile"

SECONDS = 1.0  # of processor time; the largest honest schemas and sets of tools measured take 0.4 s
MOST_BYTES = 64 << 20  # of new memory; the same take 20 MB
USUAL_BYTES = 32 << 20  # of memory before, where the system does not tell; 11 MB measured
STACK = 8 << 20  # bytes; the engine's threads have twice as much (engine/embedded/worker.py)
PATIENCE = 15.0  # seconds by the clock, for a machine that is busy

# Only Linux lets a process limit the memory that it uses, and Windows not even its time. There the parent looks.
LOOK_EVERY = 0.02  # seconds
MOST_RESIDENT = 128 << 20  # bytes of the whole process; 28 MB with the largest honest grammars
MOST_WATCHED_SECONDS = 2 * SECONDS  # of processor time, the start of the process included

# In llguidance's units; the engine's limits are the same or laxer (engine/embedded/grammar.py).
MOST_ITEMS, MOST_STATES, LEXER_FUEL = 20_000, 20_000, 1_000_000

_OUT_OF_TIME = getattr(signal, "SIGPROF", 0)

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from hermes_cli.prompting.trial import main; main(sys.argv[2])"
)


def complaint(grammar: Mapping[str, object]) -> str | None:
    """Why the grammar engine refuses a grammar, None if it takes it.

    Args:
        grammar: in llguidance's JSON form.

    Raises:
        EngineError: the process for it cannot be started.
    """
    said = _court.ask("check", json.dumps(grammar))
    return TOO_MUCH if said is None else said[0] or None


def to_lark(grammar: str) -> str:
    """What gbnf.py makes of a grammar; its time grows with the square of the number of rules.

    Raises:
        ValueError: it is no such grammar, or takes too long; the message says why.
        EngineError: the process for it cannot be started.
    """
    said = _court.ask("convert", grammar)
    if said is None:
        raise ValueError(TOO_MUCH)
    wrong, made = said
    if wrong:
        raise ValueError(wrong)
    return made


class _Court:
    """The process; threads take turns."""

    def __init__(self, platform: str = sys.platform) -> None:
        self._platform = platform
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._out_of_time = False  # the last one was ended for that

    def ask(self, what: str, text: str) -> list[str] | None:
        """What `_DONE[what]` makes of a text, None if that is too much."""
        line = json.dumps([what, text]).encode() + b"\n"
        with self._lock:
            self._out_of_time = False
            said = self._said(line) if self._process else None
            if said is None and not self._out_of_time:  # earlier ones may have left it less memory
                self._process = _start(self._platform)
                said = self._said(line)
            return said

    def _said(self, line: bytes) -> list[str] | None:
        """What the process says, None if it did not survive."""
        assert self._process  # noqa: S101 - for mypy
        over = Event()
        watcher = Thread(target=self._watch, args=(self._process, over), daemon=True)
        watcher.start()
        said = None
        try:
            said = _converse(self._process, line)
        finally:
            over.set()
            watcher.join()
            if said is None:  # it ended, or nobody reads its answer any more
                self._end()
        return said

    def _watch(self, process: subprocess.Popen[bytes], over: Event) -> None:
        """Kill the process when it takes too long, or more than it can be kept from by its system."""
        deadline = time.monotonic() + PATIENCE
        if self._platform != "linux":
            self._measure(process, over, deadline)
        if not over.wait(max(deadline - time.monotonic(), 0)):
            process.kill()

    def _measure(self, process: subprocess.Popen[bytes], over: Event, deadline: float) -> None:
        import psutil  # noqa: PLC0415 - not on Linux

        with suppress(psutil.Error, OSError):  # it has ended; on Windows that can be the bare OSError
            child = psutil.Process(process.pid)
            before = sum(child.cpu_times()[:2])
            while not over.wait(LOOK_EVERY) and time.monotonic() < deadline:
                self._out_of_time = sum(child.cpu_times()[:2]) - before > MOST_WATCHED_SECONDS
                if self._out_of_time or child.memory_info().rss > MOST_RESIDENT:
                    process.kill()
                    return

    def close(self) -> None:
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._out_of_time |= self._process.returncode == -_OUT_OF_TIME
            self._process = None


def _start(platform: str) -> subprocess.Popen[bytes]:
    # Isolated, so that neither the environment nor the current folder changes what it imports; without `site` it
    # starts sooner.
    command = (child_python(), "-I", "-S", "-c", _PROGRAM, json.dumps(sys.path), platform)
    try:
        return subprocess.Popen(  # noqa: S603 - this Python
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError as error:
        raise EngineError(
            f"no process can be started to check a grammar: {error.strerror or error}.",
            hint="close other programs, or raise the limits of processes and open files.",
        ) from error


def _converse(process: subprocess.Popen[bytes], line: bytes) -> list[str] | None:
    """What it says, None if it ended."""
    assert process.stdin  # noqa: S101 - for mypy: they are pipes
    assert process.stdout  # noqa: S101 - as above
    try:
        process.stdin.write(line)
        process.stdin.flush()
    except OSError:
        return None
    answer = process.stdout.readline()
    return json.loads(answer) if answer.endswith(b"\n") else None


_court = _Court()
atexit.register(_court.close)


# In the process


def main(platform: str) -> None:
    """Answer one line after the other, until there are no more. Ctrl-C is the parent's business."""
    for number in ending_signals():
        signal.signal(number, signal.SIG_IGN)
    import llguidance  # noqa: F401, PLC0415 - only here is it needed; now, before memory is limited

    if platform == "linux":
        _limit_memory()
    stack_size(STACK)
    for line in sys.stdin.buffer:
        what, text = json.loads(line)
        said: list[str] = []
        _limit_time(SECONDS, platform)
        worker = Thread(target=lambda do=_DONE[what], given=text, into=said: into.extend(do(given)))
        worker.start()
        worker.join()
        _limit_time(0, platform)
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


def _check(grammar: str) -> list[str]:
    """What the grammar engine says to a grammar and to its first step, empty if nothing."""
    from llguidance import LLMatcher, LLParserLimits  # noqa: PLC0415 - as above

    limits = LLParserLimits(
        initial_lexer_fuel=LEXER_FUEL,
        step_max_items=MOST_ITEMS,
        max_lexer_states=MOST_STATES,
        max_grammar_size=MOST_SYMBOLS,
        verbose_errors=False,
    )
    complaint = LLMatcher.validate_grammar(grammar, limits=limits)
    if not complaint:
        matcher = LLMatcher(_tokenizer(), grammar, log_level=0, limits=limits)
        if not matcher.is_error():
            matcher.try_consume_tokens(matcher.compute_ff_tokens())
            matcher.compute_bitmask()
        complaint = matcher.get_error()
    return [complaint.strip()]


@cache
def _tokenizer() -> LLTokenizer:
    """Each byte is a token."""
    from llguidance import LLTokenizer  # noqa: PLC0415 - as above

    return LLTokenizer("byte")


def _convert(grammar: str) -> list[str]:
    """What is wrong with a grammar in llama.cpp's syntax, empty if nothing, and what it is in Lark's."""
    try:
        return ["", gbnf.to_lark(grammar)]
    except ValueError as error:
        return [str(error) or "it is no such grammar", ""]


_DONE = {"check": _check, "convert": _convert}


def _limit_time(seconds: float, platform: str) -> None:
    """End this process when it has worked for so long; 0 for no end. Windows cannot."""
    if platform != "win32" and sys.platform != "win32":  # the second is for mypy
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _limit_memory() -> None:
    """Let Linux end this process where it asks for more memory."""
    if sys.platform != "win32":  # for mypy
        import resource  # noqa: PLC0415 - not everywhere

        most = data_bytes() + STACK + MOST_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def data_bytes(status: str = "/proc/self/status") -> int:
    """Return the memory that counts for RLIMIT_DATA and is used already; an estimate where there is no `/proc`."""
    try:
        with open(status, encoding="ascii") as lines:  # noqa: PTH123 - nothing else is needed of pathlib
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData:"))
    except (OSError, StopIteration):
        return USUAL_BYTES
