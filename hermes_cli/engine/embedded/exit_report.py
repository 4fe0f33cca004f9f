"""The end of the engine's child process, as errors for those who waited for it."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from hermes_cli.child_process import ExitReport
from hermes_cli.errors import EngineDiedError, IntegrityError

REINSTALL_HINT = "install it again: pip install --force-reinstall --no-cache-dir llama-cpp-python"
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
        """Return the error for the requests that it worked on.

        Args:
            path: the model's file.
            changed: the file is not the same any more as when it was loaded.
            cpuinfo: Linux's description of the processor.
        """
        name = next((number.name for number in signal.Signals if number == -self.code), "")
        predicate, hint = _SIGNALS.get(name) or (f"{self.how}: {self.assertion or self.last_line}", _RETRY_HINT)
        if name == "SIGSEGV" and _has_amx(cpuinfo):
            hint = AMX_HINT
        since = "; the file has changed since it was loaded" if changed else ""
        return EngineDiedError(f"the engine's process for {path} {predicate}{since}.", hint=hint)


def _has_amx(cpuinfo: Path) -> bool:
    try:
        return "amx_tile" in cpuinfo.read_text(encoding="utf-8").split()
    except OSError:  # not Linux, or without /proc
        return False
