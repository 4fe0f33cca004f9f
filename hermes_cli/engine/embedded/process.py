"""What the engine's child processes have in common: how they are started, and what can be said of their end."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_cli.errors import EngineDiedError, EngineError, IntegrityError
from hermes_cli.platforms import child_python, ending_signals

if TYPE_CHECKING:
    from pathlib import Path

REINSTALL_HINT = "install it again: pip install --force-reinstall --no-cache-dir llama-cpp-python"
_UNLOADABLE = re.compile(r"^[\w.]*EngineError: (llama\.cpp cannot be loaded: .*)$", re.MULTILINE)  # of bindings.py
_ASSERTION = re.compile(r"GGML_ASSERT\(.*\) failed")
# How often a thread looks before it sleeps. OpenMP's own 300,000 make a model 30 times slower and more as soon as a
# second one works on the same cores; this costs 1 to 2 % when none does (docs/engine.md).
SPINS = "2000"
_WAITING = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}
NTSTATUS_ERROR = 0xC0000000  # exit codes from here on are errors of Windows, which documents them in hexadecimal
_MOST_SHOWN = 300  # characters of a last line

# What ends a process from outside, without a word of its own. SIGBUS comes where a mapped file has no such page.
_SIGNALS = {
    "SIGKILL": (
        "was killed, most likely because memory ran out",
        "close other programs, or take a shorter --context or a smaller quantization.",
    ),
    "SIGBUS": (
        "could not read the model any more, because the file was cut short or its disk failed",
        "fetch the file again; never write to a file that is in use.",
    ),
}
_RETRY = "the next request starts it again; `-v` shows llama.cpp's log."


def command(module: str) -> tuple[str, ...]:
    """What to start for `main` of a module to run in a process of its own; `sys.path` as JSON has to follow.

    Neither the environment nor the current folder may change what it imports; without `site` it starts sooner. Ctrl-C
    reaches all processes of a terminal, and SIGTERM all of a service: what they mean is decided by the parent, which
    may want to finish something first. When the parent is gone, the process ends by itself.
    """
    ignored = [int(number) for number in ending_signals()]
    program = (
        f"import json, signal, sys; [signal.signal(number, signal.SIG_IGN) for number in {ignored}];"
        f" sys.path[:] = json.loads(sys.argv[1]); from {module} import main; main()"
    )
    return (child_python(), "-I", "-S", "-c", program)


def environment() -> dict[str, str]:
    """The environment that it gets.

    Where llama.cpp gives up it must not start a debugger. Where threads wait for each other they soon sleep, unless
    the user decided otherwise. NumPy needs no threads here: nothing multiplies matrices with it.
    """
    usual = {} if os.environ.keys() & _WAITING else {"GOMP_SPINCOUNT": SPINS}
    return {**os.environ, **usual, "GGML_NO_BACKTRACE": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class ExitReport:
    """How a process ended: its exit code, negative for a signal, and what it wrote to standard error."""

    code: int
    log: str

    @property
    def ended(self) -> str:
        """What happened to it, to follow a subject: "was ended (Killed)"."""
        if self.code < 0:
            return f"was ended ({signal.strsignal(-self.code) or f'signal {-self.code}'})"
        code = self.code if self.code < NTSTATUS_ERROR else f"0x{self.code:08X}"
        return f"ended with code {code}"

    @property
    def assertion(self) -> str | None:
        """What llama.cpp found to be wrong before it gave up; None if it did not."""
        found = _ASSERTION.search(self.log)
        return found[0] if found else None

    @property
    def unloadable(self) -> EngineError | None:
        """What to say where llama.cpp itself could not be loaded; None if it could."""
        found = _UNLOADABLE.search(self.log)
        return EngineError(found[1], hint=REINSTALL_HINT) if found else None

    def over(self, path: Path) -> IntegrityError | None:
        """What to say where llama.cpp gave up while it read a file; None if it did not."""
        if not self.assertion:
            return None
        return IntegrityError(
            f"llama.cpp gives up over {path}: {self.assertion}.",
            hint="the file may be damaged, or of a kind that this llama.cpp cannot load; fetch it again.",
        )

    @property
    def last_words(self) -> str:
        """The last line that it wrote."""
        lines = (line.strip() for line in reversed(self.log.splitlines()))
        return next(filter(None, lines), "it gave no reason")[:_MOST_SHOWN]

    def while_running(self, path: Path, *, changed: bool) -> EngineDiedError:
        """What to tell those for whom it worked.

        Args:
            path: the model's file.
            changed: it is not the same any more as when it was loaded.
        """
        name = next((one.name for one in signal.Signals if one == -self.code), "")
        what, hint = _SIGNALS.get(name) or (f"{self.ended}: {self.assertion or self.last_words}", _RETRY)
        since = "; the file has changed since it was loaded" if changed else ""
        return EngineDiedError(f"the engine's process for {path} {what}{since}.", hint=hint)
