"""The `hermes` command: starts what takes longest first, runs the command, and reports errors in one place."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, NoReturn

from hermes_cli.errors import ExitCode, HermesError
from hermes_cli.platforms import is_broken_pipe, open_closed_streams, prepare_streams

if TYPE_CHECKING:
    from types import FrameType

    from hermes_cli.models.loader import Prewarm


class _InterruptedError(BaseException):
    """Ctrl-C. Not a KeyboardInterrupt, which Typer would turn into its own message and exit code 1."""


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _InterruptedError


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    # SystemExit runs what has to be done before the end, also from within asyncio: MCP servers end with us.
    sys.exit(128 + number)


def prewarm(arguments: Sequence[str]) -> AbstractContextManager[Prewarm | None]:
    """Start a process for the engine, if this looks like a command that will load a model.

    The command line is read properly later; a wrong guess here costs a little time and nothing else.
    """
    variables = ("HERMES_LLM_ENDPOINT", "HERMES_LLM_ENGINE_URL", "HERMES_LLM_ENGINE")
    options = ("--endpoint", "--engine")
    elsewhere = any(name in os.environ for name in variables) or any(
        typed.startswith(options) or typed.lower().startswith(("openrouter:", "nous:")) for typed in arguments
    )
    if arguments[:1] != ["chat"] or elsewhere or {"-h", "--help"} & {*arguments}:
        return nullcontext()
    from hermes_cli.models.loader import Prewarm  # noqa: PLC0415 - asyncio: other commands do without

    return Prewarm()


def _save_time() -> None:
    """Do without garbage collection, 7 % of the time, where a shell waits for a completion."""
    if {"_HERMES_COMPLETE", "_HERMES_LLM_COMPLETE"} & os.environ.keys():
        gc.disable()


def main() -> NoReturn:
    """Run `hermes` and exit with a code from `ExitCode`."""
    try:
        _run()
    except SystemExit as end:
        _leave_tools(end)
        raise


def _leave_tools(end: SystemExit) -> None:
    """End the process here if a function that the model called still runs.

    Python aborts the process if such a thread is writing while the interpreter ends.
    """
    import threading  # noqa: PLC0415 - imported long since, by whatever started a thread

    if any(thread.name == "tool" for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(end.code if isinstance(end.code, int) else ExitCode.FAILED)


def _run() -> NoReturn:
    for number in {signal.SIGINT, getattr(signal, "SIGBREAK", signal.SIGINT)}:  # Ctrl-Break, on Windows
        signal.signal(number, _interrupt)
    for name in ("SIGTERM", "SIGHUP"):  # a service that stops, a window that is closed
        if signal.getsignal(getattr(signal, name, signal.SIGTERM)) == signal.SIG_DFL:  # not under nohup
            signal.signal(getattr(signal, name, signal.SIGTERM), _terminate)
    _save_time()
    open_closed_streams()
    prepare_streams((sys.stdout, sys.stderr))
    try:
        with prewarm(sys.argv[1:]) as started:
            from hermes_cli.commands.app import run  # noqa: PLC0415 - Typer: 50 ms, while the engine starts

            code = run(sys.argv[1:], started)
        sys.exit(code)
    except HermesError as error:
        from hermes_cli.console import Console  # noqa: PLC0415 - only when something is wrong

        Console().error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is not None:
            from hermes_cli.console import Console  # noqa: PLC0415 - as above
            from hermes_cli.paths import access_error  # noqa: PLC0415

            problem = access_error(os.fsdecode(error.filename), error)
            Console().error(problem)
            sys.exit(problem.exit_code)
        if error.errno in {errno.ENOSPC, errno.EIO, errno.EBADF}:
            reason = f"the output cannot be written: {error.strerror}."
            sys.stderr.write(f"error: {reason}\n  next: send it somewhere else.\n")
        elif not is_broken_pipe(error):
            raise
        # The reader left (`hermes … | head`), or the disk is full. Python would complain again while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.FAILED)
    except _InterruptedError:
        sys.stderr.write("\ninterrupted\n" if sys.stderr.isatty() else "interrupted\n")
        sys.exit(ExitCode.INTERRUPTED)
